//! A PKI, servers on threads of the test, and the program under test as a process with deadlines.
#![allow(dead_code, reason = "each test file uses a part")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, LazyLock};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use dtls::{
    DtlsListener, DtlsStream, Identity, ListenerHandle, Recv, ServerConfig, ServerConfigBuilder,
    Stats,
};
use dtls_certs::{PkiFiles, Profile, TestPki};
use tempfile::TempDir;

/// Longer than anything takes on a busy machine; only a failing test waits for it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// One PKI on disk for a test process, which nextest gives to each test.
pub(crate) static PKI: LazyLock<(TempDir, PkiFiles)> = LazyLock::new(|| {
    let dir = tempfile::tempdir().unwrap();
    let files = TestPki::generate(dir.path()).unwrap();
    (dir, files)
});

pub(crate) fn pki() -> &'static PkiFiles {
    &PKI.1
}

/// Path of the certificate to trust.
pub(crate) fn ca() -> String {
    pki().ca().display().to_string()
}

pub(crate) fn server_config(profile: Profile) -> ServerConfigBuilder {
    let identity = Identity::from_files(pki().chain(profile), pki().key(profile)).unwrap();
    ServerConfig::builder(identity).handshake_timeout(Duration::from_secs(10))
}

/// A server on threads of its own, one a connection; told to end when dropped.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) stats: Arc<Stats>,
    handle: ListenerHandle,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Runs `serve` on each connection.
    pub(crate) fn start(
        config: ServerConfig,
        serve: impl Fn(DtlsStream) + Send + Sync + 'static,
    ) -> Self {
        let mut listener = DtlsListener::bind("127.0.0.1:0".parse().unwrap(), config).unwrap();
        let (address, stats, handle) = (listener.local_addr(), listener.stats(), listener.handle());
        let serve = Arc::new(serve);
        let thread = thread::spawn(move || {
            let mut workers = Vec::new();
            while let Ok(incoming) = listener.accept() {
                let serve = Arc::clone(&serve);
                workers.push(thread::spawn(move || {
                    if let Ok(stream) = incoming.accept() {
                        serve(stream);
                    }
                }));
            }
            for worker in workers {
                worker.join().unwrap();
            }
        });
        Self {
            address,
            stats,
            handle,
            thread: Some(thread),
        }
    }

    /// Answers every datagram with the same.
    pub(crate) fn echo() -> Self {
        Self::start(server_config(Profile::SERVER).build().unwrap(), echo)
    }

    /// As typed on the command line, by name.
    pub(crate) fn target(&self) -> String {
        self.address.to_string()
    }

    /// Waits until every connection has ended and its counts are final.
    pub(crate) fn finish(mut self) -> Arc<Stats> {
        self.handle.close();
        self.thread.take().unwrap().join().unwrap();
        Arc::clone(&self.stats)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.handle.close();
    }
}

pub(crate) fn echo(mut stream: DtlsStream) {
    each(&mut stream, |stream, data| stream.send(data).unwrap());
}

/// Calls `answer` with each datagram until the connection ends.
pub(crate) fn each(stream: &mut DtlsStream, mut answer: impl FnMut(&mut DtlsStream, &[u8])) {
    let mut buffer = [0; 16 * 1024];
    stream.set_recv_timeout(Some(PATIENCE));
    while let Ok(Recv::Data(length)) = stream.recv(&mut buffer) {
        answer(stream, &buffer[..length]);
    }
}

/// The program under test.
pub(crate) fn client() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dtls-client"));
    command.env_remove("RUST_LOG");
    command
}

