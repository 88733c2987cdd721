//! The `openssl` command, which shares no code with this crate, must say of every file what the
//! table of profiles says. Each test makes a PKI of its own and runs short-lived processes.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use dtls_certs::{Chain, Existing, Flaw, KeyKind, PkiFiles, Profile, Role, TestPki};
use tempfile::TempDir;

struct Pki {
    files: PkiFiles,
    _dir: TempDir,
}

fn pki() -> Pki {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let files = TestPki::generate(dir.path()).expect("a PKI in an empty directory");
    Pki { files, _dir: dir }
}

/// Runs `openssl`; its success and all it printed.
fn openssl<I: AsRef<OsStr>>(args: impl IntoIterator<Item = I>) -> (bool, String) {
    let output = Command::new("openssl")
        .args(args)
        .output()
        .expect("these tests need the openssl command; `make deps` installs it");
    let text = [output.stdout, output.stderr].concat();
    (
        output.status.success(),
        String::from_utf8_lossy(&text).into_owned(),
    )
}

/// What a peer is told to check besides the chain.
#[derive(Default)]
struct Checks<'a> {
    name: Option<&'a str>,
    /// `-crl_check` for the leaf alone, `-crl_check_all` for every certificate.
    revocation: Option<&'a str>,
    purpose: Option<&'a str>,
    ca: Option<PathBuf>,
}

/// Verifies as a DTLS peer does: trusting one root, with the rest of the chain as it was sent.
fn verify(files: &PkiFiles, profile: Profile, checks: Checks<'_>) -> (bool, String) {
    let chain = files.chain(profile);
    let purpose = checks.purpose.unwrap_or(match profile.role {
        Role::Server => "sslserver",
        Role::Client => "sslclient",
    });
    let mut command = Command::new("openssl");
    command.args(["verify", "-x509_strict", "-purpose", purpose, "-CAfile"]);
    command
        .arg(checks.ca.unwrap_or_else(|| files.ca()))
        .arg("-untrusted")
        .arg(&chain);
    if let Some(name) = checks.name {
        let is_address = name.parse::<IpAddr>().is_ok();
        command
            .arg(if is_address {
                "-verify_ip"
            } else {
                "-verify_hostname"
            })
            .arg(name);
    }
    if let Some(flag) = checks.revocation {
        command.arg(flag).arg("-CRLfile").arg(files.crl());
    }
    let args: Vec<_> = command
        .arg(&chain)
        .get_args()
        .map(OsStr::to_owned)
        .collect();
    openssl(args)
}

/// The errors `openssl verify` reports, by number.
fn errors(text: &str) -> HashSet<u32> {
    text.lines()
        .filter_map(|line| line.strip_prefix("error ")?.split(' ').next()?.parse().ok())
        .collect()
}

#[test]
fn good_leaves_verify_for_each_name_with_revocation_checked_along_the_chain() {
    let pki = pki();
    for profile in Profile::ALL
        .into_iter()
        .filter(|profile| profile.flaw.is_none())
    {
        for &name in profile.names() {
            let checks = Checks {
                name: Some(name),
                revocation: Some("-crl_check_all"),
                ..Checks::default()
            };
            let (ok, text) = verify(&pki.files, profile, checks);
            assert!(ok, "{} as {name}: {text}", profile.name);
        }
    }
}

#[test]
fn flawed_leaves_fail_with_exactly_the_error_their_profile_claims() {
    let pki = pki();
    for profile in Profile::ALL {
        let Some(flaw) = profile.flaw else { continue };
        let (number, message) = flaw.verify_error();
        let checks = match flaw {
            Flaw::WrongName => Checks {
                name: Some("localhost"),
                ..Checks::default()
            },
            Flaw::Revoked => Checks {
                revocation: Some("-crl_check"),
                ..Checks::default()
            },
            _ => Checks::default(),
        };
        let (ok, text) = verify(&pki.files, profile, checks);
        assert!(!ok, "{} was accepted", profile.name);
        assert_eq!(
            errors(&text),
            HashSet::from([number]),
            "{}: {text}",
            profile.name
        );
        assert!(
            text.to_lowercase().contains(message),
            "{}: {text}",
            profile.name
        );
    }
}

