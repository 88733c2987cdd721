//! What a program has counted for itself, from the JSON that it printed. Run's thread.

use std::collections::BTreeMap;

use crate::endpoint::process::{Process, Stream};

/// The counters a server printed as its last JSON object.
pub(super) fn counters(server: &Process) -> Option<BTreeMap<String, u64>> {
    server.said(Stream::Out).iter().rev().find_map(|line| {
        let value: serde_json::Value = serde_json::from_str(line).ok()?;
        Some(numbers(value.get("counters")?))
    })
}

/// The numbers in the JSON a client printed, on one line or over many.
pub(super) fn json_numbers(client: &Process) -> Option<BTreeMap<String, u64>> {
    let text = client.said(Stream::Out).join("\n");
    Some(numbers(&serde_json::from_str(&text).ok()?))
}

fn numbers(value: &serde_json::Value) -> BTreeMap<String, u64> {
    let mut found = BTreeMap::new();
    for (name, value) in value.as_object().into_iter().flatten() {
        if let Some(number) = value.as_u64() {
            found.insert(name.clone(), number);
        }
        found.extend(
            numbers(value)
                .into_iter()
                .map(|(inner, number)| (format!("{name}.{inner}"), number)),
        );
    }
    found
}
