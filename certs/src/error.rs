//! What can go wrong: one enum for making certificates, one for writing them.

use std::io;
use std::path::PathBuf;

/// A key, certificate or revocation list could not be made.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// The library refused the certificate or list; a defect of this crate.
    #[error("cannot make the certificate of {subject}")]
    Certificate {
        /// Whose certificate or list.
        subject: String,
        /// What the library said.
        source: rcgen::Error,
    },
    /// The key could not be made or read back.
    #[error("cannot make an {kind} key")]
    Key {
        /// The kind of key.
        kind: &'static str,
        /// What the library said.
        source: rcgen::Error,
    },
    /// The system's random source failed.
    #[error("cannot draw random bytes for the {what}")]
    Random {
        /// What the bytes were for.
        what: &'static str,
        /// What the library said: nothing more.
        source: aws_lc_rs::error::Unspecified,
    },
}

impl IssueError {
    pub(crate) fn certificate(subject: &str, source: rcgen::Error) -> Self {
        Self::Certificate {
            subject: subject.to_owned(),
            source,
        }
    }
}

/// The PKI could not be written to its directory.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// Making it failed.
    #[error(transparent)]
    Issue(#[from] IssueError),
    /// A file of that name is there and replacing it was not asked for.
    #[error(
        "{} exists and is left alone; pass --force to replace the PKI there, or name another directory",
        path.display()
    )]
    Exists {
        /// The first such file.
        path: PathBuf,
    },
    /// The name belongs to something that is not a directory.
    #[error("{} is not a directory; name one, it is made if it is missing", path.display())]
    NotADirectory {
        /// The name.
        path: PathBuf,
    },
    /// The file system refused.
    #[error("cannot write {}; check its permissions and the space left", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the file system said.
        source: io::Error,
    },
}
