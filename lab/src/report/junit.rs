//! The report for build servers: `JUnit` XML, a suite for each scenario. Main thread.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::time::Duration;

use quick_junit::{NonSuccessKind, TestCase, TestCaseStatus, TestSuite};

use super::{Report, Row, Status};

/// Writes a whole report.
///
/// A known failure of another implementation is a skipped test with its reason, as test frameworks write
/// a failure that they expect; what was not tried is skipped too.
///
/// # Errors
///
/// What the output says.
pub fn write_junit(out: &mut impl Write, report: &Report) -> io::Result<()> {
    let mut suites: BTreeMap<&str, TestSuite> = BTreeMap::new();
    for row in &report.runs {
        let suite = suites
            .entry(&row.scenario)
            .or_insert_with(|| TestSuite::new(row.scenario.as_str()));
        suite.add_test_case(test_case(row));
        suite.set_time(suite.time.unwrap_or_default() + took(row));
    }
    let mut document = quick_junit::Report::new("dtls-lab");
    document.set_time(Duration::try_from_secs_f64(report.summary.seconds).unwrap_or_default());
    document.add_test_suites(suites.into_values());
    document.serialize(&mut *out).map_err(io::Error::other)
}

fn test_case(row: &Row) -> TestCase {
    let mut name = format!(
        "{} / {} over {} on {}",
        row.server, row.client, row.family, row.backend
    );
    // The id of a repetition ends with its number.
    if let Some((_, number)) = row.id.rsplit_once('.')
        && number.parse::<u32>().is_ok()
    {
        name.push_str(&format!(", run {number}"));
    }
    let mut case = TestCase::new(name, status(row));
    case.set_classname(format!("dtls-lab.{}", row.scenario));
    case.set_time(took(row));
    let mut said = format!(
        "{}\nbackend   {}\nreplay    {}\n",
        row.claim, row.backend, row.replay
    );
    if let Some(evidence) = &row.evidence {
        said.push_str(&format!("evidence  {evidence}\n"));
    }
    case.set_system_out(said);
    case
}

fn status(row: &Row) -> TestCaseStatus {
    let mut status = match row.status {
        Status::Pass => return TestCaseStatus::success(),
        Status::KnownFailure | Status::Unsupported | Status::Skipped => TestCaseStatus::skipped(),
        Status::Fail | Status::UnexpectedPass | Status::RequiredButSkipped => {
            TestCaseStatus::non_success(NonSuccessKind::Failure)
        }
        Status::Broken => TestCaseStatus::non_success(NonSuccessKind::Error),
    };
    status.set_type(row.status.word());
    status.set_message(match &row.known {
        Some(known) if row.status == Status::KnownFailure => format!("{known}: {}", row.why),
        _ => row.why.clone(),
    });
    status
}

fn took(row: &Row) -> Duration {
    Duration::try_from_secs_f64(row.seconds).unwrap_or_default()
}
