//! The program as a person meets it: what it writes, what it refuses, and its exit codes. Each
//! test runs short-lived processes in a directory of its own.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::{Command, Output};

use dtls_certs::{File, PkiFiles, Profile};

fn dtls_certs(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_dtls-certs"))
        .args(args)
        .output()
        .expect("the program starts")
}

/// Generates into `dir`, which must work.
fn generate(dir: &Path, more: &[&str]) {
    let mut args = vec!["generate", dir.to_str().expect("a UTF-8 path")];
    args.extend(more);
    let output = dtls_certs(&args);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The program said no with this exit code, in one line that holds each of `words`.
fn assert_refused(output: &Output, code: i32, words: &[&str]) {
    let text = stderr(output);
    assert_eq!(output.status.code(), Some(code), "{text}");
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(output.stdout.is_empty());
    for word in words {
        assert!(text.contains(word), "{word:?} is missing in: {text}");
    }
}

/// Every file with its content, in the order of `File::all`.
fn contents(dir: &Path) -> Vec<Vec<u8>> {
    let files = PkiFiles::in_dir(dir);
    File::all()
        .map(|file| fs::read(files.path(file)).expect("every file is there"))
        .collect()
}

#[test]
fn generate_writes_every_listed_file_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let pki = dir.path().join("made/on/the/way");
    generate(&pki, &[]);
    let mut listed: Vec<String> = File::all().map(File::name).collect();
    let mut written: Vec<String> = fs::read_dir(&pki)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    listed.sort();
    written.sort();
    assert_eq!(written, listed);
}

#[test]
fn only_the_owner_may_read_a_key() {
    let dir = tempfile::tempdir().unwrap();
    let files = PkiFiles::in_dir(dir.path());
    // A key that was open to all before must not stay so.
    fs::write(files.key(Profile::SERVER), "old").unwrap();
    fs::set_permissions(
        files.key(Profile::SERVER),
        fs::Permissions::from_mode(0o666),
    )
    .unwrap();
    generate(dir.path(), &["--force"]);
    for file in File::all() {
        let mode = fs::metadata(files.path(file)).unwrap().permissions().mode() & 0o777;
        match file {
            File::Key(_) => assert_eq!(mode, 0o600, "{}", file.name()),
            _ => assert_eq!(mode & 0o022, 0, "{}", file.name()),
        }
    }
}

#[test]
fn an_existing_pki_is_kept_unless_force_is_given() {
    let dir = tempfile::tempdir().unwrap();
    generate(dir.path(), &[]);
    let before = contents(dir.path());
    let output = dtls_certs(&["generate", dir.path().to_str().unwrap()]);
    assert_refused(&output, 2, &["ca.pem", "--force"]);
    assert_eq!(contents(dir.path()), before);
    generate(dir.path(), &["--force"]);
    for (file, (old, new)) in File::all().zip(before.iter().zip(contents(dir.path()))) {
        assert_ne!(*old, new, "{} was not replaced", file.name());
    }
}

