//! Files that hold secrets, and who else can read them. Main thread, and the reload thread.

use std::collections::BTreeSet;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use nix::unistd::Uid;

use super::options::ListenerOptions;

/// Files with secrets, and who can read them beside the server.
#[derive(Debug, Default)]
pub(super) struct Exposed(BTreeSet<(PathBuf, &'static str)>);

/// Warns of each file with a secret that others than the server, which runs as `user`, can read or
/// write, unless that was so `before`: a reload is no reason to say it again.
pub(super) fn warn_of_readers<'a>(
    listeners: impl Iterator<Item = &'a ListenerOptions>,
    key_log: Option<&'a Path>,
    user: Uid,
    before: Option<&Exposed>,
) -> Exposed {
    let mut exposed = Exposed::default();
    let key_log = key_log.map(|file| (file, "read connections"));
    // Listeners may have some in common.
    let files: BTreeSet<_> = listeners.flat_map(secrets).chain(key_log).collect();
    for (file, harm) in files {
        // One that cannot be read at all is reported where it is needed.
        let metadata = file.metadata().ok();
        let Some(readers) = metadata.and_then(|metadata| readers(&metadata, user)) else {
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

/// Who beside the server, which runs as `user`, can read or write the file. Where it is another user's,
/// the server reads it as a member of its group, and may. Root's file with another group than root's
/// has been given that group for a server, be it not this one: `--check` is run as root, too.
fn readers(file: &Metadata, user: Uid) -> Option<&'static str> {
    // A device, such as /dev/null, keeps nothing.
    if !file.is_file() {
        return None;
    }
    let may = |bits| file.mode() & bits != 0;
    let given = file.uid() == 0 && file.gid() != 0;
    if may(0o006) {
        Some("everybody on this host")
    } else if may(0o060) && file.uid() == user.as_raw() && !given {
        Some("its whole group")
    } else {
        None
    }
}
