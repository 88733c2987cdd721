//! The report as one page that needs nothing else: no script, no font, no other file; light or dark
//! as the reader's system is. Main thread.

mod chart;

use serde_json::Value;
use strum::IntoEnumIterator;

use super::text::{self, duration};
use super::{Consumption, Report};
use crate::load::measure::Phase;

use chart::{Chart, Series};

/// Writes it.
pub(crate) fn page(report: &Report) -> String {
    let title = escape(&text::title(report));
    let verdict = if report.is_good() {
        "<p class=good>good: everything that was asked for, nothing amiss</p>".to_owned()
    } else {
        format!("<p class=bad>{}</p>", escape(&report.what_went_wrong()))
    };
    let mut body = format!(
        "<h1>dtls-client load</h1>\n<p class=title>{title}</p>\n<p class=dim>{}</p>\n{verdict}\n",
        escape(&report.started_at)
    );
    doubts(&mut body, report);
    totals(&mut body, report);
    latencies(&mut body, report);
    if let Some(knee) = &report.knee {
        let knee = escape(&text::knee_words(knee, report));
        body.push_str(&format!("<h2>Knee</h2>\n<p>{knee}</p>\n"));
    }
    charts(&mut body, report);
    failures(&mut body, report);
    set_up(&mut body, report);
    format!(
        "<!doctype html>\n<html lang=en>\n<meta charset=utf-8>\n\
         <meta name=viewport content=\"width=device-width\">\n<title>{title}</title>\n\
         <style>{STYLE}</style>\n<body>\n{body}</body>\n</html>\n"
    )
}

const STYLE: &str = include_str!("html/style.css");

fn doubts(body: &mut String, report: &Report) {
    if report.doubts.is_empty() {
        return;
    }
    body.push_str("<h2>Doubts</h2>\n<ul class=doubts>\n");
    for doubt in &report.doubts {
        body.push_str(&format!("<li>{}</li>\n", escape(&doubt.text)));
    }
    body.push_str("</ul>\n");
}

fn totals(body: &mut String, report: &Report) {
    let mut tiles = vec![
        (report.completed.to_string(), "connections completed", false),
        (report.failed.to_string(), "failed", report.failed > 0),
        (
            format!("{:.0}", report.handshakes_per_second),
            "handshakes a second",
            false,
        ),
        (
            report.retransmissions.to_string(),
            "flights sent again",
            false,
        ),
    ];
    if report.plan.has_messages() {
        tiles.push((
            format!("{:.0}", report.messages_per_second),
            "messages a second",
            false,
        ));
        tiles.push((report.lost.to_string(), "messages lost", report.lost > 0));
    }
    if let Some(each) = report
        .server
        .as_ref()
        .and_then(|server| server.per_handshake_us)
    {
        tiles.push((
            format!("{each:.0} µs"),
            "server's processor per handshake",
            false,
        ));
    }
    tiles.push((duration(report.seconds * 1e3), "in all", false));
    body.push_str("<div class=tiles>\n");
    for (number, words, bad) in tiles {
        let class = if bad { " class=bad" } else { "" };
        body.push_str(&format!(
            "<div{class}><b>{number}</b><span>{words}</span></div>\n"
        ));
    }
    body.push_str("</div>\n");
}

fn latencies(body: &mut String, report: &Report) {
    body.push_str(
        "<h2>Latency</h2>\n<table><tr><th>phase<th>count<th>p50<th>p90<th>p99<th>p99.9<th>max</tr>\n",
    );
    for phase in Phase::iter() {
        if let Some(found) = report.percentiles(phase) {
            let mut row = format!("<tr><td>{}<td>{}", phase.words(), found.count);
            for milliseconds in [
                found.p50_ms,
                found.p90_ms,
                found.p99_ms,
                found.p99_9_ms,
                found.max_ms,
            ] {
                row.push_str(&format!("<td>{}", duration(milliseconds)));
            }
            body.push_str(&format!("{row}</tr>\n"));
        }
    }
    body.push_str("</table>\n");
}

/// Phases with enough to draw.
fn drawn(report: &Report) -> Vec<Phase> {
    Phase::iter()
        .filter(|&phase| phase != Phase::StartDelay)
        .filter(|&phase| {
            report
                .histogram(phase)
                .is_some_and(|latency| latency.count() > 1)
        })
        .collect()
}

