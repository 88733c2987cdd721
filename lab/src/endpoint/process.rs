//! A process under test: started in a namespace, its output collected line by line, ended in bounded time.
//!
//! Two threads per process copy stdout and stderr into the log file and into memory, where the run's
//! thread waits for what it needs. The run's thread owns the child and its stdin.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use super::faketime;
use crate::clock::{Clock, now, until};

/// Why a process could not be started.
#[derive(Debug, thiserror::Error)]
#[error("cannot start {program}: {source}")]
pub struct SpawnError {
    /// What was to run.
    program: String,
    /// What the system said.
    source: std::io::Error,
}

/// A line a process printed, and when.
#[derive(Debug, Clone)]
pub struct Line {
    /// When it was read, by the clock of the run.
    pub at: Duration,
    /// The text without its end of line; bytes that are no UTF-8 are replaced.
    pub text: String,
}

/// Which of the two outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Out,
    /// Standard error.
    Err,
}

impl Stream {
    const fn label(self) -> &'static str {
        match self {
            Self::Out => "out",
            Self::Err => "err",
        }
    }
}

/// What a process has printed so far; shared between its readers and the run.
#[derive(Debug, Default)]
struct Output {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    lines: Vec<(Stream, Line)>,
    /// Of each stream what has come of a line that has not ended: a server that prints what it
    /// receives prints no line ends that were not sent.
    begun: [String; 2],
    /// Readers that have met the end of their pipe; at two, nothing more can come.
    ended: usize,
    /// More came than is kept.
    flooded: bool,
}

