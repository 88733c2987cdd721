//! A PKI, servers on threads of the test, and the program under test as a process with deadlines.
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests: a failure is the test's"
)]
#![allow(dead_code, reason = "each test file uses a part")]

pub(crate) mod load;
pub(crate) mod network;
pub(crate) mod peers;

use std::fs::Permissions;
use std::io::{Read, Write};
use std::iter;
use std::mem;
use std::net::{SocketAddr, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
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

/// A new file in `dir` that only we can read.
pub(crate) fn secret(dir: &Path, text: &str) -> String {
    let path = dir.join("secret");
    std::fs::write(&path, text).unwrap();
    let path = path.display().to_string();
    secret_mode(&path);
    path
}

/// Makes a file readable to us alone.
pub(crate) fn secret_mode(path: &str) {
    std::fs::set_permissions(path, Permissions::from_mode(0o600)).unwrap();
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

/// A UDP port that is free on all addresses at this moment.
pub(crate) fn free_port() -> u16 {
    let socket = UdpSocket::bind("[::]:0").or_else(|_| UdpSocket::bind("0.0.0.0:0"));
    socket.unwrap().local_addr().unwrap().port()
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

/// Waits for something that will be so soon.
#[track_caller]
pub(crate) fn wait_until(is_so: impl Fn() -> bool) {
    let deadline = now() + PATIENCE;
    while !is_so() {
        assert!(now() < deadline, "it never came to be so");
        thread::park_timeout(Duration::from_millis(5));
    }
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

/// A running program whose output is collected by threads. Killed when dropped.
pub(crate) struct Process {
    child: Child,
    stdin: Option<ChildStdin>,
    pieces: Receiver<(Stream, Vec<u8>)>,
    out: Text,
    err: Text,
}

#[derive(Debug, Clone, Copy)]
enum Stream {
    Out,
    Err,
}

/// What a stream has brought so far, and how much of it was given away as lines.
#[derive(Debug, Default)]
struct Text {
    bytes: Vec<u8>,
    given: usize,
}

impl Text {
    fn next_line(&mut self) -> Option<String> {
        let rest = &self.bytes[self.given..];
        let length = rest.iter().position(|&byte| byte == b'\n')?;
        let line = String::from_utf8_lossy(&rest[..length]).into_owned();
        self.given += length + 1;
        Some(line)
    }

    fn contains(&self, text: &str) -> bool {
        String::from_utf8_lossy(&self.bytes).contains(text)
    }
}

fn collect(
    mut pipe: impl Read + Send + 'static,
    stream: Stream,
    sender: Sender<(Stream, Vec<u8>)>,
) {
    thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(length @ 1..) = pipe.read(&mut buffer) {
            if sender.send((stream, buffer[..length].to_vec())).is_err() {
                return;
            }
        }
    });
}

impl Process {
    pub(crate) fn spawn(mut command: Command) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
        let (sender, pieces) = channel();
        collect(child.stdout.take().unwrap(), Stream::Out, sender.clone());
        collect(child.stderr.take().unwrap(), Stream::Err, sender);
        Self {
            stdin: child.stdin.take(),
            child,
            pieces,
            out: Text::default(),
            err: Text::default(),
        }
    }

    /// Starts `dtls-client` with these arguments.
    pub(crate) fn client(args: &[&str]) -> Self {
        let mut command = client();
        command.args(args);
        Self::spawn(command)
    }

    /// Starts `dtls-client connect` to `target`, trusting the test CA.
    pub(crate) fn connect(target: &str, args: &[&str]) -> Self {
        let ca = ca();
        Self::client(&[&["connect", target, "--ca", &ca], args].concat())
    }

    pub(crate) fn pid(&self) -> nix::unistd::Pid {
        nix::unistd::Pid::from_raw(i32::try_from(self.child.id()).unwrap())
    }

    pub(crate) fn write_line(&mut self, line: &str) {
        self.write(format!("{line}\n").as_bytes());
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) {
        self.stdin.as_mut().unwrap().write_all(bytes).unwrap();
    }

    /// Collects output until `found` finds what it wants in it; `None` if that never comes.
    fn wait<T>(&mut self, mut found: impl FnMut(&mut Text, &mut Text) -> Option<T>) -> Option<T> {
        let deadline = now() + PATIENCE;
        loop {
            if let Some(what) = found(&mut self.out, &mut self.err) {
                return Some(what);
            }
            let left = deadline.saturating_duration_since(now());
            match self.pieces.recv_timeout(left).ok()? {
                (Stream::Out, piece) => self.out.bytes.extend(piece),
                (Stream::Err, piece) => self.err.bytes.extend(piece),
            }
        }
    }

    /// The next line on standard output that is `wanted`; those before it are skipped.
    #[track_caller]
    pub(crate) fn wait_out(&mut self, wanted: impl Fn(&str) -> bool) -> String {
        let line = self.wait(|out, _| iter::from_fn(|| out.next_line()).find(|line| wanted(line)));
        line.unwrap_or_else(|| panic!("not on stdout; {}", self.all()))
    }

    /// The next line on standard error that is `wanted`; those before it are skipped.
    #[track_caller]
    pub(crate) fn wait_err(&mut self, wanted: impl Fn(&str) -> bool) -> String {
        let line = self.wait(|_, err| iter::from_fn(|| err.next_line()).find(|line| wanted(line)));
        line.unwrap_or_else(|| panic!("not on stderr; {}", self.all()))
    }

    /// Whether `text` comes on either output.
    pub(crate) fn says(&mut self, text: &str) -> bool {
        self.wait(|out, err| (out.contains(text) || err.contains(text)).then_some(()))
            .is_some()
    }

    fn all(&self) -> String {
        let [out, err] = [&self.out, &self.err].map(|text| String::from_utf8_lossy(&text.bytes));
        format!("stdout: {out:?}, stderr: {err:?}")
    }

    pub(crate) fn close_stdin(&mut self) {
        self.stdin = None;
    }

    /// Closes its input and waits for its end.
    #[track_caller]
    pub(crate) fn finish(mut self) -> Output {
        self.close_stdin();
        let deadline = now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(now());
            match self.pieces.recv_timeout(left) {
                Ok((Stream::Out, piece)) => self.out.bytes.extend(piece),
                Ok((Stream::Err, piece)) => self.err.bytes.extend(piece),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => panic!("it does not end; {}", self.all()),
            }
        }
        // Its outputs are closed, so it has ended or is about to.
        let status = self.child.wait().unwrap();
        Output {
            status,
            stdout: mem::take(&mut self.out.bytes),
            stderr: mem::take(&mut self.err.bytes),
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