fn charts(body: &mut String, report: &Report) {
    let lines = |points: fn(&Report, Phase) -> Vec<(f64, f64)>| {
        drawn(report)
            .into_iter()
            .map(|phase| Series::new(phase.words(), points(report, phase)))
            .collect::<Vec<_>>()
    };
    let distribution = Chart {
        title: "Latency: part of all that took at most so long",
        x: "latency (ms)",
        y: "part of all (%)",
        series: lines(|report, phase| {
            let latency = report.histogram(phase).into_iter();
            latency.flat_map(|latency| latency.steps()).collect()
        }),
    };
    let percentiles = Chart {
        title: "Latency by percentile",
        x: "percentile",
        y: "latency (ms)",
        series: lines(|report, phase| {
            let latency = report.histogram(phase).into_iter();
            // The maximum would lie at infinity.
            let steps = latency.flat_map(|latency| latency.steps());
            steps
                .filter(|&(_, part)| part < 1.0)
                .map(|(ms, part)| (1.0 / (1.0 - part), ms))
                .collect()
        }),
    };
    let over_time = |value: fn(&super::WindowReport) -> Option<f64>| -> Vec<(f64, f64)> {
        let windows = report.windows.iter();
        windows
            .filter_map(|window| Some((window.window.from_ms / 1e3, value(window)?)))
            .collect()
    };
    let rates = Chart {
        title: "Connections over time",
        x: "intended start (s)",
        y: "connections a second",
        series: vec![
            Series::new(
                "meant to begin",
                over_time(|window| (!window.window.cut_short).then_some(window.rate)),
            ),
            Series::new(
                "failed",
                over_time(|window| {
                    let length = (window.window.to_ms - window.window.from_ms) / 1e3;
                    let failed = u32::try_from(window.window.failed).unwrap_or(u32::MAX);
                    Some(f64::from(failed) / length)
                }),
            ),
        ],
    };
    let latency = Chart {
        title: "Latency over time, from the intended start to the end of the handshake",
        x: "intended start (s)",
        y: "latency (ms)",
        series: vec![
            Series::new("p50", over_time(|window| window.p50_ms)),
            Series::new("p99", over_time(|window| window.p99_ms)),
            Series::new("max", over_time(|window| window.max_ms)),
        ],
    };
    body.push_str("<h2>Charts</h2>\n<div class=charts>\n");
    for svg in [
        distribution.logarithmic_x(),
        percentiles.by_percentile(),
        rates.linear(),
        latency.logarithmic_y(),
    ]
    .into_iter()
    .flatten()
    {
        body.push_str(&format!("<figure>{svg}</figure>\n"));
    }
    body.push_str("</div>\n");
}

fn failures(body: &mut String, report: &Report) {
    body.push_str("<h2>Failures</h2>\n");
    if report.failures.is_empty() {
        body.push_str("<p class=dim>none</p>\n");
        return;
    }
    body.push_str("<table><tr><th>stage<th>count<th class=words>why</tr>\n");
    for failures in &report.failures {
        let why = escape(&failures.error);
        let (stage, count) = (failures.stage.name(), failures.count);
        body.push_str(&format!(
            "<tr><td>{stage}<td>{count}<td class=words>{why}</tr>\n"
        ));
    }
    body.push_str("</table>\n");
}

fn set_up(body: &mut String, report: &Report) {
    body.push_str("<h2>Set-up</h2>\n<table>\n");
    let mut row = |name: &str, value: &str| {
        let (name, value) = (escape(name), escape(value));
        body.push_str(&format!("<tr><td>{name}<td class=words>{value}</tr>\n"));
    };
    row("target", &report.target);
    row("address", &report.peer);
    for agreed in &report.agreed {
        row("agreed on", &text::agreed_words(agreed));
    }
    // The plan as it stands in the JSON report: nothing is left out.
    if let Ok(Value::Object(plan)) = serde_json::to_value(&report.plan) {
        for (name, value) in plan.iter().filter(|(_, value)| !value.is_null()) {
            let value = match value {
                Value::String(text) => text.clone(),
                Value::Array(names) if names.is_empty() => "default".to_owned(),
                other => other.to_string(),
            };
            row(&name.replace('_', " ").replace(" ms", " (ms)"), &value);
        }
    }
    row("client's processor time", &consumption(&report.client));
    if let Some(server) = &report.server {
        row("server's processor time", &consumption(server));
    }
    body.push_str("</table>\n");
}

fn consumption(used: &Consumption) -> String {
    let mut text = format!("{:.2} s", used.processor_seconds);
    if let Some(each) = used.per_handshake_us {
        text.push_str(&format!(", {each:.0} µs per handshake"));
    }
    text.push_str(&format!(
        ", {} MiB of memory at most",
        used.memory_most >> 20
    ));
    text
}

/// A stranger's words (an error names what a server sent) must stay words.
fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            other => safe.push(other),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::escape;

    #[test]
    fn words_of_strangers_stay_words() {
        assert_eq!(
            escape("<script a=\"1\" b='2'>&"),
            "&lt;script a=&quot;1&quot; b=&#39;2&#39;&gt;&amp;"
        );
    }
}
