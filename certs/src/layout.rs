//! The PKI on disk: which files there are, what each claims, and how they are written. Runs on the
//! caller's thread.
//!
//! No file is ever half written: each is complete under a temporary name before it gets its own.
//! `ca.pem` is written last and, when a PKI is replaced, removed first, so a directory that holds
//! it holds a whole PKI.

use std::fs::{self, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use crate::TestPki;
use crate::error::WriteError;
use crate::profile::{Profile, Role};

/// Where the files of a PKI are.
#[derive(Clone, Debug)]
pub struct PkiFiles {
    dir: PathBuf,
}

impl PkiFiles {
    /// The files of a PKI in `dir`; does not look whether they are there.
    #[must_use]
    pub fn in_dir(dir: &Path) -> Self {
        Self {
            dir: dir.to_owned(),
        }
    }

    /// The directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// One file.
    #[must_use]
    pub fn path(&self, file: File) -> PathBuf {
        self.dir.join(file.name())
    }

    /// The root certificate, the one to trust.
    #[must_use]
    pub fn ca(&self) -> PathBuf {
        self.path(File::Ca)
    }

    /// The revocation lists.
    #[must_use]
    pub fn crl(&self) -> PathBuf {
        self.path(File::Crl)
    }

    /// The certificate chain of a profile.
    #[must_use]
    pub fn chain(&self, profile: Profile) -> PathBuf {
        self.path(File::Chain(profile))
    }

    /// The private key of a profile.
    #[must_use]
    pub fn key(&self, profile: Profile) -> PathBuf {
        self.path(File::Key(profile))
    }
}

/// One file of the PKI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum File {
    /// The root certificate.
    Ca,
    /// The certificate of the authority under the root.
    Intermediate,
    /// The root certificate of an authority that nobody should trust.
    OtherCa,
    /// The revocation lists of every authority under `ca.pem`.
    Crl,
    /// A leaf with its authorities.
    Chain(Profile),
    /// A leaf's private key.
    Key(Profile),
}

impl File {
    /// Every file of the PKI, `ca.pem` first.
    pub fn all() -> impl DoubleEndedIterator<Item = Self> {
        [Self::Ca, Self::Intermediate, Self::OtherCa, Self::Crl]
            .into_iter()
            .chain(
                Profile::ALL
                    .into_iter()
                    .flat_map(|profile| [Self::Chain(profile), Self::Key(profile)]),
            )
    }

    /// The file's name in its directory.
    #[must_use]
    pub fn name(self) -> String {
        match self {
            Self::Ca => "ca.pem".to_owned(),
            Self::Intermediate => "intermediate.pem".to_owned(),
            Self::OtherCa => "other-ca.pem".to_owned(),
            Self::Crl => "crl.pem".to_owned(),
            Self::Chain(profile) => format!("{}.pem", profile.name),
            Self::Key(profile) => format!("{}.key", profile.name),
        }
    }

    /// What the file is.
    #[must_use]
    pub fn claim(self) -> String {
        match self {
            Self::Ca => "root authority; the one certificate to trust".to_owned(),
            Self::Intermediate => {
                "authority under the root; part of every ordinary chain".to_owned()
            }
            Self::OtherCa => "root of an unrelated authority; not to be trusted".to_owned(),
            Self::Crl => "revocation lists of the authorities under ca.pem".to_owned(),
            Self::Chain(profile) => {
                let role = match profile.role {
                    Role::Server => "server",
                    Role::Client => "client",
                };
                format!(
                    "{} leaf for a {role}: {}",
                    profile.key.label(),
                    profile.purpose
                )
            }
            Self::Key(profile) => format!("private key of {}.pem", profile.name),
        }
    }

    /// What a verifier that trusts `ca.pem` must say, for a file one can verify.
    #[must_use]
    pub fn verification(self) -> Option<String> {
        let Self::Chain(profile) = self else {
            return None;
        };
        let Some(flaw) = profile.flaw else {
            return Some("ok".to_owned());
        };
        let (number, text) = flaw.verify_error();
        Some(match flaw.noticed_only_when() {
            None => format!("error {number}, {text}"),
            Some(when) => format!("error {number}, {text}, once {when}"),
        })
    }

