//! The kernel's own network emulator in place of the wire's links: which scenarios it can play, and how
//! it is told.
//!
//! `tc` puts a netem qdisc on the relay's end of each veth pair. The relay forwards every datagram
//! through it and watches what comes out behind it, so verdicts still rest on the wire. Main thread for
//! the question whether there is a netem, else the run's.

use std::fmt::Write as _;
use std::io::Write as _;
use std::process::{Command, Stdio};

use crate::netns::{self, Namespace, WIRE_TO_CLIENT, WIRE_TO_SERVER};
use crate::scenario::Scenario;
use crate::wire::link::{Link, USUAL_LIMIT};
use crate::wire::rule::Action;

/// Why the kernel's netem cannot be had; the environment's.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Missing {
    /// There is no `tc`.
    #[error("cannot run `tc` ({0}): install iproute2 (`apt-get install iproute2`, or `make deps`)")]
    NoTc(String),
    /// `tc` refused what we asked for.
    #[error(
        "`tc` says: {0}; does this kernel have sch_netem and sch_prio (`modprobe -a sch_netem sch_prio`)?"
    )]
    Refused(String),
    /// No namespace to try it in.
    #[error("{0}")]
    Namespace(String),
}

/// Why the links of `scenario` cannot be the kernel's; `Ok` when they can.
///
/// # Errors
///
/// What it needs of the wire, in words.
pub fn suffices_for(scenario: &Scenario) -> Result<(), String> {
    let needs = |what: &str| Err(format!("{what} needs the wire backend"));
    // A scenario without any fault is the control of others.
    if !has_links(scenario) && scenario.control.is_some() {
        return Err("it has no link for netem to make: it needs the wire backend".to_owned());
    }
    if !scenario.injects.is_empty() {
        return needs("an attacker");
    }
    if !scenario.blackholes.is_empty() {
        return needs("a blackhole");
    }
    if !scenario.rebinds.is_empty() {
        return needs("a NAT that rebinds");
    }
    if scenario
        .rules
        .iter()
        .any(|rule| rule.action != Action::Pass)
    {
        return needs("a rule that names datagrams");
    }
    for link in [&scenario.to_server, &scenario.to_client] {
        if link.mtu.is_some() {
            return needs("a link's `mtu`");
        }
        if !link.corrupt.is_never() {
            // The kernel drops what has a wrong UDP checksum: the damage would never reach DTLS.
            return needs("`corrupt`, of which netem does not make the checksum right,");
        }
        if !scenario.rules.is_empty() && (link.rate.is_some() || !link.slot.is_zero()) {
            return needs("what a rule lets pass on a link with `rate` or `slot`");
        }
    }
    Ok(())
}

/// Whether `scenario` has a link that the kernel would have to be asked for.
#[must_use]
pub fn has_links(scenario: &Scenario) -> bool {
    [&scenario.to_server, &scenario.to_client]
        .iter()
        .any(|link| **link != Link::default())
}

/// Whether this machine has netem, tried out in a namespace of its own.
///
/// # Errors
///
/// [`Missing`], with what `tc` says.
pub fn available() -> Result<(), Missing> {
    let tried = std::thread::spawn(|| {
        let _scratch = Namespace::new().map_err(|error| Missing::Namespace(error.to_string()))?;
        // With all that any scenario asks for: netem below prio.
        tc_batch(&qdiscs("lo", &Link::default(), true))
    });
    tried.join().unwrap_or_else(|_| {
        Err(Missing::Namespace(
            "the thread that tried it panicked".to_owned(),
        ))
    })
}

/// Makes the links to the server and to the client in the calling thread's namespace, which must be a
/// wire's; `passes`: rules let some datagrams pass.
///
/// # Errors
///
/// [`Missing`], with what `tc` says.
pub fn set_up(links: [&Link; 2], passes: bool) -> Result<(), Missing> {
    // The relay sends what goes to the server through its end of the server's veth pair.
    let interfaces = [WIRE_TO_SERVER, WIRE_TO_CLIENT];
    let commands = interfaces
        .into_iter()
        .zip(links)
        .map(|(interface, link)| qdiscs(interface, link, passes));
    tc_batch(&commands.collect::<String>())
}

/// Socket priority of the datagrams that a rule lets pass; prio(8) sends it into the first band.
pub const PASSES: i32 = 6;

/// The commands that make a link on `interface`; with two bands, the first of which only delays, where
/// rules let datagrams pass.
fn qdiscs(interface: &str, link: &Link, passes: bool) -> String {
    let netem = words(link);
    if !passes {
        return format!("qdisc add dev {interface} root netem {netem}\n");
    }
    let delay = words(&Link {
        delay: link.delay,
        jitter: link.jitter,
        ..Link::default()
    });
    format!(
        "qdisc add dev {interface} root handle 1: prio bands 2 \
         priomap 1 1 1 1 1 1 0 1 1 1 1 1 1 1 1 1\n\
         qdisc add dev {interface} parent 1:1 netem {delay}\n\
         qdisc add dev {interface} parent 1:2 netem {netem}\n"
    )
}

/// A link as tc-netem(8) takes it.
#[must_use]
pub fn words(link: &Link) -> String {
    let mut words = format!("limit {}", link.limit.unwrap_or(USUAL_LIMIT));
    let mut add = |text: std::fmt::Arguments<'_>| {
        words.push(' ');
        words.write_fmt(text).expect("a string takes everything");
    };
    if !link.delay.is_zero() {
        add(format_args!("delay {}us", link.delay.as_micros()));
        if !link.jitter.is_zero() {
            add(format_args!("{}us", link.jitter.as_micros()));
        }
    }
    if !link.loss.is_never() {
        add(format_args!("loss random {}", link.loss));
    }
    if let Some(model) = &link.gemodel {
        add(format_args!(
            "loss gemodel {} {} {} {}",
            model.p, model.r, model.loss_in_bad, model.loss_in_good
        ));
    }
    if !link.duplicate.is_never() {
        add(format_args!("duplicate {}", link.duplicate));
    }
    if !link.corrupt.is_never() {
        add(format_args!("corrupt {}", link.corrupt));
    }
    if !link.reorder.is_never() {
        add(format_args!("reorder {}", link.reorder));
    }
    if let Some(rate) = link.rate {
        add(format_args!("rate {}bit", rate.0));
    }
    if !link.slot.is_zero() {
        let slot = link.slot.as_micros();
        add(format_args!("slot {slot}us {slot}us"));
    }
    words
}

/// Runs one `tc -batch` in the calling thread's namespace.
fn tc_batch(commands: &str) -> Result<(), Missing> {
    let no_tc = |error: std::io::Error| Missing::NoTc(error.to_string());
    let mut tc = Command::new("tc")
        .env("PATH", netns::administrators_path())
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(no_tc)?;
    if let Some(mut stdin) = tc.stdin.take() {
        // A write error means `tc` ended early; its stderr below says why.
        if let Err(error) = stdin.write_all(commands.as_bytes()) {
            log::debug!("tc closed its input early: {error}");
        }
    }
    let output = tc.wait_with_output().map_err(no_tc)?;
    if output.status.success() {
        return Ok(());
    }
    let message = String::from_utf8_lossy(&output.stderr);
    let first = message.lines().find(|line| !line.trim().is_empty());
    let first = first.unwrap_or("nothing").trim_start_matches("Error: ");
    Err(Missing::Refused(first.trim_end_matches('.').to_owned()))
}

#[cfg(test)]
mod tests;
