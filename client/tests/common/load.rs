//! Runs of `dtls-client load` with their reports, each of which is held to the schema.

use std::net::SocketAddr;

use serde_json::Value;

use super::{ca, run, stderr};

/// Runs `load` with JSON and gives the report and the exit code.
#[track_caller]
pub(crate) fn load(server: SocketAddr, args: &[&str]) -> (Value, Option<i32>) {
    let (target, ca) = (server.to_string(), ca());
    let mut all = vec!["load", &target, "--ca", &ca, "--format", "json"];
    all.extend(args);
    let output = run(&all);
    let report = serde_json::from_slice(&output.stdout);
    let report = report.unwrap_or_else(|_| panic!("{}", stderr(&output)));
    assert_valid(&report);
    (report, output.status.code())
}

/// The report is what `report.schema.json` says.
#[track_caller]
pub(crate) fn assert_valid(report: &Value) {
    let schema = include_str!("../../src/load/report.schema.json");
    let schema: Value = serde_json::from_str(schema).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    let errors: Vec<String> = validator
        .iter_errors(report)
        .map(|error| format!("{error} at {}", error.instance_path()))
        .collect();
    assert!(errors.is_empty(), "{errors:#?} in {report:#}");
}

#[track_caller]
pub(crate) fn assert_numbers(report: &Value, expected: &[(&str, u64)]) {
    for &(name, number) in expected {
        assert_eq!(report[name], number, "{name} in {report:#}");
    }
}

/// A percentile of a phase in milliseconds, such as `p50`.
#[track_caller]
pub(crate) fn latency(report: &Value, phase: &str, percentile: &str) -> f64 {
    let value = &report["latency"][phase][format!("{percentile}_ms")];
    value
        .as_f64()
        .unwrap_or_else(|| panic!("{phase} {percentile} in {report:#}"))
}

/// Whether the report has a doubt of this kind.
pub(crate) fn doubts(report: &Value, kind: &str) -> bool {
    let doubts = report["doubts"].as_array().unwrap();
    doubts.iter().any(|doubt| doubt["kind"] == kind)
}
