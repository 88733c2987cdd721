//! What each connection does, and when it begins. Plain values.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// What each connection does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Mode {
    Echo,
    Handshake,
    Resume,
    HalfOpen,
    Hold,
    Reconnect,
    HelloFlood,
    /// Of several modes, see --mix
    Mix,
}

/// How the beginnings of connections lie in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Arrivals {
    /// Equally far apart
    Constant,
    /// As independent clients come: gaps are exponential
    Poisson,
}
