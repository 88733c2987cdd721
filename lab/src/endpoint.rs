//! The programs under test: where they are, and the command that starts each for a run.
//!
//! What distinguishes one implementation from another stands in its adapter. Run's thread.

pub mod faketime;
pub mod process;

use std::ffi::OsString;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;

use dtls_certs::PkiFiles;
use faketime::Faketime;

use crate::adapter::{Adapter, Data, Side, Slot, Template};
use crate::netns;
use crate::packet::Direction;
use crate::role::Role;
use crate::scenario::{Play, Scenario};

/// Kills every program in any namespace of the lab; for a lab that is told to stop.
pub fn kill_all() {
    for pid in netns::kill_all_inhabitants() {
        faketime::forget(pid);
    }
}

/// A program that a play needs is not on this machine.
#[derive(Debug, thiserror::Error)]
pub enum MissingProgram {
    /// One that must be there was not built or lies elsewhere.
    #[error("{} is missing: {install}, or name its folder with {flag} or --bin-dir", path.display())]
    Required {
        /// Where it was looked for.
        path: PathBuf,
        /// What its adapter advises.
        install: String,
        /// The flag that names another place.
        flag: &'static str,
    },
    /// A program is not installed.
    #[error("`{program}` is not on the PATH: {install}")]
    NotInstalled {
        /// Its name.
        program: String,
        /// What its adapter advises.
        install: String,
    },
    /// A path in an adapter leads nowhere.
    #[error("no program {}, which the adapter `{adapter}` names: {install}", path.display())]
    NoSuchFile {
        /// The path.
        path: PathBuf,
        /// Who names it.
        adapter: String,
        /// What its adapter advises.
        install: String,
    },
    /// The implementation has no such side.
    #[error("`{adapter}` has no {}", role.name())]
    NoSuchSide {
        /// The implementation.
        adapter: String,
        /// What it lacks.
        role: Role,
    },
}

/// Where the programs are.
#[derive(Debug, Clone)]
pub struct Programs {
    /// Where ours are, and in `endpoints` below it those that the lab brings for libraries.
    pub folder: PathBuf,
    /// What plays our server instead.
    pub server: Option<PathBuf>,
    /// What plays our client instead.
    pub client: Option<PathBuf>,
    /// More arguments for our server.
    pub server_args: Vec<String>,
}

/// What every program of a run has to know.
#[derive(Debug, Clone, Copy)]
pub struct Setting<'a> {
    /// The server's address and port.
    pub server: SocketAddr,
    /// The test PKI.
    pub pki: &'a PkiFiles,
    /// Folder of the run's evidence.
    pub evidence: &'a Path,
    /// How many clients there are, and how they come.
    pub scenario: &'a Scenario,
    /// What the programs are told that the scenario and their task are, instead of the truth.
    pub made_up: Option<&'a str>,
    /// What makes their clocks run faster, if they do.
    pub faketime: Option<&'a Faketime>,
}