/// Runs the program with nothing on standard input, to its end.
pub(crate) fn run(args: &[&str]) -> Output {
    let mut command = client();
    command.args(args);
    Process::spawn(command).finish()
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

pub(crate) fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The program said no with this exit code, in one line on standard error that has all `words`.
#[track_caller]
pub(crate) fn assert_refused(output: &Output, code: i32, words: &[&str]) {
    let text = stderr(output);
    assert_eq!(output.status.code(), Some(code), "{text}");
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(text.starts_with("dtls-client: "), "{text}");
    for word in words {
        assert!(text.contains(word), "{word:?} is missing in: {text}");
    }
}

/// A running program whose output is read line by line. Killed when dropped.
pub(crate) struct Process {
    child: Child,
    stdin: Option<ChildStdin>,
    out: Lines,
    err: Lines,
}

/// The lines of one stream, collected by a thread.
struct Lines {
    incoming: Receiver<String>,
    seen: Vec<String>,
}

impl Lines {
    fn of(pipe: impl Read + Send + 'static) -> Self {
        let (sender, incoming): (Sender<String>, _) = channel();
        thread::spawn(move || {
            for line in BufReader::new(pipe).split(b'\n').map_while(Result::ok) {
                let line = String::from_utf8_lossy(&line).into_owned();
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        let seen = Vec::new();
        Self { incoming, seen }
    }

    fn wait_for(&mut self, wanted: impl Fn(&str) -> bool) -> Option<String> {
        let deadline = now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(now());
            let line = self.incoming.recv_timeout(left).ok()?;
            self.seen.push(line.clone());
            if wanted(&line) {
                return Some(line);
            }
        }
    }

    fn rest(&mut self) -> Vec<u8> {
        let deadline = now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(now());
            match self.incoming.recv_timeout(left) {
                Ok(line) => self.seen.push(line),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => panic!("an output never ended: {:?}", self.seen),
            }
        }
        let lines = self.seen.iter().flat_map(|line| [line, "\n"]);
        lines.collect::<String>().into_bytes()
    }
}

impl Process {
    pub(crate) fn spawn(mut command: Command) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
        Self {
            stdin: child.stdin.take(),
            out: Lines::of(child.stdout.take().unwrap()),
            err: Lines::of(child.stderr.take().unwrap()),
            child,
        }
    }

    /// Starts `dtls-client` with these arguments.
    pub(crate) fn client(args: &[&str]) -> Self {
        let mut command = client();
        command.args(args);
        Self::spawn(command)
    }

    pub(crate) fn pid(&self) -> nix::unistd::Pid {
        nix::unistd::Pid::from_raw(i32::try_from(self.child.id()).unwrap())
    }

    pub(crate) fn write_line(&mut self, line: &str) {
        let stdin = self.stdin.as_mut().unwrap();
        stdin.write_all(format!("{line}\n").as_bytes()).unwrap();
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) {
        self.stdin.as_mut().unwrap().write_all(bytes).unwrap();
    }

    /// The next line on standard output that is `wanted`.
    #[track_caller]
    pub(crate) fn wait_out(&mut self, wanted: impl Fn(&str) -> bool) -> String {
        match self.out.wait_for(wanted) {
            Some(line) => line,
            None => {
                let said = self.err.incoming.try_iter().collect::<Vec<_>>();
                panic!("not on stdout: {:?}, stderr: {said:?}", self.out.seen)
            }
        }
    }

    /// The next line on standard error that is `wanted`.
    #[track_caller]
    pub(crate) fn wait_err(&mut self, wanted: impl Fn(&str) -> bool) -> String {
        match self.err.wait_for(wanted) {
            Some(line) => line,
            None => panic!(
                "not on stderr: {:?}, stdout: {:?}",
                self.err.seen, self.out.seen
            ),
        }
    }

    pub(crate) fn close_stdin(&mut self) {
        self.stdin = None;
    }

    /// Closes its input and waits for its end.
    #[track_caller]
    pub(crate) fn finish(mut self) -> Output {
        self.close_stdin();
        let (stdout, stderr) = (self.out.rest(), self.err.rest());
        // Its outputs are closed, so it has ended or is about to.
        let status = self.child.wait().unwrap();
        Output {
            status,
            stdout,
            stderr,
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Already ended: nothing to kill, and that is fine.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "deadlines of the tests' own waiting"
)]
pub(crate) fn now() -> Instant {
    Instant::now()
}