impl Output {
    fn lock(&self) -> MutexGuard<'_, State> {
        // A reader that panicked has at worst lost a line; the rest is still evidence.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A running process. Dropping it kills it.
#[derive(Debug)]
pub struct Process {
    child: Child,
    stdin: Option<ChildStdin>,
    output: Arc<Output>,
    readers: Vec<JoinHandle<()>>,
    status: Option<ExitStatus>,
}

impl Process {
    /// Starts `command` in the calling thread's namespace; everything it prints also goes to `log`.
    ///
    /// # Errors
    ///
    /// [`SpawnError`] with the program's name when it cannot be started or `log` not be written.
    pub fn spawn(mut command: Command, log: &Path, clock: Clock) -> Result<Self, SpawnError> {
        let program = command.get_program().to_string_lossy().into_owned();
        let fail = |source| SpawnError {
            program: program.clone(),
            source,
        };
        let mut log = File::create(log).map_err(fail)?;
        writeln!(log, "$ {}", command_line(&command)).map_err(fail)?;
        let log = Arc::new(Mutex::new(log));
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // What it starts itself is signalled with it.
            .process_group(0)
            .spawn()
            .map_err(fail)?;
        let output = Arc::new(Output::default());
        let mut readers = Vec::new();
        if let Some(pipe) = child.stdout.take() {
            readers.push(copy_lines(pipe, Stream::Out, &output, &log, clock));
        }
        if let Some(pipe) = child.stderr.take() {
            readers.push(copy_lines(pipe, Stream::Err, &output, &log, clock));
        }
        let stdin = child.stdin.take();
        Ok(Self {
            child,
            stdin,
            output,
            readers,
            status: None,
        })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Writes one line to its standard input. A process that has gone is found out by its silence.
    pub fn write_line(&mut self, text: &str) {
        if let Some(stdin) = &mut self.stdin
            && let Err(error) = writeln!(stdin, "{text}")
        {
            log::debug!("cannot write to process {}: {error}", self.child.id());
            self.stdin = None;
        }
    }

    /// Closes its standard input.
    pub fn close_stdin(&mut self) {
        self.stdin = None;
    }

    /// Waits until `wanted` accepts a line, ended or just begun; `false` when `deadline` comes
    /// before, or the process can print no more.
    pub fn wait_for(
        &self,
        deadline: Instant,
        mut wanted: impl FnMut(Stream, &str) -> bool,
    ) -> bool {
        let mut state = self.output.lock();
        let mut seen = 0;
        loop {
            while let Some((stream, line)) = state.lines.get(seen) {
                if wanted(*stream, &line.text) {
                    return true;
                }
                seen += 1;
            }
            let begun = [Stream::Out, Stream::Err];
            if begun
                .into_iter()
                .any(|stream| wanted(stream, &state.begun[stream as usize]))
            {
                return true;
            }
            if state.ended >= 2 {
                return false;
            }
            let Some(left) = until(deadline) else {
                return false;
            };
            state = self
                .output
                .changed
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// What one stream has said so far, line by line, the last one perhaps unfinished.
    pub fn said(&self, stream: Stream) -> Vec<String> {
        let state = self.output.lock();
        let lines = state.lines.iter().filter(|(from, _)| *from == stream);
        let begun = std::iter::once(state.begun[stream as usize].clone());
        lines
            .map(|(_, line)| line.text.clone())
            .chain(begun)
            .collect()
    }

    /// The first line on either stream that is wanted.
    pub fn first_line(&self, wanted: impl Fn(&str) -> bool) -> Option<String> {
        let state = self.output.lock();
        let mut texts = state.lines.iter().map(|(_, line)| line.text.trim());
        texts.find(|text| wanted(text)).map(str::to_owned)
    }

    /// The line that says best how it ended, for a person's eye: the last one that speaks of
    /// trouble, else the last on stderr, else the last.
    pub fn last_words(&self) -> Option<String> {
        let state = self.output.lock();
        let last = |wanted: &dyn Fn(Stream, &str) -> bool| {
            let mut lines = state
                .lines
                .iter()
                .rev()
                .map(|(stream, line)| (*stream, line.text.trim()));
            lines
                .find(|(stream, text)| wanted(*stream, text))
                .map(|(_, text)| text.to_owned())
        };
        last(&|_, text| {
            TROUBLE
                .iter()
                .any(|word| text.to_ascii_lowercase().contains(word))
        })
        .or_else(|| last(&|stream, text| stream == Stream::Err && !text.is_empty()))
        .or_else(|| last(&|_, text| text.chars().any(char::is_alphanumeric)))
    }

    /// Whether it printed more than is kept.
    pub fn flooded(&self) -> bool {
        self.output.lock().flooded
    }

    /// How it ended, if it has.
    pub fn exit_status(&mut self) -> Option<ExitStatus> {
        if self.status.is_none() {
            self.status = self.child.try_wait().ok().flatten();
        }
        self.status
    }

    /// Sends it SIGTERM without waiting.
    pub fn ask_to_end(&mut self) {
        if self.exit_status().is_none() {
            self.signal(Signal::SIGTERM);
        }
    }

    /// Waits until it has ended or `deadline` has come; `None` when it still runs.
    pub fn wait_until(&mut self, deadline: Instant) -> Option<ExitStatus> {
        // The end of both pipes is the cheap sign that a process has gone; its status follows at once.
        {
            let mut state = self.output.lock();
            while state.ended < 2 {
                let Some(left) = until(deadline) else { break };
                state = self
                    .output
                    .changed
                    .wait_timeout(state, left)
                    .unwrap_or_else(PoisonError::into_inner)
                    .0;
            }
            if state.ended < 2 {
                drop(state);
                return self.exit_status();
            }
        }
        // Its pipes are closed: it is ending or only wanted no output. Kill what lingers.
        let patience = crossbeam_channel::tick(Duration::from_millis(2));
        while until(deadline).is_some() {
            if let Some(status) = self.exit_status() {
                return Some(status);
            }
            if patience.recv().is_err() {
                break;
            }
        }
        self.exit_status()
    }

    /// Kills it and collects what it had printed.
    pub fn kill(&mut self) {
        if self.exit_status().is_none() {
            self.signal(Signal::SIGKILL);
            self.status = self.child.wait().ok();
        }
        faketime::forget(self.child.id());
        self.wait_for_pipes();
        for reader in self.readers.drain(..).filter(JoinHandle::is_finished) {
            if reader.join().is_err() {
                log::warn!("a reader of process {} panicked", self.child.id());
            }
        }
    }

    /// Waits until what was printed is read. A process that left the group may hold the pipes open;
    /// its readers end when the run's namespaces are cleared.
    fn wait_for_pipes(&self) {
        let deadline = now() + LAST_WORDS;
        let mut state = self.output.lock();
        while state.ended < self.readers.len() {
            let Some(left) = until(deadline) else { return };
            state = self
                .output
                .changed
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    fn signal(&self, signal: Signal) {
        send_signal(self.child.id(), signal);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.stdin = None;
        self.kill();
    }
}

fn send_signal(pid: u32, signal: Signal) {
    let Ok(pid) = i32::try_from(pid) else {
        return;
    };
    if let Err(errno) = killpg(Pid::from_raw(pid), signal) {
        log::debug!("cannot send {signal} to process {pid}: {errno}");
    }
}

/// A command as one would type it.
pub fn command_line(command: &Command) -> String {
    let mut text = String::new();
    // What makes its clock run faster belongs to it.
    for (name, value) in command.get_envs() {
        if let (true, Some(value)) = (faketime::VARIABLES.iter().any(|it| name == *it), value) {
            text += &format!("{}='{}' ", name.display(), value.display());
        }
    }
    text += &command.get_program().to_string_lossy();
    for argument in command.get_args() {
        let argument = argument.to_string_lossy();
        if argument.is_empty()
            || argument.contains(|c: char| c.is_whitespace() || "'\"$\\".contains(c))
        {
            text += &format!(" '{}'", argument.replace('\'', "'\\''"));
        } else {
            text += &format!(" {argument}");
        }
    }
    text
}

fn copy_lines(
    mut pipe: impl Read + Send + 'static,
    stream: Stream,
    output: &Arc<Output>,
    log: &Arc<Mutex<File>>,
    clock: Clock,
) -> JoinHandle<()> {
    let (output, log) = (Arc::clone(output), Arc::clone(log));
    std::thread::spawn(move || {
        let mut chunk = vec![0; CHUNK];
        // What has come of a line that has not ended yet.
        let mut begun: Vec<u8> = Vec::new();
        // The bound keeps a process gone wild from filling our memory and the disk.
        let mut budget = MAX_OUTPUT;
        let mut told = false;
        loop {
            let read = match pipe.read(&mut chunk) {
                Ok(0) => break,
                Ok(read) => read,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(_) => break,
            };
            let kept = read.min(budget);
            budget -= kept;
            if kept < read && std::mem::replace(&mut told, true) {
                continue;
            }
            begun.extend(&chunk[..kept]);
            let at = clock.elapsed();
            let ended = begun.iter().rposition(|byte| *byte == b'\n');
            let whole: Vec<u8> = begun.drain(..ended.map_or(0, |end| end + 1)).collect();
            let mut lines: Vec<String> = whole
                .split_inclusive(|byte| *byte == b'\n')
                .map(text_of)
                .collect();
            if kept < read {
                lines.push("(and so on: the lab keeps no more)".to_owned());
            }
            write_log(&log, stream, at, &lines);
            let mut state = output.lock();
            state.flooded |= kept < read;
            state
                .lines
                .extend(lines.into_iter().map(|text| (stream, Line { at, text })));
            state.begun[stream as usize] = text_of(&begun);
            drop(state);
            output.changed.notify_all();
        }
        let at = clock.elapsed();
        let mut state = output.lock();
        let rest = std::mem::take(&mut state.begun[stream as usize]);
        if !rest.is_empty() {
            write_log(&log, stream, at, std::slice::from_ref(&rest));
            state.lines.push((stream, Line { at, text: rest }));
        }
        state.ended += 1;
        drop(state);
        output.changed.notify_all();
    })
}

fn text_of(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim_end().to_owned()
}

fn write_log(log: &Mutex<File>, stream: Stream, at: Duration, lines: &[String]) {
    let label = stream.label();
    // One write for all of them: a program may print a million.
    let mut block = String::new();
    for text in lines {
        block += &format!("{:10.6} {label} {text}\n", at.as_secs_f64());
    }
    let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
    if let Err(error) = log.write_all(block.as_bytes()) {
        log::warn!("cannot write a log: {error}");
    }
}

/// How long the pipes of a dead process may stay open.
const LAST_WORDS: Duration = Duration::from_millis(500);
/// What programs say when something went wrong.
const TROUBLE: [&str; 6] = ["unknown", "error", "errno", "fail", "timed out", "refused"];
/// Bytes of one stream that are kept; the rest is read and thrown away.
pub const MAX_OUTPUT: usize = 2 << 20;
/// Bytes read at a time: what a pipe holds.
const CHUNK: usize = 64 << 10;