impl Setting<'_> {
    /// Whether one process plays all clients and counts for itself what came through.
    pub fn counts_for_itself(&self, client: &Adapter) -> bool {
        let many = client.client.as_ref().and_then(|side| side.many.as_ref());
        let resumes = self.scenario.resume && many.is_some_and(|many| many.resume.is_some());
        self.scenario.clients > 1 && (self.scenario.in_turn.is_none() || resumes)
    }

    /// The file with the authorities between the server's certificate and the root.
    fn authorities(&self) -> PathBuf {
        self.evidence.join(AUTHORITIES)
    }

    /// Bytes of the longest IP packet that comes through from an end in this role.
    fn link_mtu(&self, role: Role) -> u16 {
        let direction = match role {
            Role::Server => Direction::ToClient,
            Role::Client => Direction::ToServer,
        };
        let mtu = self.scenario.link(direction).mtu;
        mtu.map_or(ETHERNET_MTU, |mtu| mtu.bytes)
    }

    /// What the ends have to do: one connection with data both ways, one after another that resume the
    /// session before, or many from one process.
    pub fn task(&self, play: &Play) -> &str {
        match self.made_up {
            Some(made_up) => made_up,
            None if self.counts_for_itself(&play.client) => "many",
            None if self.scenario.resume => "resume",
            None => "echo",
        }
    }

    /// The scenario's name, as the programs are told.
    fn scenario_name(&self) -> &str {
        self.made_up.unwrap_or(&self.scenario.name)
    }

    fn value(&self, slot: Slot, role: Role, play: &Play) -> OsString {
        let scenario = self.scenario;
        let port = self.server.port();
        let v6 = self.server.is_ipv6();
        match slot {
            Slot::Role => role.name().into(),
            Slot::Address => self.server.to_string().into(),
            Slot::Host => self.server.ip().to_string().into(),
            Slot::Port => port.to_string().into(),
            Slot::PortBelow => port.saturating_sub(1).to_string().into(),
            Slot::Family => if v6 { "ipv6" } else { "ipv4" }.into(),
            Slot::Ip => if v6 { "6" } else { "4" }.into(),
            Slot::Name => SERVER_NAME.into(),
            Slot::Cert => self.pki.chain(scenario.certificate).into(),
            Slot::Chain => self.authorities().into(),
            Slot::Key => self.pki.key(scenario.certificate).into(),
            Slot::Ca => self.pki.ca().into(),
            Slot::Mtu => (self
                .link_mtu(role)
                .saturating_sub(headers(self.server.ip())))
            .to_string()
            .into(),
            Slot::LinkMtu => self.link_mtu(role).to_string().into(),
            Slot::Keylog => self.evidence.join(format!("{}.keylog", role.name())).into(),
            Slot::Evidence => self.evidence.into(),
            Slot::Scenario => self.scenario_name().into(),
            Slot::Task => self.task(play).into(),
            Slot::Clients => scenario.clients.to_string().into(),
            Slot::AtOnce => match scenario.in_turn {
                Some(_) => "1".into(),
                None => scenario.clients.min(MOST_AT_ONCE).to_string().into(),
            },
        }
    }
}

/// Its name in the folder of the run's evidence.
pub const AUTHORITIES: &str = "authorities.pem";
/// A name in the certificates of the test PKI's servers.
const SERVER_NAME: &str = "localhost";
/// Bytes of the longest IP packet where the scenario does not say it.
const ETHERNET_MTU: u16 = 1500;

/// Bytes of the headers of IP and UDP.
const fn headers(address: IpAddr) -> u16 {
    match address {
        IpAddr::V4(_) => 28,
        IpAddr::V6(_) => 48,
    }
}

impl Programs {
    /// The program for this role.
    ///
    /// # Errors
    ///
    /// [`MissingProgram`] with its name and the remedy.
    pub fn require(&self, adapter: &Adapter, role: Role) -> Result<PathBuf, MissingProgram> {
        let side = adapter
            .side(role)
            .ok_or_else(|| MissingProgram::NoSuchSide {
                adapter: adapter.name.clone(),
                role,
            })?;
        self.find(adapter, role, &side.command)
    }

    /// The command that prints the version, if there is one.
    ///
    /// # Errors
    ///
    /// [`MissingProgram`] with its name and the remedy.
    pub fn version_command(
        &self,
        adapter: &Adapter,
        role: Role,
    ) -> Result<Option<Command>, MissingProgram> {
        self.require(adapter, role)?;
        let Some((program, arguments)) = adapter.version.as_deref().and_then(<[_]>::split_first)
        else {
            return Ok(None);
        };
        let mut command = Command::new(self.locate(adapter, Role::Server, Path::new(program))?);
        command.args(arguments);
        Ok(Some(command))
    }