#[test]
fn flaws_that_need_a_closer_look_pass_without_it() {
    let pki = pki();
    for profile in Profile::ALL {
        let unnoticed = profile
            .flaw
            .is_some_and(|flaw| flaw.noticed_only_when().is_some());
        let (ok, text) = verify(&pki.files, profile, Checks::default());
        assert_eq!(
            ok,
            profile.flaw.is_none() || unnoticed,
            "{}: {text}",
            profile.name
        );
    }
}

#[test]
fn nothing_but_the_named_flaw_is_wrong_with_a_flawed_leaf() {
    let pki = pki();
    for (profile, repair) in [
        (
            Profile::SERVER_OTHER_CA,
            Checks {
                ca: Some(pki.files.dir().join("other-ca.pem")),
                name: Some("localhost"),
                ..Checks::default()
            },
        ),
        (
            Profile::SERVER_WRONG_NAME,
            Checks {
                name: Some("wrong-name.invalid"),
                revocation: Some("-crl_check_all"),
                ..Checks::default()
            },
        ),
        (
            Profile::SERVER_REVOKED,
            Checks {
                name: Some("localhost"),
                ..Checks::default()
            },
        ),
    ] {
        let (ok, text) = verify(&pki.files, profile, repair);
        assert!(ok, "{}: {text}", profile.name);
    }
    for profile in [Profile::SERVER_EXPIRED, Profile::SERVER_NOT_YET_VALID] {
        let chain = pki.files.chain(profile);
        let (ok, text) = openssl([
            "verify".as_ref(),
            "-x509_strict".as_ref(),
            "-no_check_time".as_ref(),
            "-CAfile".as_ref(),
            pki.files.ca().as_os_str(),
            "-untrusted".as_ref(),
            chain.as_os_str(),
            chain.as_os_str(),
        ]);
        assert!(ok, "{}: {text}", profile.name);
    }
}

#[test]
fn leaves_serve_their_own_end_only() {
    const UNSUITABLE_PURPOSE: u32 = 26;
    let pki = pki();
    for (profile, purpose) in [
        (Profile::SERVER, "sslclient"),
        (Profile::CLIENT, "sslserver"),
    ] {
        let checks = Checks {
            purpose: Some(purpose),
            ..Checks::default()
        };
        let (ok, text) = verify(&pki.files, profile, checks);
        assert!(
            !ok && errors(&text).contains(&UNSUITABLE_PURPOSE),
            "{}: {text}",
            profile.name
        );
    }
}

#[test]
fn each_key_is_of_its_kind_and_belongs_to_its_certificate() {
    let pki = pki();
    for profile in Profile::ALL {
        let key = pki.files.key(profile);
        let (readable, of_key) = openssl([
            "pkey".as_ref(),
            "-pubout".as_ref(),
            "-in".as_ref(),
            key.as_os_str(),
        ]);
        assert!(readable, "{}: {of_key}", profile.name);
        assert_eq!(
            of_key,
            x509(&pki.files.chain(profile), "-pubkey"),
            "{}",
            profile.name
        );
        let text = x509(&pki.files.chain(profile), "-text");
        let kind = match profile.key {
            KeyKind::EcdsaP256 => "ASN1 OID: prime256v1",
            KeyKind::Ed25519 => "Public Key Algorithm: ED25519",
            KeyKind::Rsa2048 => "Public-Key: (2048 bit)",
        };
        assert!(text.contains(kind), "{}: {text}", profile.name);
    }
}

