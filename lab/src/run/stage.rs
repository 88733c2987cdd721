//! A run on its way: who is started when, who says what to whom, and when it is over. Run's thread.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::counted::{counters, json_numbers};
use super::proc::{is_bound, lost_for_want_of_room, resident_memory, worker_threads};
use super::{Job, RunError};
use crate::adapter::{Adapter, Ready};
use crate::clock::{Clock, now, until};
use crate::endpoint::process::{Process, Stream};
use crate::endpoint::{self, EXIT_UNSUPPORTED, Programs, Setting, Talk};
use crate::netns::Network;
use crate::observe::Trace;
use crate::packet::Direction;
use crate::relay::Relay;
use crate::role::Role;
use crate::scenario::{Bound, Leave, Outcome};
use crate::verdict::{Ending, Exchange, Observation};

/// A run in progress.
pub(super) struct Stage<'a> {
    pub(super) job: &'a Job<'a>,
    pub(super) setting: Setting<'a>,
    pub(super) clock: Clock,
    /// From when the server listens: what comes before is the machine's time, not the ends'.
    pub(super) deadline: Instant,
    pub(super) relay: Relay,
}

impl Stage<'_> {
    pub(super) fn play(
        &mut self,
        programs: &Programs,
        network: &Network,
    ) -> Result<Observation, RunError> {
        let play = &self.job.play;
        let scenario = self.job.scenario;
        // Before anything is started: a client that cannot play makes the rest pointless.
        programs
            .client_command(play, &self.setting, 0)
            .map_err(RunError::Unsupported)?;
        let talk = endpoint::talk(play);
        if let (Talk::None(why), true) = (&talk, self.data_is_the_point()) {
            let why = format!("{why}: nothing tells whether data flows after the fault");
            return Err(RunError::Unsupported(why));
        }
        let counts = self.setting.counts_for_itself(&play.client);
        if counts && !matches!(talk, Talk::Lines { echoed: true }) {
            let why = format!(
                "{} counts what comes back, and {} sends nothing back",
                play.client, play.server
            );
            return Err(RunError::Unsupported(why));
        }
        let command = programs
            .server_command(play, &self.setting)
            .map_err(RunError::Unsupported)?;
        network.server.enter()?;
        let mut server = Process::spawn(command, &self.log(Role::Server), self.clock)?;
        wait_until_it_listens(&mut server, &play.server, &self.setting)?;
        self.deadline = self.clock.after(scenario.deadline);
        network.client.enter()?;
        let turns = if counts { 1 } else { scenario.clients };
        for turn in 0..turns - 1 {
            let mut client = self.start_client(programs, turn)?;
            let exchange = self.shake_hands(turn, &mut server, &mut client);
            if exchange.is_none_or(|exchange| !exchange.is_complete()) {
                break;
            }
            if scenario.in_turn == Some(Leave::Killed) {
                client.kill();
            } else {
                close(&mut client);
            }
        }
        let mut client = self.start_client(programs, turns - 1)?;
        let mut seen = Observation::default();
        match scenario.expect.outcome {
            Outcome::Echo if counts => self.wait_for_end(&mut client),
            Outcome::Echo => {
                seen.exchange = self.talk(turns - 1, &mut server, &mut client, &mut seen);
            }
            Outcome::ClientGone => {
                seen.exchange = self.shake_hands(turns - 1, &mut server, &mut client);
                self.stay_quiet();
                client.kill();
                seen.client_killed = Some(self.clock.elapsed());
                let closed = |trace: &Trace| trace.closed[Direction::ToClient as usize];
                self.relay
                    .watch()
                    .wait_until(self.deadline, |trace| closed(trace).is_some());
            }
            Outcome::CutOff => {
                seen.exchange = self.shake_hands(turns - 1, &mut server, &mut client);
                if seen.exchange.as_ref().is_some_and(Exchange::is_complete) {
                    self.tell_established();
                    self.speak_in_vain(&mut server, &mut client);
                }
            }
            Outcome::HandshakeTimeout => self.wait_for_end(&mut client),
        }
        if let Some(bound) = self.job.scenario.expect.threads_left {
            seen.threads_left = self.settle_threads(&server, bound);
        }
        seen.over = Some(self.clock.elapsed());
        seen.client = ending(&mut client, self.clock);
        seen.server = ending(&mut server, self.clock);
        seen.client.killed = !close(&mut client);
        if counts {
            seen.load = json_numbers(&client);
        }
        let lost_by_kernel = lost_for_want_of_room(server.pid());
        server.ask_to_end();
        seen.server.killed = server.wait_until(now() + SERVER_DRAIN).is_none();
        server.kill();
        seen.counters = counters(&server);
        if let (Some(counters), Some(lost)) = (&mut seen.counters, lost_by_kernel) {
            counters.insert(LOST_BY_KERNEL.to_owned(), lost);
        }
        Ok(seen)
    }

    /// Whether data after a fault, and not the handshake, is what the scenario is about.
    fn data_is_the_point(&self) -> bool {
        let scenario = self.job.scenario;
        scenario.clients > 1
            || scenario.expect.outcome == Outcome::ClientGone
            || !scenario.quiet.is_zero()
            || scenario.awaits_data()
    }

    fn start_client(&self, programs: &Programs, turn: u32) -> Result<Process, RunError> {
        let command = programs
            .client_command(&self.job.play, &self.setting, turn)
            .map_err(RunError::Unsupported)?;
        let mut log = self.log(Role::Client);
        if turn > 0 {
            log = log.with_file_name(format!("client-{}.log", turn + 1));
        }
        Ok(Process::spawn(command, &log, self.clock)?)
    }

    /// Handshake of the client whose turn it is, and data both ways. `None` when the handshake
    /// never came to its end.
    fn shake_hands(
        &self,
        turn: u32,
        server: &mut Process,
        client: &mut Process,
    ) -> Option<Exchange> {
        self.complete(turn, server, client)
            .then(|| self.exchange(2 * turn, server, client))
    }

    fn complete(&self, turn: u32, server: &mut Process, client: &mut Process) -> bool {
        let watch = self.relay.watch();
        self.wait_with(client, server, |stage, patience| {
            watch.wait_until(patience.min(stage.deadline), |trace| {
                trace.completed(turn + 1)
            })
        })
    }

    /// Handshake, data where an attacker or a silence waits for it, the rest of the faults, then
    /// data that must come through. `None` when the handshake never came to its end.
    fn talk(
        &self,
        turn: u32,
        server: &mut Process,
        client: &mut Process,
        seen: &mut Observation,
    ) -> Option<Exchange> {
        self.complete(turn, server, client).then_some(())?;
        let watch = self.relay.watch();
        let scenario = self.job.scenario;
        let awaits_data = scenario.awaits_data();
        if awaits_data || !scenario.quiet.is_zero() {
            let before = self.exchange(2 * turn, server, client);
            if !before.is_complete() {
                return Some(before);
            }
        }
        let memory_before = resident_memory(server.pid());
        if awaits_data {
            self.tell_established();
        }
        self.stay_quiet();
        watch.wait_until(self.deadline, |trace| trace.forgeries_due == 0);
        let exchange = self.exchange(2 * turn + 1, server, client);
        seen.server_memory = memory_before
            .zip(resident_memory(server.pid()))
            .map(|(before, after)| [before, after]);
        Some(exchange)
    }

    /// Lets everything happen that waits for application data.
    fn tell_established(&self) {
        self.relay.established();
        self.relay
            .watch()
            .wait_until(self.deadline, |trace| trace.attackers_told);
    }

    /// Sends lines both ways until the server ends its connection, or speaks to the client's new place,
    /// which it must not.
    fn speak_in_vain(&self, server: &mut Process, client: &mut Process) {
        let over = |trace: &Trace| {
            trace.closed[Direction::ToClient as usize].is_some() || trace.sent_to_new_place > 0
        };
        for number in 0..MOST_LINES {
            let line = format!("lab-in-vain-{number:03}");
            client.write_line(&line);
            server.write_line(&line);
            let patience = self.deadline.min(self.clock.after(SLICE));
            let seen = self.relay.watch().wait_until(patience, over);
            if seen || until(self.deadline).is_none() || server.exit_status().is_some() {
                return;
            }
        }
    }

    /// Says nothing for as long as the scenario wants, or until an end closes the connection.
    fn stay_quiet(&self) {
        let quiet = self.job.scenario.quiet;
        if !quiet.is_zero() {
            let end = self.deadline.min(self.clock.after(quiet));
            self.relay.watch().wait_until(end, |trace| trace.is_over());
        }
    }

    /// Waits in slices, so that a dead endpoint ends the wait early.
    fn wait_with(
        &self,
        client: &mut Process,
        server: &mut Process,
        wait: impl Fn(&Self, Instant) -> bool,
    ) -> bool {
        loop {
            if wait(self, now() + SLICE) {
                return true;
            }
            let someone_died = client.exit_status().is_some() || server.exit_status().is_some();
            let flooded = self.relay.watch().lock().flooded.is_some();
            if someone_died || flooded || until(self.deadline).is_none() {
                return wait(self, now());
            }
        }
    }

    /// Has data go both ways, as these ends talk; `None` when they do not understand each other.
    fn exchange(&self, round: u32, server: &mut Process, client: &mut Process) -> Exchange {
        match endpoint::talk(&self.job.play) {
            Talk::Lines { echoed } => self.exchange_lines(round, echoed, server, client),
            Talk::Answers(answer) => self.wait_for_answer(&answer, client),
            Talk::None(why) => Exchange {
                not_tried: Some(why),
                ..Exchange::default()
            },
        }
    }

    /// Waits for one more answer than there are: its question was asked after every fault, or just
    /// before.
    fn wait_for_answer(&self, answer: &str, client: &mut Process) -> Exchange {
        let count = |process: &Process| {
            let heard = process.said(Stream::Out);
            heard.iter().filter(|line| line.contains(answer)).count()
        };
        let give_up = self.deadline.min(self.clock.after(ANSWER));
        // The first answer may have come already; after a fault a new one is needed.
        let had = if self.relay.watch().lock().attackers_told {
            count(client)
        } else {
            0
        };
        let ticks = crossbeam_channel::tick(SLICE / 5);
        loop {
            let came = count(client) > had;
            let over = client.exit_status().is_some() || until(give_up).is_none();
            if came || over || ticks.recv().is_err() {
                return Exchange {
                    to_server: came,
                    to_client: came,
                    ..Exchange::default()
                };
            }
        }
    }

    /// Sends lines until one has come through each way. DTLS does not resend data: on a lossy wire
    /// some lines never arrive.
    fn exchange_lines(
        &self,
        round: u32,
        echoes: bool,
        server: &mut Process,
        client: &mut Process,
    ) -> Exchange {
        let started = now();
        let mut exchange = Exchange::default();
        let mut lines = Vec::new();
        let length = self.job.scenario.line;
        // What has just been set off may swallow everything for a while.
        let patient = EXCHANGE + self.job.scenario.longest_outage();
        let patient = self.clock.real(patient);
        for attempt in 0..MOST_LINES {
            let number = format!("lab-{round}-{attempt:03}");
            let fill = ".".repeat(length.saturating_sub(number.len() + 1));
            let to_server = format!("{number}{fill}>");
            let to_client = if echoes {
                to_server.clone()
            } else {
                format!("{number}{fill}<")
            };
            if !exchange.to_server || echoes {
                client.write_line(&to_server);
            }
            if !echoes && !exchange.to_client {
                server.write_line(&to_client);
            }
            lines.push((to_server, to_client));
            // On a lossy wire the handshake may still need a flight when its end has been seen.
            let newest = self.newest_flight_at().max(started);
            let give_up = self.deadline.min(newest + patient);
            let patience = give_up.min(self.clock.after(SLICE));
            let arrived = |process: &Process, wanted: fn(&(String, String)) -> &String| {
                let heard = |stream, text: &str| {
                    stream == Stream::Out
                        && lines
                            .iter()
                            .any(|pair| text.contains(wanted(pair).as_str()))
                };
                process.wait_for(patience, heard)
            };
            exchange.to_client = exchange.to_client || arrived(client, |pair| &pair.1);
            exchange.to_server = if echoes {
                // What comes back has been there.
                exchange.to_client
            } else {
                exchange.to_server || arrived(server, |pair| &pair.0)
            };
            let over = self.relay.watch().lock().is_over()
                || client.exit_status().is_some()
                || server.exit_status().is_some();
            if exchange.is_complete() || over || until(give_up).is_none() {
                break;
            }
        }
        let repeated = |process: &Process, line: &str| {
            let heard = process.said(Stream::Out);
            heard
                .iter()
                .map(|text| text.matches(line).count())
                .sum::<usize>()
                > 1
        };
        exchange.repeated = lines
            .into_iter()
            .find(|(to_server, to_client)| {
                repeated(client, to_client) || (!echoes && repeated(server, to_server))
            })
            .map(|(line, _)| line);
        exchange
    }

    /// When the newest datagram of a handshake was sent.
    fn newest_flight_at(&self) -> Instant {
        let trace = self.relay.watch().lock();
        let newest = trace
            .handshakes
            .iter()
            .map(|handshake| handshake.newest_at)
            .max();
        self.clock.instant(newest.unwrap_or_default())
    }

    fn wait_for_end(&self, client: &mut Process) {
        if client.wait_until(self.deadline).is_none() {
            log::debug!("{}: the client still runs at the deadline", self.job.slug());
        }
    }

    /// Worker threads of the server, once they keep `bound`, or at the deadline.
    fn settle_threads(&self, server: &Process, bound: Bound) -> Option<u64> {
        let ticks = crossbeam_channel::tick(SLICE / 5);
        loop {
            let count = worker_threads(server.pid())?;
            if bound.holds(count) || until(self.deadline).is_none() || ticks.recv().is_err() {
                return Some(count);
            }
        }
    }

    fn log(&self, role: Role) -> PathBuf {
        self.setting.evidence.join(format!("{}.log", role.name()))
    }
}

