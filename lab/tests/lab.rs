//! The lab as a person uses it: the built program, real endpoints, real namespaces.
//!
//! One test program for all of it, so that the helpers are compiled once. Where the machine allows no
//! namespaces these tests fail; they never pass untried.

mod common;

mod can_fail;
mod cli;
mod dilation;
mod endpoints;
mod netem;
mod replay;
mod report;
mod simulator;
mod verdicts;
