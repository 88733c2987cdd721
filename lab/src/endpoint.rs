//! The programs under test: where they are, how each is started, and how to tell what it says.
//!
//! Whoever adds an implementation adds a variant to [`Implementation`] and an arm to each `match`
//! here; nothing else in the lab knows one program from another. Run's thread.

pub mod process;

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use dtls_certs::PkiFiles;

use crate::scenario::{Implementation, Play, Scenario};
use process::Stream;

/// Which side of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Serves.
    Server,
    /// Connects.
    Client,
}

impl Role {
    /// The word for people, and the name of its log file.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::Client => "client",
        }
    }
}

/// A program that a play needs is not on this machine.
#[derive(Debug, thiserror::Error)]
pub enum MissingProgram {
    /// One of ours was not built or lies elsewhere.
    #[error(
        "{} is missing: build it with `cargo build -p dtls-server -p dtls-client`, or name its folder with {flag} or --bin-dir",
        path.display()
    )]
    Ours {
        /// Where it was looked for.
        path: PathBuf,
        /// The flag that names another place.
        flag: &'static str,
    },
    /// OpenSSL's command is not installed.
    #[error("`openssl` is not on the PATH: install it (`apt-get install openssl`, or `make deps`)")]
    Openssl,
}

/// Where the programs are.
#[derive(Debug, Clone)]
pub struct Programs {
    /// Our server.
    pub server: PathBuf,
    /// Our client.
    pub client: PathBuf,
    /// More arguments for our server.
    pub server_args: Vec<String>,
}

/// What every program of a run has to know.
#[derive(Debug)]
pub struct Setting<'a> {
    /// The server's address and port.
    pub server: SocketAddr,
    /// The test PKI.
    pub pki: &'a PkiFiles,
    /// Folder of the run's evidence.
    pub evidence: &'a Path,
    /// How many clients there are, and how they come.
    pub scenario: &'a Scenario,
}

impl Setting<'_> {
    /// Whether one process plays all clients and counts for itself what came through.
    pub fn counts_for_itself(&self, client: Implementation) -> bool {
        let ours_resumes = self.scenario.resume && client == Implementation::Ours;
        self.scenario.clients > 1 && (self.scenario.in_turn.is_none() || ours_resumes)
    }

    /// The file with the authorities between the server's certificate and the root.
    pub fn authorities(&self) -> PathBuf {
        self.evidence.join(AUTHORITIES)
    }
}

/// Its name in the folder of the run's evidence.
pub const AUTHORITIES: &str = "authorities.pem";

impl Programs {
    /// Says whether the program for this role exists.
    ///
    /// # Errors
    ///
    /// [`MissingProgram`] with its name and the remedy.
    pub fn require(
        &self,
        implementation: Implementation,
        role: Role,
    ) -> Result<(), MissingProgram> {
        match (implementation, role) {
            (Implementation::Ours, role) => {
                let (path, flag) = match role {
                    Role::Server => (&self.server, "--server-bin"),
                    Role::Client => (&self.client, "--client-bin"),
                };
                if path.is_file() {
                    return Ok(());
                }
                Err(MissingProgram::Ours {
                    path: path.clone(),
                    flag,
                })
            }
            (Implementation::Openssl, _) => {
                let path = std::env::var_os("PATH").unwrap_or_default();
                if std::env::split_paths(&path).any(|folder| folder.join("openssl").is_file()) {
                    return Ok(());
                }
                Err(MissingProgram::Openssl)
            }
        }
    }

    /// The command that starts the server of `play`.
    pub fn server_command(&self, play: &Play, setting: &Setting<'_>) -> Command {
        let address = setting.server.to_string();
        let certificate = setting.scenario.certificate;
        let (chain, key) = (setting.pki.chain(certificate), setting.pki.key(certificate));
        let keylog = setting.evidence.join("server.keylog").into_os_string();
        let mut command;
        match play.server {
            Implementation::Ours => {
                command = Command::new(&self.server);
                command.args([
                    "--listen",
                    &address,
                    "--service",
                    "echo",
                    "--format",
                    "json",
                ]);
                command.arg("--cert").arg(chain).arg("--key").arg(key);
                // What a lost close_notify holds up must not hold up the lab.
                command.args(["--drain-timeout", "1s"]);
                command.args([OsString::from("--keylog"), keylog]);
                command.args(&self.server_args);
            }
            Implementation::Openssl => {
                command = Command::new("openssl");
                command.args(["s_server", "-dtls1_2", NON_BLOCKING, "-accept", &address]);
                command.arg("-cert").arg(chain).arg("-key").arg(key);
                // -cert takes only the leaf from a file.
                command.arg("-cert_chain").arg(setting.authorities());
                command.args([OsString::from("-keylogfile"), keylog]);
            }
        }
        command.args(&play.server_args);
        clean_environment(&mut command);
        command
    }

