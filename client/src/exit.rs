//! The exit codes, the same as of all programs here. Plain values.

/// The run failed.
pub(crate) const FAILED: u8 = 1;
/// Wrong usage or configuration.
pub(crate) const USAGE: u8 = 2;
/// The environment does not allow it.
pub(crate) const ENVIRONMENT: u8 = 3;