/// Waits until the server listens.
///
/// # Errors
///
/// [`RunError::NotListening`] with its last words when it ends before or takes too long, or
/// [`RunError::Unsupported`] when that is why it ended.
pub(super) fn wait_until_it_listens(
    server: &mut Process,
    adapter: &Adapter,
    setting: &Setting<'_>,
) -> Result<(), RunError> {
    if listens(server, adapter, setting) {
        return Ok(());
    }
    // Its pipes close a moment before its status can be had.
    let status = server.wait_until(now() + SLICE);
    let last_words = server.last_words().unwrap_or_else(|| {
        if status.is_some() {
            "it ended without a word".to_owned()
        } else {
            "it still runs and has said nothing".to_owned()
        }
    });
    if status.and_then(|status| status.code()) == Some(EXIT_UNSUPPORTED) {
        return Err(RunError::Unsupported(last_words));
    }
    Err(RunError::NotListening(last_words))
}

fn listens(server: &mut Process, adapter: &Adapter, setting: &Setting<'_>) -> bool {
    let deadline = now() + START_UP.min(setting.scenario.deadline);
    match adapter.server.as_ref().map(|side| &side.ready) {
        Some(Ready::Says {
            stream,
            text,
            whole,
        }) => server.wait_for(deadline, |on, line| {
            let said = if *whole {
                line == text
            } else {
                line.contains(text.as_str())
            };
            on == *stream && said
        }),
        Some(Ready::Bound) | None => {
            let ticks = crossbeam_channel::tick(LOOK_AGAIN);
            while !is_bound(server.pid(), setting.server.port()) {
                let ended = server.exit_status().is_some();
                if ended || until(deadline).is_none() || ticks.recv().is_err() {
                    return false;
                }
            }
            true
        }
    }
}

