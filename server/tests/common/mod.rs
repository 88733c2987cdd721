//! Starts the real server, or another program against it, and talks to it. Every wait has a
//! deadline, and what was started is ended with the test.
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests: a failure is the test's"
)]
#![allow(dead_code, reason = "each test binary uses its part")]

pub(crate) mod backend;
pub(crate) mod namespace;

use std::ffi::OsStr;
use std::fs;
use std::io::{self, BufRead as _, BufReader, Read, Write as _};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::{Duration, Instant};

use dtls::{
    ClientConfig, ClientConfigBuilder, DtlsConnector, DtlsStream, Identity, Recv, ServerTrust,
    TrustAnchors,
};
use dtls_certs::{Profile, TestPki};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

/// Generous: the machine may be busy with other tests.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A PKI of the test's own, in memory and as files.
pub(crate) struct Pki {
    pub(crate) pki: TestPki,
    pub(crate) dir: TempDir,
}

impl Pki {
    pub(crate) fn new() -> Self {
        let (pki, dir) = (TestPki::new().unwrap(), TempDir::new().unwrap());
        fs::write(dir.path().join("ca.pem"), pki.ca_pem()).unwrap();
        fs::write(dir.path().join("other-ca.pem"), pki.other_ca_pem()).unwrap();
        Self { pki, dir }
    }

    /// A file of the PKI's directory, as an argument.
    pub(crate) fn path(&self, name: &str) -> String {
        self.dir.path().join(name).to_str().unwrap().to_owned()
    }

    /// Writes a file that only its owner may read, and gives its name as an argument.
    pub(crate) fn private(&self, name: &str, contents: &str) -> String {
        let path = self.path(name);
        fs::write(&path, contents).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        path
    }

    /// Writes a chain and a key, and gives their file names as arguments.
    pub(crate) fn files(&self, profile: Profile) -> (String, String) {
        let leaf = self.pki.issue(profile).unwrap();
        let certificate = self.path(&format!("{}.pem", profile.name));
        fs::write(&certificate, leaf.chain_pem).unwrap();
        let key = self.private(&format!("{}.key", profile.name), &leaf.key_pem);
        (certificate, key)
    }

    /// A client that trusts this PKI.
    pub(crate) fn client(&self) -> ClientConfigBuilder {
        let anchors = TrustAnchors::from_pem(self.pki.ca_pem().as_bytes()).unwrap();
        ClientConfig::builder(ServerTrust::Anchors(anchors)).handshake_timeout(PATIENCE)
    }

    pub(crate) fn identity(&self, profile: Profile) -> Identity {
        let leaf = self.pki.issue(profile).unwrap();
        Identity::from_pem(leaf.chain_pem.as_bytes(), leaf.key_pem.as_bytes()).unwrap()
    }

    /// Starts the server with an ordinary certificate.
    pub(crate) fn serve(&self, arguments: &[&str]) -> Server {
        self.serve_as(Profile::SERVER, arguments)
    }

    /// Starts the server with the certificate of this profile.
    pub(crate) fn serve_as(&self, profile: Profile, arguments: &[&str]) -> Server {
        let (certificate, key) = self.files(profile);
        let mut all = vec!["--listen", "127.0.0.1:0", "--format", "json"];
        all.extend(["--cert", &certificate, "--key", &key]);
        // A test that ends its server has seen what it wanted.
        if !arguments.contains(&"--drain-timeout") {
            all.extend(["--drain-timeout", "0s"]);
        }
        all.extend(arguments);
        Server::start(&all)
    }
}

/// The server's program with these arguments. What they do not say of the transport says the variable
/// `DTLS_TEST_TRANSPORT`, with which all tests can be run over the other one.
pub(crate) fn command<A: AsRef<OsStr>>(arguments: impl IntoIterator<Item = A>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dtls-server"));
    command.args(arguments).env_remove("RUST_LOG");
    let said = |word: &str| command.get_args().any(|argument| argument == word);
    if let Some(transport) = std::env::var_os("DTLS_TEST_TRANSPORT")
        && !said("--transport")
        && !said("status")
    {
        command.arg("--transport").arg(transport);
    }
    command
}

/// A child process whose output is read as it comes; killed with the test.
pub(crate) struct Program {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<Line>,
    open: usize,
    seen: Vec<Line>,
}

/// A line of a program's output, or its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Line {
    Out(String),
    Err(String),
    End,
}