#[test]
fn extensions_say_what_each_certificate_may_do() {
    let pki = pki();
    let usage = "-ext=keyUsage,extendedKeyUsage,basicConstraints";
    for (file, expected) in [
        ("ca.pem", vec!["CA:TRUE", "Certificate Sign, CRL Sign"]),
        (
            "intermediate.pem",
            vec!["CA:TRUE, pathlen:0", "Certificate Sign, CRL Sign"],
        ),
        (
            "server.pem",
            vec![
                "CA:FALSE",
                "Digital Signature\n",
                "TLS Web Server Authentication\n",
            ],
        ),
        (
            "server-rsa.pem",
            vec!["CA:FALSE", "Digital Signature, Key Encipherment\n"],
        ),
        (
            "client.pem",
            vec![
                "CA:FALSE",
                "Digital Signature\n",
                "TLS Web Client Authentication\n",
            ],
        ),
    ] {
        let text = x509(&pki.files.dir().join(file), usage);
        for words in expected {
            assert!(text.contains(words), "{file} lacks {words:?}: {text}");
        }
    }
}

#[test]
fn no_two_certificates_share_a_serial_number() {
    let pki = pki();
    let mut serials = HashSet::new();
    let authorities = ["ca.pem", "intermediate.pem", "other-ca.pem"];
    for path in authorities
        .map(|file| pki.files.dir().join(file))
        .into_iter()
        .chain(Profile::ALL.map(|profile| pki.files.chain(profile)))
    {
        let serial = x509(&path, "-serial");
        // "serial=" and 16 bytes in hexadecimal.
        assert_eq!(
            serial.trim_end().len(),
            7 + 32,
            "{}: {serial}",
            path.display()
        );
        assert!(
            serials.insert(serial),
            "{} repeats a serial number",
            path.display()
        );
    }
}

#[test]
fn long_chain_needs_several_datagrams_but_stays_below_what_peers_accept() {
    let pki = pki();
    for profile in Profile::ALL {
        let pem = std::fs::read_to_string(pki.files.chain(profile)).unwrap();
        let base64: usize = pem
            .lines()
            .filter(|line| !line.starts_with("-----"))
            .map(str::len)
            .sum();
        let bytes = base64 / 4 * 3;
        match profile.chain {
            Chain::Long => assert!((4096 + 512..16 * 1024).contains(&bytes), "{bytes} bytes"),
            Chain::Intermediate => assert!(bytes < 1500, "{}: {bytes} bytes", profile.name),
        }
    }
}

#[test]
fn further_names_reach_every_server_leaf_but_the_wrongly_named() {
    let dir = tempfile::tempdir().unwrap();
    let names = ["dtls.example.org", "192.0.2.7", "2001:db8::7"];
    let parsed = names.iter().map(|name| name.parse().unwrap()).collect();
    let files = TestPki::with_server_names(parsed)
        .unwrap()
        .write(dir.path(), Existing::Keep)
        .unwrap();
    for name in names {
        let named = || Checks {
            name: Some(name),
            ..Checks::default()
        };
        for profile in [Profile::SERVER, Profile::SERVER_RSA] {
            let (ok, text) = verify(&files, profile, named());
            assert!(ok, "{} as {name}: {text}", profile.name);
        }
        for profile in [Profile::SERVER_WRONG_NAME, Profile::CLIENT] {
            let (ok, _) = verify(&files, profile, named());
            assert!(!ok, "{} was accepted as {name}", profile.name);
        }
    }
}

/// What `openssl x509` prints of a file's first certificate.
fn x509(path: &Path, what: &str) -> String {
    let mut args = vec![
        "x509".as_ref(),
        "-noout".as_ref(),
        "-in".as_ref(),
        path.as_os_str(),
    ];
    match what.split_once('=') {
        Some((flag, value)) => args.extend([OsStr::new(flag), OsStr::new(value)]),
        None => args.push(what.as_ref()),
    }
    let (ok, text) = openssl(args);
    assert!(ok, "{}: {text}", path.display());
    text
}
