//! Why the server did not start or did not end well, and the exit code for each. Main thread.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use crate::config::{FileError, Problem};
use crate::limits::LimitError;
use crate::ops::TopError;
use crate::privilege::PrivilegeError;
use crate::shutdown::CLOSING;

/// Why the run failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// What was typed, or a file it names, is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The system did not give what the server needs.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The listening socket broke.
    #[error("stopped: failed to {0}")]
    Listener(dtls::AcceptError),
    /// Connections were cut off.
    #[error(
        "connections that could not be closed within {} and were cut off: {left}; their threads hang \
         in the system, perhaps in a full pipe given as a file",
        humantime::format_duration(CLOSING)
    )]
    Undrained {
        /// How many.
        left: usize,
    },
    /// A running server could not be shown.
    #[error(transparent)]
    Status(#[from] TopError),
    /// The counters or the settings could not be printed.
    #[error("cannot print: {0}")]
    Report(io::Error),
}

impl Failure {
    /// The process's exit code.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Config(_) => 2,
            Self::Start(_) => 3,
            Self::Listener(_) | Self::Undrained { .. } | Self::Status(_) | Self::Report(_) => 1,
        }
    }
}

/// What was typed, or a file it names, is wrong.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    /// The configuration file.
    #[error(transparent)]
    File(FileError),
    /// A running server keeps its listeners.
    #[error("there would be {now} listeners and are {before}; start the server anew")]
    OtherListeners {
        /// How many the file has now.
        now: usize,
        /// How many run.
        before: usize,
    },
    /// Which of them?
    #[error("--listen: the file has {0} listeners; change the address of one of them there")]
    OneAddressForMany(usize),
    /// A listener's settings.
    #[error("{place}{problem}")]
    Listener {
        /// Where the setting was given; empty, or ending in a colon and a space.
        place: String,
        /// What is wrong with it and what to do.
        problem: Problem,
    },
    /// Nobody to become.
    #[error("{place}{problem}")]
    User {
        /// Where the name was given.
        place: String,
        /// What is wrong with it and what to do.
        problem: PrivilegeError,
    },
    /// The key log cannot be written.
    #[error(
        "{place}cannot write the key log {}: {source}; choose another file",
        path.display()
    )]
    KeyLog {
        /// Where the setting was given.
        place: String,
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
}

/// The system did not give what the server needs.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    /// No listening socket.
    #[error("failed to {0}")]
    Bind(dtls::BindError),
    /// A limit is too low.
    #[error("{place}{source}")]
    Limit {
        /// Where more was asked for, if that is in a file; empty, or ending in a colon and a space.
        place: String,
        /// What is too low, and what to do.
        source: LimitError,
    },
    /// No socket for the operations pages.
    #[error("cannot answer on --metrics {address}: {source}; choose a free port of this host")]
    Metrics {
        /// As it was asked for.
        address: SocketAddr,
        /// The system's reason.
        source: io::Error,
    },
    /// Root's privileges are not gone.
    #[error(transparent)]
    Privilege(#[from] PrivilegeError),
    /// No signal handler.
    #[error("failed to catch signals: {0}")]
    Signals(ctrlc::Error),
    /// No way to hear of SIGHUP.
    #[error("failed to wait for SIGHUP: {0}")]
    Hangups(io::Error),
    /// No listener thread.
    #[error("failed to start the listener thread: {0}; raise the limit on threads (ulimit -u)")]
    Thread(io::Error),
}