/// What a program left.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Program {
    pub(crate) fn start(mut command: Command) -> io::Result<Self> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let (sender, lines) = mpsc::channel();
        read_lines(child.stdout.take().unwrap(), sender.clone(), Line::Out);
        read_lines(child.stderr.take().unwrap(), sender, Line::Err);
        Ok(Self {
            stdin: child.stdin.take(),
            child,
            lines,
            open: 2,
            seen: Vec::new(),
        })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Writes to its standard input, which stays open. In one piece: some programs make a datagram of
    /// each read.
    pub(crate) fn type_line(&mut self, text: &str) {
        let stdin = self.stdin.as_mut().unwrap();
        stdin.write_all(format!("{text}\n").as_bytes()).unwrap();
    }

    /// Waits for a line that contains `needle`, on either stream.
    #[track_caller]
    pub(crate) fn wait_for(&mut self, needle: &str) -> String {
        let deadline = now() + PATIENCE;
        loop {
            match self.next_line(deadline) {
                Some(Line::Out(line) | Line::Err(line)) if line.contains(needle) => return line,
                Some(_) => {}
                None => panic!("no line with {needle:?} in: {:#?}", self.seen),
            }
        }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap());
        kill(pid, signal).unwrap();
    }

    /// Closes its standard input and waits for it to end.
    #[track_caller]
    pub(crate) fn finish(mut self) -> Finished {
        drop(self.stdin.take());
        let deadline = now() + PATIENCE;
        while self.open > 0 {
            assert!(
                self.next_line(deadline).is_some() || self.open == 0,
                "still running after {PATIENCE:?}: {:#?}",
                self.seen
            );
        }
        let status = self.child.wait().unwrap();
        let (mut stdout, mut stderr) = (String::new(), String::new());
        for line in &self.seen {
            match line {
                Line::Out(line) => stdout.extend([line, "\n"]),
                Line::Err(line) => stderr.extend([line, "\n"]),
                Line::End => {}
            }
        }
        Finished {
            status,
            stdout,
            stderr,
        }
    }

    /// The next line, or `None` when there is no more or the deadline has passed.
    fn next_line(&mut self, deadline: Instant) -> Option<Line> {
        while self.open > 0 {
            let left = deadline.saturating_duration_since(now());
            let line = self.lines.recv_timeout(left).ok()?;
            self.seen.push(line.clone());
            if line != Line::End {
                return Some(line);
            }
            self.open -= 1;
        }
        None
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn read_lines(
    stream: impl Read + Send + 'static,
    to: Sender<Line>,
    kind: impl Fn(String) -> Line + Send + 'static,
) {
    thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            if to.send(kind(line)).is_err() {
                return;
            }
        }
        drop(to.send(Line::End));
    });
}

/// A running server.
pub(crate) struct Server {
    pub(crate) program: Program,
    pub(crate) address: SocketAddr,
}

impl Server {
    #[track_caller]
    pub(crate) fn start(arguments: &[&str]) -> Self {
        Self::from(command(arguments))
    }

    #[track_caller]
    pub(crate) fn from(command: Command) -> Self {
        let mut program = Program::start(command).unwrap();
        let line = program.wait_for("listening on ");
        let address = line.split(' ').nth(2).unwrap().parse().unwrap();
        Self { program, address }
    }

    #[track_caller]
    pub(crate) fn connect(&self, config: ClientConfigBuilder) -> DtlsStream {
        DtlsConnector::new(config.build().unwrap())
            .connect("localhost", self.address)
            .unwrap()
    }

    /// Ends it with SIGTERM.
    #[track_caller]
    pub(crate) fn finish(self) -> Finished {
        self.program.signal(Signal::SIGTERM);
        self.program.finish()
    }

    /// Its threads, by name.
    pub(crate) fn threads(&self) -> Vec<String> {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.program.pid())).unwrap();
        // A thread may end between the listing and the reading.
        let mut names: Vec<String> = tasks
            .filter_map(|task| fs::read_to_string(task.ok()?.path().join("comm")).ok())
            .map(|name| name.trim().to_owned())
            .collect();
        names.sort();
        names
    }

    /// How many descriptors it has open.
    pub(crate) fn descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.program.pid()))
            .unwrap()
            .count()
    }
}

impl Finished {
    /// A counter of a server that printed JSON.
    #[track_caller]
    pub(crate) fn counter(&self, name: &str) -> u64 {
        let report: serde_json::Value = serde_json::from_str(&self.stdout).unwrap();
        report["counters"][name].as_u64().unwrap()
    }

    /// Asserts that the server ended well and said nothing out of turn.
    #[track_caller]
    pub(crate) fn assert_success(&self) {
        assert_eq!(self.status.code(), Some(0), "{self:#?}");
        assert_eq!(self.stderr.lines().count(), 1, "{self:#?}");
    }
}

/// Receives, but not for ever.
#[track_caller]
pub(crate) fn receive(stream: &mut DtlsStream) -> Option<Vec<u8>> {
    let mut buffer = vec![0; 16 * 1024];
    stream.set_recv_timeout(Some(PATIENCE));
    match stream.recv(&mut buffer).unwrap() {
        Recv::Data(length) => {
            buffer.truncate(length);
            Some(buffer)
        }
        Recv::Closed => None,
        other => panic!("{other:?}"),
    }
}

#[track_caller]
pub(crate) fn assert_echo(stream: &mut DtlsStream, data: &[u8]) {
    stream.send(data).unwrap();
    assert_eq!(receive(stream).as_deref(), Some(data));
}

/// Waits until the condition holds.
#[track_caller]
pub(crate) fn wait_until<T: std::fmt::Debug>(
    what: &str,
    mut look: impl FnMut() -> T,
    holds: impl Fn(&T) -> bool,
) {
    let deadline = now() + PATIENCE;
    loop {
        let found = look();
        if holds(&found) {
            return;
        }
        assert!(now() < deadline, "{what}: still {found:?}");
        thread::park_timeout(Duration::from_millis(20));
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "tests wait in real time, with deadlines"
)]
pub(crate) fn now() -> Instant {
    Instant::now()
}
