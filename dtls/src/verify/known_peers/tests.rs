//! The file's grammar, first use, and change, without a handshake.

use std::os::unix::fs::PermissionsExt as _;

use proptest::prelude::*;

use super::*;

const OLD: [u8; 32] = [1; 32];
const NEW: [u8; 32] = [2; 32];

fn in_dir(content: Option<&str>) -> (tempfile::TempDir, KnownPeers) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("known_peers");
    if let Some(content) = content {
        fs::write(&path, content).unwrap();
    }
    let known = KnownPeers::open(&path).unwrap();
    (dir, known)
}

#[test]
fn a_noted_peer_is_known_and_the_rest_of_the_file_stays_as_it_was() {
    let before = "# mine, do not lose\n\nother:1 SHA256:".to_owned() + &"00".repeat(32);
    let (_dir, known) = in_dir(Some(&before));
    assert_eq!(known.look_up("Host.Example", 4433, OLD.into()), Ok(false));
    known.note("Host.Example", 4433, OLD.into()).unwrap();
    assert_eq!(known.look_up("host.example", 4433, OLD.into()), Ok(true));
    assert_eq!(known.look_up("host.example", 4434, OLD.into()), Ok(false));
    let after = fs::read_to_string(&*known.path).unwrap();
    let line = format!("host.example:4433 {}\n", Fingerprint::from(OLD));
    assert_eq!(after, format!("{before}\n{line}"));
}

#[test]
fn a_new_file_is_readable_by_its_owner_only_and_nothing_else_stays_in_the_directory() {
    let (dir, known) = in_dir(None);
    known.note("::1", 4433, OLD.into()).unwrap();
    let mode = fs::metadata(&*known.path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    assert_eq!(known.look_up("[::1]", 4433, OLD.into()), Ok(true));
}

#[test]
fn a_changed_certificate_is_an_error_that_names_file_line_and_remedy() {
    let text = format!("# one\n\nhost:1 {}\n", Fingerprint::from(OLD));
    let (_dir, known) = in_dir(Some(&text));
    let error = known.look_up("host", 1, NEW.into()).unwrap_err();
    let path = known.path.display().to_string();
    for part in [
        "host:1 has changed",
        &format!("line 3 of {path}"),
        "delete that line",
    ] {
        assert!(error.contains(part), "{error}");
    }
    // And nothing writes over it.
    assert!(known.note("host", 1, NEW.into()).is_err());
    assert_eq!(fs::read_to_string(&*known.path).unwrap(), text);
}

#[test]
fn several_lines_for_a_peer_mean_any_of_them() {
    let (old, new) = (Fingerprint::from(OLD), Fingerprint::from(NEW));
    let (_dir, known) = in_dir(Some(&format!("host:1 {old}\nhost:1 {new}\n")));
    assert_eq!(known.look_up("host", 1, OLD.into()), Ok(true));
    assert_eq!(known.look_up("host", 1, NEW.into()), Ok(true));
    assert!(known.look_up("host", 1, [3; 32].into()).is_err());
}

#[test]
fn two_threads_that_meet_different_certificates_first_do_not_both_win() {
    let (_dir, known) = in_dir(None);
    let outcomes: Vec<_> = std::thread::scope(|scope| {
        let threads = [OLD, NEW].map(|leaf| {
            let known = &known;
            scope.spawn(move || known.note("host", 1, leaf.into()))
        });
        threads.map(|thread| thread.join().unwrap()).into()
    });
    assert_eq!(outcomes.iter().filter(|noted| noted.is_ok()).count(), 1);
}

#[test]
fn lines_that_are_none_are_refused_with_their_number() {
    let good = Fingerprint::from(OLD);
    for (line, problem) in [
        ("host:1".to_owned(), "two words"),
        (format!("host:1 {good} x"), "two words"),
        (format!("host {good}"), "no port"),
        (format!("host:x {good}"), "no port"),
        (format!("host:0 {good}"), "no port"),
        (format!("host:65536 {good}"), "no port"),
        (format!(":1 {good}"), "no host"),
        (format!("::1:1 {good}"), "brackets"),
        (format!("[x]y:1 {good}"), "no host"),
        ("host:1 SHA256:00".to_owned(), "64 hexadecimal"),
        (format!("host:1 {}", "00".repeat(32)), "start with SHA256:"),
    ] {
        let error = KnownPeers::parse(&format!("# first\n{line}\n")).unwrap_err();
        assert_eq!(error.line, 2);
        assert!(error.problem.contains(problem), "{line}: {error}");
    }
}

#[test]
fn a_file_in_no_directory_or_with_a_bad_line_is_refused_at_once() {
    let dir = tempfile::tempdir().unwrap();
    assert!(KnownPeers::open(dir.path().join("missing/known_peers")).is_err());
    let path = dir.path().join("bad");
    fs::write(&path, "nonsense\n").unwrap();
    let error = KnownPeers::open(&path).unwrap_err().to_string();
    assert!(error.contains("line 1"), "{error}");
}

proptest! {
    #[test]
    fn no_text_makes_the_parser_panic(text in "(?s).*") {
        let lines = text.lines().count();
        if let Ok(peers) = KnownPeers::parse(&text) {
            prop_assert!(peers.len() <= lines);
        }
    }

    #[test]
    fn what_is_written_reads_the_same(
        peers in proptest::collection::vec(("[a-z0-9.-]{1,20}|[0-9a-f]{1,4}::1", 1..=u16::MAX, any::<[u8; 32]>()), 0..10),
        comment in "# .*",
    ) {
        let mut text = format!("{}\n", comment.replace(['\n', '\r'], ""));
        for (host, port, leaf) in &peers {
            let key = peer_key(host, *port).unwrap();
            text.push_str(&format!("{key} {}\n", Fingerprint::from(*leaf)));
        }
        let read = KnownPeers::parse(&text).unwrap();
        prop_assert_eq!(read.len(), peers.len());
        for (read, (host, port, leaf)) in read.iter().zip(&peers) {
            prop_assert_eq!(&read.peer, &peer_key(host, *port).unwrap());
            prop_assert_eq!(read.fingerprint, Fingerprint::from(*leaf));
        }
    }
}
