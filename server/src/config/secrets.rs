//! Files that hold secrets, and who else can read them. Main thread, and the reload thread.

use std::collections::BTreeSet;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use nix::unistd::geteuid;

use super::options::ListenerOptions;

/// Files with secrets, and who can read them beside the server.
#[derive(Debug, Default)]
pub(super) struct Exposed(BTreeSet<(PathBuf, &'static str)>);

/// Warns of each file with a secret that others than the server can read or write, unless that was so
/// `before`: a reload is no reason to say it again.
pub(super) fn warn_of_readers<'a>(
    listeners: impl Iterator<Item = &'a ListenerOptions>,
    before: Option<&Exposed>,
) -> Exposed {
    let mut exposed = Exposed::default();
    // Listeners may have some in common.
    for (file, harm) in listeners.flat_map(secrets).collect::<BTreeSet<_>>() {
        // One that cannot be read at all is reported where it is needed.
        let Some(readers) = file.metadata().ok().as_ref().and_then(readers) else {
            continue;
        };
        let found = (file.to_owned(), readers);
        let told = before.is_some_and(|before| before.0.contains(&found));
        exposed.0.insert(found);
        if told {
            continue;
        }
        log::warn!(
            "{} can be read by {readers}, who can then {harm}; run: chmod 600 {0}",
            file.display()
        );
    }
    exposed
}

/// The files, and what can be done with what they hold.
fn secrets(options: &ListenerOptions) -> Vec<(&Path, &'static str)> {
    let named = options.sni.iter().flatten();
    let keys = options.key.iter().chain(named.map(|named| &named.key));
    let files = [
        (&options.psk_file, "pass for each client"),
        (&options.shared_keys, "read resumed connections"),
    ];
    let files = files.into_iter();
    files
        .filter_map(|(file, harm)| Some((file.as_deref()?, harm)))
        .chain(keys.map(|key| (key.as_path(), "pass for this server")))
        .collect()
}

/// Who beside the server can read or write the file. Where it is another user's, the server reads it
/// as a member of its group, and may.
fn readers(file: &Metadata) -> Option<&'static str> {
    let may = |bits| file.mode() & bits != 0;
    if may(0o007) {
        Some("everybody on this host")
    } else if may(0o070) && file.uid() == geteuid().as_raw() {
        Some("its whole group")
    } else {
        None
    }
}