/// How often the kernel is asked whether a port is bound.
const LOOK_AGAIN: Duration = Duration::from_millis(10);
/// A server that has not opened its socket after this never will; generous for a busy machine.
const START_UP: Duration = Duration::from_secs(10);
/// How long lines are sent in vain, after the newest flight, before data counts as lost. At 30 % loss
/// each way the chance that none of these comes through is one in a million; and the gap before
/// the fourth transmission of a flight, 4 s, must fit.
const EXCHANGE: Duration = Duration::from_secs(5);
/// How long a client with a protocol of its own may take to ask and to be answered.
const ANSWER: Duration = Duration::from_secs(10);
/// How long one line may take to come through before the next is sent.
const SLICE: Duration = Duration::from_millis(250);
/// Bound on the lines of one exchange.
const MOST_LINES: u32 = 100;
/// How long a client may take to close.
const CLIENT_CLOSE: Duration = Duration::from_secs(1);
/// How long a server may take to drain and print its counters.
const SERVER_DRAIN: Duration = Duration::from_secs(5);

/// Lets a client end as a person would, or else with a signal; whether it did.
fn close(client: &mut Process) -> bool {
    client.close_stdin();
    let mut ended = client.wait_until(now() + CLIENT_CLOSE).is_some();
    if !ended {
        client.ask_to_end();
        ended = client.wait_until(now() + CLIENT_CLOSE).is_some();
    }
    client.kill();
    ended
}

/// The name under which that stands among the server's own counters.
const LOST_BY_KERNEL: &str = "lost_by_kernel";

/// How `process` stands now, before anybody asks it to end.
fn ending(process: &mut Process, clock: Clock) -> Ending {
    let status = process.exit_status();
    Ending {
        by_itself: status.map(|_| clock.elapsed()),
        unsupported: status.and_then(|status| status.code()) == Some(EXIT_UNSUPPORTED),
        killed: false,
        flooded: process.flooded(),
        last_words: process.last_words(),
    }
}
