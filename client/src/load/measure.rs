//! What is measured: latencies by phase, counts, and both over time. Workers add to it, each to its
//! own; the main thread adds them up.

mod latency;
mod tally;
mod window;

pub(crate) use latency::{Latency, Percentiles};
pub(crate) use tally::{Agreed, Messages, Phase, Tally, Wire};
pub(crate) use window::Window;