    /// The file of the program that a command of this adapter begins with.
    fn find(
        &self,
        adapter: &Adapter,
        role: Role,
        command: &[Template],
    ) -> Result<PathBuf, MissingProgram> {
        // The parser takes only commands that begin with a plain word.
        let name = command
            .first()
            .map(|word| PathBuf::from(word.fill(&|_| OsString::new())))
            .unwrap_or_default();
        self.locate(adapter, role, &name)
    }

    /// The file of the program of this name or path.
    fn locate(
        &self,
        adapter: &Adapter,
        role: Role,
        name: &Path,
    ) -> Result<PathBuf, MissingProgram> {
        let program = || name.display().to_string();
        let install = || adapter.install.clone();
        if adapter.required {
            let (named, flag) = match role {
                Role::Server => (&self.server, "--server-bin"),
                Role::Client => (&self.client, "--client-bin"),
            };
            let path = named.clone().unwrap_or_else(|| self.folder.join(name));
            return if path.is_file() {
                Ok(path)
            } else {
                Err(MissingProgram::Required {
                    path,
                    install: install(),
                    flag,
                })
            };
        }
        if name.components().count() > 1 {
            let path = adapter
                .folder
                .as_deref()
                .map_or_else(|| name.to_owned(), |folder| folder.join(name));
            return if path.is_file() {
                Ok(path)
            } else {
                Err(MissingProgram::NoSuchFile {
                    path,
                    adapter: adapter.name.clone(),
                    install: install(),
                })
            };
        }
        let path = std::env::var_os("PATH").unwrap_or_default();
        std::iter::once(self.folder.join(ENDPOINTS))
            .chain(std::env::split_paths(&path))
            .map(|folder| folder.join(name))
            .find(|path| path.is_file())
            .ok_or_else(|| MissingProgram::NotInstalled {
                program: program(),
                install: install(),
            })
    }

    /// The command that starts the server of `play`, or why it cannot play.
    ///
    /// # Errors
    ///
    /// A reason when its adapter knows no way to do what the scenario asks for.
    pub fn server_command(&self, play: &Play, setting: &Setting<'_>) -> Result<Command, String> {
        let adapter = &play.server;
        let side = side(adapter, Role::Server)?;
        let mut command = self.command(play, setting, Role::Server, &side.command)?;
        self.tell_mtu(&mut command, play, setting, Role::Server)?;
        if adapter.required {
            command.args(&self.server_args);
        }
        command.args(&play.server_args);
        Ok(command)
    }

    /// The command that starts the client of `play` whose turn it is, from 0, or why it cannot play.
    ///
    /// # Errors
    ///
    /// A reason when its adapter knows no way to do what the scenario asks for.
    pub fn client_command(
        &self,
        play: &Play,
        setting: &Setting<'_>,
        turn: u32,
    ) -> Result<Command, String> {
        let adapter = &play.client;
        let no_such_side = || format!("`{adapter}` has no client");
        let client = adapter.client.as_ref().ok_or_else(no_such_side)?;
        let scenario = setting.scenario;
        let words = |command: &mut Command, words: &[Template]| {
            command.args(fill(words, play, setting, Role::Client));
        };
        let mut command;
        if setting.counts_for_itself(adapter) {
            let many = client.many.as_ref().ok_or_else(|| {
                format!("`{adapter}` cannot be {} clients at once", scenario.clients)
            })?;
            command = self.command(play, setting, Role::Client, &many.command)?;
            if let (true, Some(resume)) = (scenario.resume, &many.resume) {
                words(&mut command, resume);
            }
        } else {
            command = self.command(play, setting, Role::Client, &client.side.command)?;
            if scenario.resume {
                let [first, next] = client
                    .resume
                    .as_ref()
                    .ok_or_else(|| format!("`{adapter}` cannot resume a session"))?;
                words(&mut command, if turn == 0 { first } else { next });
            }
        }
        self.tell_mtu(&mut command, play, setting, Role::Client)?;
        command.args(&play.client_args);
        Ok(command)
    }