#[test]
fn one_file_in_the_way_stops_generate_before_it_writes_anything() {
    let dir = tempfile::tempdir().unwrap();
    symlink("nowhere", dir.path().join("client.key")).unwrap();
    let output = dtls_certs(&["generate", dir.path().to_str().unwrap()]);
    assert_refused(&output, 2, &["client.key", "--force"]);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn force_replaces_a_symbolic_link_and_spares_its_target() {
    let dir = tempfile::tempdir().unwrap();
    let pki = dir.path().join("pki");
    fs::create_dir(&pki).unwrap();
    fs::write(dir.path().join("precious"), "untouched").unwrap();
    symlink("../precious", pki.join("server.key")).unwrap();
    generate(&pki, &["--force"]);
    assert_eq!(
        fs::read_to_string(dir.path().join("precious")).unwrap(),
        "untouched"
    );
    assert!(
        fs::symlink_metadata(pki.join("server.key"))
            .unwrap()
            .is_file()
    );
}

#[test]
fn replacing_that_fails_midway_leaves_no_ca_to_vouch_for_the_mixture() {
    let dir = tempfile::tempdir().unwrap();
    generate(dir.path(), &[]);
    // No file can take the name of a directory, so the run ends at this key.
    let key = dir.path().join("server-rsa.key");
    fs::remove_file(&key).unwrap();
    fs::create_dir(&key).unwrap();
    let output = dtls_certs(&["generate", dir.path().to_str().unwrap(), "--force"]);
    assert_refused(&output, 3, &["server-rsa.key"]);
    assert!(!dir.path().join("ca.pem").exists());
    let leftovers = fs::read_dir(dir.path())
        .unwrap()
        .filter(|entry| {
            entry
                .as_ref()
                .unwrap()
                .file_name()
                .to_str()
                .unwrap()
                .starts_with('.')
        })
        .count();
    assert_eq!(leftovers, 0);
}

#[test]
fn wrong_usage_names_the_mistake_and_the_remedy() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    let file = file.to_str().unwrap();
    let absent = dir.path().join("absent");
    let absent = absent.to_str().unwrap();
    assert_refused(
        &dtls_certs(&["generate", file]),
        2,
        &[file, "not a directory"],
    );
    assert_refused(
        &dtls_certs(&["list", absent]),
        2,
        &[absent, "dtls-certs generate"],
    );

    for args in [
        vec!["generate", absent, "--name", "[::1]:4433"],
        vec!["generate"],
        vec!["generate", absent, "--forse"],
        vec!["list", "--format", "yaml"],
        vec![],
    ] {
        let output = dtls_certs(&args);
        assert_eq!(
            output.status.code(),
            Some(2),
            "{args:?}: {}",
            stderr(&output)
        );
    }
    let output = dtls_certs(&["generate", absent, "--name", "[::1]:4433"]);
    assert!(
        stderr(&output).contains("without port or brackets"),
        "{}",
        stderr(&output)
    );
    assert!(!Path::new(absent).exists());
}

#[test]
fn a_file_system_that_refuses_is_exit_code_3() {
    // Nobody, not even root, can make a directory there.
    let output = dtls_certs(&["generate", "/proc/pki"]);
    assert_refused(&output, 3, &["/proc/pki", "permissions"]);
}

#[test]
fn list_tells_every_file_and_notices_a_missing_one() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_str().unwrap();
    generate(dir.path(), &[]);
    for args in [vec!["list"], vec!["list", path]] {
        let output = dtls_certs(&args);
        assert_eq!(output.status.code(), Some(0));
        let text = String::from_utf8(output.stdout).unwrap();
        for file in File::all() {
            assert!(
                text.contains(&format!("\n{} ", file.name())),
                "{}: {text}",
                file.name()
            );
        }
        assert!(!text.contains("missing"));
    }
    fs::remove_file(dir.path().join("client.pem")).unwrap();
    let output = dtls_certs(&["list", path]);
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stdout).unwrap();
    let missing: Vec<&str> = text
        .lines()
        .filter(|line| line.ends_with("missing"))
        .collect();
    assert!(
        matches!(missing[..], [line] if line.starts_with("client.pem ")),
        "{text}"
    );
}

#[test]
fn list_as_json_carries_what_verification_must_say() {
    let output = dtls_certs(&["list", "--format", "json"]);
    assert_eq!(output.status.code(), Some(0));
    let entries: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let entries = entries.as_array().unwrap();
    assert_eq!(entries.len(), File::all().count());
    let verification = |file: &str| {
        let entry = entries.iter().find(|entry| entry["file"] == file).unwrap();
        entry["verification"].clone()
    };
    assert_eq!(verification("server.pem"), "ok");
    assert_eq!(
        verification("server-expired.pem"),
        "error 10, certificate has expired"
    );
    assert_eq!(verification("server.key"), serde_json::Value::Null);
}
