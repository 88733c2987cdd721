//! The server's own counters beside ours: a page of metrics in the Prometheus or OpenMetrics text
//! format, read before and after a run. Main thread.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::time::Duration;

use super::doubts::{Doubt, Kind};
use super::measure::Tally;

/// Where a server's metrics are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MetricsUrl(String);

/// Counters by name, summed up over their labels.
pub(crate) type Counters = BTreeMap<String, u64>;

/// The metrics cannot be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MetricsError {
    #[error("--server-metrics: cannot read {url}: {source}")]
    Http { url: String, source: ureq::Error },
    #[error("--server-metrics: {url} has no counter: is it a page of Prometheus metrics?")]
    Empty { url: String },
}

/// For one answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// A page of metrics is some kilobytes.
const LONGEST: u64 = 4 << 20;

impl FromStr for MetricsUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let rest = text
            .strip_prefix("http://")
            .filter(|rest| !rest.is_empty())
            .ok_or("write for example http://127.0.0.1:9464/metrics; only http is spoken")?;
        // What people mean by a server's metrics has a name of its own.
        let path = if rest.contains('/') { "" } else { "/metrics" };
        Ok(Self(format!("{text}{path}")))
    }
}

impl MetricsUrl {
    /// Reads the page.
    pub(crate) fn read(&self) -> Result<Counters, MetricsError> {
        let agent: ureq::Agent = ureq::Agent::config_builder()
            .timeout_global(Some(PATIENCE))
            .build()
            .into();
        let failed = |source| MetricsError::Http {
            url: self.0.clone(),
            source,
        };
        let mut answer = agent.get(&self.0).call().map_err(failed)?;
        let body = answer.body_mut().with_config().limit(LONGEST);
        let counters = parse(&body.read_to_string().map_err(failed)?);
        if counters.is_empty() {
            return Err(MetricsError::Empty {
                url: self.0.clone(),
            });
        }
        Ok(counters)
    }
}

/// The counters of a page; what is no counter is passed over.
fn parse(page: &str) -> Counters {
    let mut counters = Counters::new();
    for line in page.lines().filter(|line| !line.starts_with('#')) {
        let (name, rest) = match line.split_once('{') {
            // A label's value may hold anything but a bare quote and line end; no name of ours does.
            Some((name, rest)) => (name, rest.rsplit_once('}').map_or("", |(_, rest)| rest)),
            None => line.split_once(' ').unwrap_or((line, "")),
        };
        let value = rest.split_whitespace().next().unwrap_or_default();
        if let (true, Ok(value)) = (name.ends_with("_total"), value.parse::<f64>())
            && (0.0..9e15).contains(&value)
        {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a count in the range in which every whole number has its double"
            )]
            let value = value as u64;
            *counters.entry(name.to_owned()).or_default() += value;
        }
    }
    counters
}

/// By how much each counter has grown; those that have not are left out.
pub(crate) fn growth(before: &Counters, after: &Counters) -> Counters {
    after
        .iter()
        .map(|(name, &value)| {
            let before = before.get(name).copied().unwrap_or_default();
            (name.clone(), value.saturating_sub(before))
        })
        .filter(|&(_, grown)| grown > 0)
        .collect()
}

/// Where the server counted otherwise than we did. A server that names its counters differently is
/// not compared.
pub(crate) fn disagreements(tally: &Tally, known: &Counters, grown: &Counters) -> Vec<Doubt> {
    let mut doubts = Vec::new();
    for (suffix, ours, what) in [
        ("handshakes_completed_total", tally.handshakes, "handshakes"),
        (
            "handshakes_resumed_total",
            tally.resumed,
            "resumed handshakes",
        ),
        ("hello_verify_requests_total", tally.cookies, "cookies"),
    ] {
        let Some(name) = known.keys().find(|name| name.ends_with(suffix)) else {
            continue;
        };
        let theirs = grown.get(name).copied().unwrap_or_default();
        if theirs != ours {
            doubts.push(Doubt {
                kind: Kind::ServerDisagrees,
                text: format!(
                    "{what}: {ours} by our count, {theirs} by the server's ({name}): somebody else uses \
                     it, or datagrams were lost or sent again"
                ),
            });
        }
    }
    doubts
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "\
# TYPE x_handshakes_completed counter
x_handshakes_completed_total{listener=\"a {\\\"}b\"} 3
x_handshakes_completed_total{listener=\"b\"} 4 1700000000
x_connections{listener=\"a\"} 9
plain_total 1.5e3
broken_total{
worse_total NaN
# EOF
";

    #[test]
    fn counters_are_summed_over_their_labels_and_the_rest_is_passed_over() {
        let counters = parse(PAGE);
        let expected = [("plain_total", 1500), ("x_handshakes_completed_total", 7)];
        let expected = expected.map(|(name, value)| (name.to_owned(), value));
        assert_eq!(counters, Counters::from(expected));
        let more = parse(&PAGE.replace(" 4 ", " 9 "));
        let grown = growth(&counters, &more);
        assert_eq!(
            grown,
            Counters::from([("x_handshakes_completed_total".to_owned(), 5)])
        );
    }

    #[test]
    fn a_server_that_counts_otherwise_is_doubted_and_one_without_the_counter_is_not() {
        let mut tally = Tally::new(0, Duration::ZERO);
        tally.handshakes = 5;
        tally.resumed = 2;
        let known = parse(PAGE);
        let grown = |n| Counters::from([("x_handshakes_completed_total".to_owned(), n)]);
        assert_eq!(disagreements(&tally, &known, &grown(5)), []);
        let found = disagreements(&tally, &known, &grown(6));
        assert!(
            found.len() == 1 && found[0].text.contains("5 by our count, 6"),
            "{found:?}"
        );
    }

    #[test]
    fn an_address_is_taken_with_and_without_its_path() {
        let url = |text: &str| text.parse::<MetricsUrl>().map(|url| url.0);
        assert_eq!(url("http://a:1").as_deref(), Ok("http://a:1/metrics"));
        assert_eq!(url("http://a:1/x").as_deref(), Ok("http://a:1/x"));
        assert!(url("a:1").is_err() && url("https://a:1").is_err());
    }
}