    fn tell_mtu(
        &self,
        command: &mut Command,
        play: &Play,
        setting: &Setting<'_>,
        role: Role,
    ) -> Result<(), String> {
        if setting.scenario.ends_know_mtu {
            let adapter = play.end(role);
            let words = side(adapter, role)?.mtu.as_ref().ok_or_else(|| {
                format!("`{adapter}` cannot be told how long its datagrams may be")
            })?;
            command.args(fill(words, play, setting, role));
        }
        Ok(())
    }

    /// The program with its arguments and environment.
    fn command(
        &self,
        play: &Play,
        setting: &Setting<'_>,
        role: Role,
        words: &[Template],
    ) -> Result<Command, String> {
        let adapter = play.end(role);
        let side = side(adapter, role)?;
        let program = self
            .find(adapter, role, words)
            .map_err(|missing| missing.to_string())?;
        let mut command = Command::new(program);
        command.args(fill(&words[1..], play, setting, role));
        // What the person running the lab has set for other purposes must not change a verdict.
        for name in [
            "SSLKEYLOGFILE",
            "OPENSSL_CONF",
            "SSL_CERT_FILE",
            "SSL_CERT_DIR",
        ] {
            command.env_remove(name);
        }
        command.env("LAB_ROLE", role.name());
        command.env("LAB_SCENARIO", setting.scenario_name());
        command.env("LAB_TASK", setting.task(play));
        if let Some(faketime) = setting.faketime {
            faketime.load_into(&mut command);
        }
        for (name, word) in &side.environment {
            command.env(name, word.fill(&|slot| setting.value(slot, role, play)));
        }
        Ok(command)
    }
}

fn side(adapter: &Adapter, role: Role) -> Result<&Side, String> {
    adapter
        .side(role)
        .ok_or_else(|| format!("`{adapter}` has no {}", role.name()))
}

fn fill(words: &[Template], play: &Play, setting: &Setting<'_>, role: Role) -> Vec<OsString> {
    words
        .iter()
        .map(|word| word.fill(&|slot| setting.value(slot, role, play)))
        .collect()
}

/// Where the programs for libraries without any of their own are built, below the lab's own folder.
const ENDPOINTS: &str = "endpoints";

/// Clients that run at the same time; the others follow as these finish. So many handshakes fit into
/// the first second of one core, before anybody's retransmission timer.
pub const MOST_AT_ONCE: u32 = 64;

/// How the two ends of a play can exchange data that proves something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Talk {
    /// Lines that the lab makes up; whether the server sends back what it receives.
    Lines {
        /// It does; the lab need not say anything on its side.
        echoed: bool,
    },
    /// The client asks by itself and prints an answer that contains this.
    Answers(String),
    /// They do not understand each other; why.
    None(String),
}

/// How the ends of this play talk.
pub fn talk(play: &Play) -> Talk {
    let data = |role| play.end(role).side(role).map(|side| &side.data);
    match (data(Role::Server), data(Role::Client)) {
        (Some(Data::Echo), Some(Data::Lines)) => Talk::Lines { echoed: true },
        (Some(Data::Lines), Some(Data::Lines)) => Talk::Lines { echoed: false },
        (
            Some(Data::Protocol { name: served, .. }),
            Some(Data::Protocol {
                name,
                answer: Some(answer),
            }),
        ) if served == name => Talk::Answers(answer.clone()),
        (server, client) => {
            let speaks = |data: Option<&Data>| match data {
                Some(Data::Protocol { name, .. }) => name.clone(),
                _ => "lines".to_owned(),
            };
            Talk::None(format!(
                "{} speaks {} and {} {}",
                play.server,
                speaks(server),
                play.client,
                speaks(client)
            ))
        }
    }
}

/// The status with which an endpoint says that it cannot play a scenario.
pub const EXIT_UNSUPPORTED: i32 = 127;
