//! The oracle's answer: distributions of handshake times against the model, as a plot and in numbers.
//! Main thread.

use std::io;

use crate::oracle::plot;
use crate::oracle::report::Answer;

/// What the page shows of it.
#[derive(Debug)]
pub(super) struct OracleView {
    pub(super) words: String,
    pub(super) svg: String,
    pub(super) rows: Vec<LossRow>,
}

/// One loss rate.
#[derive(Debug)]
pub(super) struct LossRow {
    pub(super) cells: Vec<String>,
    pub(super) good: bool,
    pub(super) verdict: &'static str,
}

impl OracleView {
    pub(super) fn of(answer: &Answer) -> io::Result<Self> {
        let defect = answer.defect.as_ref().map_or_else(String::new, |defect| {
            format!("The defect {defect} was planted in the ends, to see it found. ")
        });
        let words = format!(
            "{defect}Share of simulated {} handshakes that are complete by each time (steps), and what flights, timers and \
             loss alone make of it (bands: the model, as wide as the bound of Dvoretzky, Kiefer and Wolfowitz \
             around it). Simulated {}, seed {}; pairs are simulated/computed.",
            answer.handshake, answer.made_at, answer.seed
        );
        let rows = answer.compared.iter().map(|it| {
            let [p50, p90, p99] = it.quantiles.map(|pair| {
                let [simulated, computed] = pair
                    .map(|time| time.map_or_else(|| "never".to_owned(), |time| format!("{time}")));
                format!("{simulated}/{computed} s")
            });
            LossRow {
                cells: vec![
                    format!("{} %", it.loss),
                    it.handshakes.to_string(),
                    format!("{:.4}/{:.4}", it.at_once[0], it.at_once[1]),
                    p50,
                    p90,
                    p99,
                    format!("{:.4}", it.distance),
                    format!("{:.4}", it.bound),
                ],
                good: it.agrees,
                verdict: if it.agrees { "agrees" } else { "DIFFERS" },
            }
        });
        Ok(Self {
            words,
            rows: rows.collect(),
            svg: plot::for_page(&answer.compared).map_err(io::Error::other)?,
        })
    }
}
