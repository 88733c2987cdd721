//! Changed files and SIGHUP: everything is read and checked anew, and taken into use for new
//! connections. What is wrong changes nothing. A thread of its own.
//!
//! ```text
//! SIGHUP ───────────────────────────────┐
//! a file's stamp is another than before,├─► Config::check ──┬─► ListenerHandle::replace_config
//! and no longer changes ────────────────┘   (as at the      └─► refused: the old one stays, one line
//!                                            start)             says why
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::thread;

use dtls::ListenerHandle;
use log::Level;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use serde_json::Value;

use crate::cli::Args;
use crate::config::{Adjust, Config, Stamps};
use crate::logging::say;
use crate::stats::Counter;

/// How often files are looked at, in milliseconds. A file that is still being written has another
/// stamp the next time.
const INTERVAL: u16 = 1000;

/// SIGHUP, as something to wait for.
pub(crate) struct Hangups(SignalFd);

/// Makes SIGHUP wait in a descriptor from now on, for this thread and all it starts.
///
/// # Errors
/// The system gives no descriptor.
pub(crate) fn on_hangups() -> io::Result<Hangups> {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGHUP);
    signals.thread_block()?;
    let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
    Ok(Hangups(SignalFd::with_flags(&signals, flags)?))
}

/// Starts the thread, which lives as long as the process.
///
/// # Errors
/// The system allows no further thread.
pub(crate) fn start(
    hangups: Hangups,
    args: Args,
    adjust: Adjust,
    config: Config,
    listeners: Vec<ListenerHandle>,
) -> io::Result<()> {
    let changes = Changes::new(config.files.clone());
    let reloader = Reloader {
        running: config.fixed(),
        args,
        adjust,
        config,
        listeners,
        changes,
    };
    thread::Builder::new()
        .name("reload".to_owned())
        .spawn(move || reloader.run(&hangups))
        .map(drop)
}

struct Reloader {
    args: Args,
    adjust: Adjust,
    /// What new connections get.
    config: Config,
    /// With what the server was started, of that which only a start can change.
    running: BTreeMap<String, Value>,
    /// In the order of the configuration.
    listeners: Vec<ListenerHandle>,
    changes: Changes,
}

impl Reloader {
    fn run(mut self, hangups: &Hangups) {
        loop {
            let mut waiting = [PollFd::new(hangups.0.as_fd(), PollFlags::POLLIN)];
            match poll(&mut waiting, PollTimeout::from(INTERVAL)) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(errno) => {
                    log::error!("files are no longer looked after: {errno}");
                    return;
                }
            }
            let mut asked = false;
            while let Ok(Some(_)) = hangups.0.read_signal() {
                asked = true;
            }
            let settled = self.changes.look(self.config.files.renewed());
            if asked {
                self.changes.taken();
                self.reload("SIGHUP");
            } else if let Some(file) = settled {
                self.reload(&format!("{} has changed", file.display()));
            }
        }
    }

    fn reload(&mut self, why: &str) {
        match Config::check(&self.args, &self.adjust, Some(&self.config)) {
            Ok(config) => {
                for (handle, listener) in self.listeners.iter().zip(&config.listeners) {
                    handle.replace_config(listener.ready.dtls.clone());
                    listener.stats.count(Counter::Reloads);
                }
                say(Level::Info, &format!("reloaded for new connections: {why}"));
                let asked = config.fixed();
                let names: BTreeSet<_> = self.running.keys().chain(asked.keys()).collect();
                let later = |name: &&String| self.running.get(*name) != asked.get(*name);
                for later in names.into_iter().filter(later) {
                    say(
                        Level::Warn,
                        &format!("{later} takes effect with the next start only"),
                    );
                }
                self.config = config;
                // The new configuration may name other files.
                self.changes = Changes::new(self.config.files.clone());
            }
            Err(failure) => {
                for listener in &self.config.listeners {
                    listener.stats.count(Counter::ReloadsRefused);
                }
                say(
                    Level::Warn,
                    &format!("dtls-server: {why}, but everything stays as it was: {failure}"),
                );
            }
        }
    }
}

/// Tells files that have changed from those that still do.
#[derive(Debug)]
struct Changes {
    /// As they were when they were last read.
    taken: Stamps,
    /// As they were at the last look.
    last: Stamps,
}

impl Changes {
    fn new(stamps: Stamps) -> Self {
        Self {
            taken: stamps.clone(),
            last: stamps,
        }
    }

    /// A file that has changed, if all of them now are as they were at the last look. Each change is
    /// told once.
    fn look(&mut self, now: Stamps) -> Option<PathBuf> {
        let settled = now == self.last;
        self.last = now;
        if !settled {
            return None;
        }
        let changed = self.last.differs(&self.taken)?.to_owned();
        self.taken();
        Some(changed)
    }

    /// They are being read as they are now.
    fn taken(&mut self) {
        self.taken = self.last.clone();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamps(sizes: &[(&str, i64)]) -> Stamps {
        let stamps = sizes.iter();
        stamps
            .map(|(file, size)| (file.into(), Some([0, *size, 0, 0, 0, 0])))
            .collect()
    }

    #[test]
    fn a_change_is_told_once_and_only_when_all_files_have_settled() {
        let mut changes = Changes::new(stamps(&[("a", 1), ("b", 1)]));
        assert_eq!(changes.look(stamps(&[("a", 1), ("b", 1)])), None);
        assert_eq!(changes.look(stamps(&[("a", 2), ("b", 1)])), None);
        assert_eq!(changes.look(stamps(&[("a", 2), ("b", 2)])), None);
        let settled = changes.look(stamps(&[("a", 2), ("b", 2)]));
        assert_eq!(settled, Some("a".into()));
        assert_eq!(changes.look(stamps(&[("a", 2), ("b", 2)])), None);
    }

    #[test]
    fn a_file_that_comes_back_as_it_was_has_not_changed() {
        let mut changes = Changes::new(stamps(&[("a", 1)]));
        let gone = [("a".into(), None)];
        assert_eq!(changes.look(gone.into_iter().collect()), None);
        assert_eq!(changes.look(stamps(&[("a", 1)])), None);
        assert_eq!(changes.look(stamps(&[("a", 1)])), None);
    }
}