    /// The permission bits it is created with, before the process's umask.
    #[must_use]
    pub fn mode(self) -> u32 {
        match self {
            Self::Key(_) => 0o600,
            _ => 0o644,
        }
    }
}

/// What to do about files that are there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    /// Refuse, and touch nothing.
    Keep,
    /// Write the whole PKI anew.
    Replace,
}

impl TestPki {
    /// Makes a PKI and writes every file of it into `dir`, which is made if it is missing.
    ///
    /// # Errors
    ///
    /// See [`TestPki::write`]; files already there are an error.
    pub fn generate(dir: &Path) -> Result<PkiFiles, WriteError> {
        Self::new()?.write(dir, Existing::Keep)
    }

    /// Writes every file of the PKI into `dir`, which is made if it is missing.
    ///
    /// # Errors
    ///
    /// When a file of the PKI is there and `existing` says to keep it; when `dir` is something
    /// else than a directory; when a leaf cannot be made or the file system refuses.
    pub fn write(&self, dir: &Path, existing: Existing) -> Result<PkiFiles, WriteError> {
        let files = PkiFiles::in_dir(dir);
        if dir.exists() && !dir.is_dir() {
            return Err(WriteError::NotADirectory {
                path: dir.to_owned(),
            });
        }
        if existing == Existing::Keep
            && let Some(path) = File::all()
                .map(|file| files.path(file))
                .find(|path| is_there(path))
        {
            return Err(WriteError::Exists { path });
        }
        fs::create_dir_all(dir).map_err(|source| WriteError::Io {
            path: dir.to_owned(),
            source,
        })?;
        if existing == Existing::Replace {
            remove(&files.ca())?;
        }
        for profile in Profile::ALL {
            let credentials = self.issue(profile)?;
            write(&files, File::Key(profile), &credentials.key_pem, existing)?;
            write(
                &files,
                File::Chain(profile),
                &credentials.chain_pem,
                existing,
            )?;
        }
        write(&files, File::Crl, &self.crl_pem()?, existing)?;
        write(&files, File::OtherCa, &self.other_ca_pem(), existing)?;
        write(
            &files,
            File::Intermediate,
            &self.intermediate_pem(),
            existing,
        )?;
        write(&files, File::Ca, &self.ca_pem(), existing)?;
        Ok(files)
    }
}

/// Whether the name is taken, be it by a dangling symbolic link.
fn is_there(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

/// Removes the file if it is there.
///
/// # Errors
///
/// When the file system refuses.
fn remove(path: &Path) -> Result<(), WriteError> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(WriteError::Io {
            path: path.to_owned(),
            source,
        }),
        _ => Ok(()),
    }
}

/// Gives the file its name only when it is complete. A key has its narrow mode from the moment it
/// is created: nobody can open it in between.
///
/// # Errors
///
/// When the file system refuses, or the file is there and is to be kept.
fn write(
    files: &PkiFiles,
    file: File,
    content: &str,
    existing: Existing,
) -> Result<(), WriteError> {
    let path = files.path(file);
    let written = tempfile::Builder::new()
        .permissions(Permissions::from_mode(file.mode()))
        .tempfile_in(files.dir())
        .and_then(|mut temporary| {
            temporary.write_all(content.as_bytes())?;
            Ok(temporary)
        });
    let persisted = written.and_then(|temporary| match existing {
        Existing::Keep => temporary.persist_noclobber(&path).map_err(io::Error::from),
        Existing::Replace => temporary.persist(&path).map_err(io::Error::from),
    });
    match persisted {
        Ok(_) => Ok(()),
        Err(source) if source.kind() == io::ErrorKind::AlreadyExists => {
            Err(WriteError::Exists { path })
        }
        Err(source) => Err(WriteError::Io { path, source }),
    }
}
