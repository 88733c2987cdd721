//! libfaketime, which makes the clock of a program run faster: a library loaded before its own.
//!
//! It answers for the C library's clocks and shortens the waits that the program asks of the C library.
//! What waits in the kernel by itself (`SO_RCVTIMEO`), or is linked statically, it does not reach, so
//! nobody may rely on it who has not seen it work. Main thread, then the run's.

use std::path::PathBuf;
use std::process::Command;

/// A libfaketime, and how many times as fast clocks run with it.
#[derive(Debug)]
pub struct Faketime {
    library: PathBuf,
    /// How many times as fast.
    pub times: u32,
}

/// There is none on this machine.
#[derive(Debug, thiserror::Error)]
#[error(
    "no {NAME} in {places}: install libfaketime (`apt-get install libfaketime`, or `make deps`), or leave \
     --dilate out"
)]
pub struct NotInstalled {
    places: String,
}

impl Faketime {
    /// The library that the system's packages install.
    ///
    /// # Errors
    ///
    /// [`NotInstalled`] with the places where it was looked for.
    pub fn find(times: u32) -> Result<Self, NotInstalled> {
        // Debian has a folder for each architecture; an ordinary machine has installed it for its own.
        let folders = std::fs::read_dir("/usr/lib").into_iter().flatten();
        let mut places: Vec<PathBuf> = folders
            .filter_map(|folder| Some(folder.ok()?.path().join("faketime")))
            .collect();
        places.sort();
        places.retain(|place| place.is_dir());
        places.extend(
            [
                "/usr/lib64/faketime",
                "/usr/lib/faketime",
                "/usr/local/lib/faketime",
            ]
            .map(PathBuf::from),
        );
        Self::find_in(&places, times)
    }

    fn find_in(places: &[PathBuf], times: u32) -> Result<Self, NotInstalled> {
        let found = places
            .iter()
            .map(|place| place.join(NAME))
            .find(|library| library.is_file());
        match found {
            Some(library) => Ok(Self { library, times }),
            None => Err(NotInstalled {
                places: places
                    .iter()
                    .map(|place| place.display().to_string())
                    .collect::<Vec<_>>()
                    .join(", "),
            }),
        }
    }

    /// Lets the program be started with it.
    pub(super) fn load_into(&self, command: &mut Command) {
        let [preload, faketime] = VARIABLES;
        command
            .env(preload, &self.library)
            .env(faketime, format!("+0 x{}", self.times));
    }
}

/// Removes what the library keeps of a process in shared memory, and leaves there when that is killed.
pub(super) fn forget(pid: u32) {
    for name in ["faketime_shm", "sem.faketime_sem"] {
        let path = format!("/dev/shm/{name}_{pid}");
        match std::fs::remove_file(&path) {
            // Most have none.
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                log::debug!("cannot remove {path}: {error}");
            }
            _ => {}
        }
    }
}

/// How the loader and the library are told.
pub(super) const VARIABLES: [&str; 2] = ["LD_PRELOAD", "FAKETIME"];
/// The one for programs with threads; the others may use it too.
const NAME: &str = "libfaketimeMT.so.1";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_library_is_named_with_its_places_and_the_package() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let place = folder.path().to_owned();
        let missing = Faketime::find_in(std::slice::from_ref(&place), 10).unwrap_err();
        let text = missing.to_string();
        assert!(
            text.contains(&place.display().to_string())
                && text.contains("apt-get install libfaketime"),
            "{text}"
        );
        std::fs::write(folder.path().join(NAME), "").expect("the folder is ours");
        assert_eq!(Faketime::find_in(&[place], 10).unwrap().times, 10);
    }
}
