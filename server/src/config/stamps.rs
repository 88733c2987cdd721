//! How the files were just before they were read: one that is changed meanwhile is noticed later.
//! Main thread at the start, then the reload thread.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// What a file's metadata say of its content.
pub(crate) type Stamp = Option<[i64; 6]>;

/// The stamps of all files.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Stamps(BTreeMap<PathBuf, Stamp>);

impl Stamps {
    /// Notes a file as it is now, unless it is noted already.
    pub(super) fn note(&mut self, file: &Path) {
        self.0.entry(file.to_owned()).or_insert_with(|| stamp(file));
    }

    /// The same files as they are now.
    pub(crate) fn renewed(&self) -> Self {
        self.0
            .keys()
            .map(|file| (file.clone(), stamp(file)))
            .collect()
    }

    /// The first file whose stamp is another one than in `other`.
    pub(crate) fn differs(&self, other: &Self) -> Option<&Path> {
        let mut files = self.0.iter();
        let found = files.find(|(file, stamp)| other.0.get(*file) != Some(stamp));
        found.map(|(file, _)| file.as_path())
    }
}

impl FromIterator<(PathBuf, Stamp)> for Stamps {
    fn from_iter<I: IntoIterator<Item = (PathBuf, Stamp)>>(stamps: I) -> Self {
        Self(stamps.into_iter().collect())
    }
}

/// A file that cannot be read has none: then it has changed once it can be.
fn stamp(file: &Path) -> Stamp {
    let data = file.metadata().ok()?;
    let inode = i64::try_from(data.ino()).unwrap_or(i64::MAX);
    let size = i64::try_from(data.size()).unwrap_or(i64::MAX);
    // The time of the last change too: it cannot be set back.
    Some([
        inode,
        size,
        data.mtime(),
        data.mtime_nsec(),
        data.ctime(),
        data.ctime_nsec(),
    ])
}