    /// The command that starts the client of `play` whose turn it is, from 0, or why it cannot play.
    ///
    /// # Errors
    ///
    /// A reason when the implementation cannot be as many clients at once as the scenario asks for.
    pub fn client_command(
        &self,
        play: &Play,
        setting: &Setting<'_>,
        turn: u32,
    ) -> Result<Command, String> {
        let address = setting.server.to_string();
        let ca = setting.pki.ca();
        let keylog = setting.evidence.join("client.keylog");
        let mut command;
        match play.client {
            Implementation::Ours if setting.counts_for_itself(play.client) => {
                let scenario = setting.scenario;
                let clients = scenario.clients.to_string();
                let at_once = match scenario.in_turn {
                    Some(_) => "1".to_owned(),
                    None => scenario.clients.min(MOST_AT_ONCE).to_string(),
                };
                command = Command::new(&self.client);
                command.args(["load", &address, "--connections", &clients]);
                command.args(["--concurrency", &at_once, "--messages", "1", "--size", "64"]);
                command.args(["--format", "json"]).arg("--ca").arg(ca);
                if scenario.resume {
                    command.arg("--resume");
                }
            }
            Implementation::Ours => {
                command = Command::new(&self.client);
                command.args(["connect", &address, "--format", "json"]);
                command.arg("--ca").arg(ca).arg("--keylog").arg(keylog);
            }
            Implementation::Openssl if setting.counts_for_itself(play.client) => {
                return Err(format!(
                    "s_client cannot be {} clients at once",
                    setting.scenario.clients
                ));
            }
            Implementation::Openssl => {
                command = Command::new("openssl");
                command.args(["s_client", "-dtls1_2", NON_BLOCKING, "-connect", &address]);
                command.arg("-CAfile").arg(ca).arg("-verify_return_error");
                command.arg("-keylogfile").arg(keylog);
                if setting.scenario.resume {
                    let session = setting.evidence.join("session.pem");
                    let flag = if turn == 0 { "-sess_out" } else { "-sess_in" };
                    command.arg(flag).arg(session);
                }
            }
        }
        command.args(&play.client_args);
        clean_environment(&mut command);
        Ok(command)
    }
}

/// Clients that run at the same time; the others follow as these finish. So many handshakes fit into
/// the first second of one core, before anybody's retransmission timer.
pub const MOST_AT_ONCE: u32 = 64;

/// Without it `s_client` and `s_server` sit in a blocking read after any datagram that holds nothing
/// new, such as a duplicate, and neither reads its stdin again until the other speaks.
const NON_BLOCKING: &str = "-nbio";

/// Whether this line says that the server listens.
pub fn says_listening(server: Implementation, stream: Stream, line: &str) -> bool {
    match server {
        Implementation::Ours => stream == Stream::Err && line.contains("listening on "),
        Implementation::Openssl => stream == Stream::Out && line == "ACCEPT",
    }
}

/// Whether the server sends back what it receives; others print it and send what they read on stdin.
pub fn echoes(server: Implementation) -> bool {
    match server {
        Implementation::Ours => true,
        Implementation::Openssl => false,
    }
}

/// The status with which an endpoint says that it cannot play a scenario.
pub const EXIT_UNSUPPORTED: i32 = 127;

/// What the person running the lab has set for other purposes must not change a verdict.
fn clean_environment(command: &mut Command) {
    for name in [
        "SSLKEYLOGFILE",
        "OPENSSL_CONF",
        "SSL_CERT_FILE",
        "SSL_CERT_DIR",
    ] {
        command.env_remove(name);
    }
}
