//! One measurement: plain UDP datagrams through a link, and what came of them.
//!
//! Main thread sends; a relay thread and one that receives besides.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};

use super::NotCompared;
use super::stats::Share;
use crate::clock::Clock;
use crate::netem;
use crate::netns::{Network, client_addr, server_addr};
use crate::relay::{Links, Relay};
use crate::scenario::{Family, Link};
use crate::wire::Engine;

/// What came of the datagrams through one link.
pub(super) struct Sample {
    pub(super) sent: u32,
    /// In the order in which they came.
    pub(super) arrivals: Vec<Arrival>,
}

pub(super) struct Arrival {
    number: u32,
    /// Since it was sent.
    pub(super) latency: Duration,
    /// Since the start.
    at: Duration,
    intact: bool,
}

/// Sends so many datagrams through `link`, made by the engine with this seed or by the kernel.
pub(super) fn measure(
    link: &Link,
    links: Links,
    datagrams: u32,
    seed: u64,
) -> Result<Sample, NotCompared> {
    let network = Network::build(Family::Ipv4)?;
    // A socket stays in the namespace where it was made.
    network.server.enter()?;
    let receiver = UdpSocket::bind(SocketAddr::new(server_addr(Family::Ipv4), PORT))?;
    if setsockopt(&receiver, sockopt::RcvBufForce, &RECEIVE_BUFFER).is_err() {
        setsockopt(&receiver, sockopt::RcvBuf, &RECEIVE_BUFFER).map_err(io::Error::from)?;
    }
    receiver.set_read_timeout(Some(link.delay + link.jitter + SILENCE))?;
    network.client.enter()?;
    let sender = UdpSocket::bind(SocketAddr::new(client_addr(Family::Ipv4), 0))?;
    sender.connect(receiver.local_addr()?)?;
    network.wire.enter()?;
    let engine = match links {
        Links::Engine => Engine::made_of(Vec::new(), link, seed),
        Links::Kernel => {
            netem::set_up([link, &Link::default()], false)?;
            Engine::perfect()
        }
    };
    let clock = Clock::start(1);
    let mut relay = Relay::start(&network, engine, links, clock)?;
    let all_sent = AtomicBool::new(false);
    let arrivals = std::thread::scope(|scope| {
        let receiving = scope.spawn(|| receive(&receiver, clock, &all_sent));
        let sent = send(&sender, datagrams, clock);
        all_sent.store(true, Ordering::Release);
        let received = receiving
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("the receiving thread panicked")));
        sent.and(received)
    })?;
    relay.stop();
    Ok(Sample {
        sent: datagrams,
        arrivals,
    })
}

/// Sends them at a pace that both backends and the receiver can follow.
fn send(sender: &UdpSocket, datagrams: u32, clock: Clock) -> io::Result<()> {
    let pace = crossbeam_channel::tick(PACE);
    for number in 0..datagrams {
        let sent_at = clock.elapsed();
        sender.send(&payload(number, sent_at))?;
        pace.recv().map_err(io::Error::other)?;
    }
    Ok(())
}

/// Receives until all were sent and nothing came for a while.
fn receive(receiver: &UdpSocket, clock: Clock, all_sent: &AtomicBool) -> io::Result<Vec<Arrival>> {
    let mut arrivals = Vec::new();
    let mut buffer = [0; 2 * LENGTH];
    loop {
        let over = all_sent.load(Ordering::Acquire);
        match receiver.recv(&mut buffer) {
            Ok(length) => {
                let at = clock.elapsed();
                arrivals.extend(arrival(&buffer[..length], at));
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if over {
                    return Ok(arrivals);
                }
            }
            Err(error) => return Err(error),
        }
    }
}

/// Number and time, filled up, and number and time again.
fn payload(number: u32, sent_at: Duration) -> [u8; LENGTH] {
    let mut payload = [FILL; LENGTH];
    let nanos = u64::try_from(sent_at.as_nanos()).expect("no run takes centuries");
    let mut head = [0; HEAD];
    head[..4].copy_from_slice(&number.to_be_bytes());
    head[4..].copy_from_slice(&nanos.to_be_bytes());
    payload[..HEAD].copy_from_slice(&head);
    payload[LENGTH - HEAD..].copy_from_slice(&head);
    payload
}

fn arrival(payload: &[u8], at: Duration) -> Option<Arrival> {
    let (head, rest) = payload.split_first_chunk::<HEAD>()?;
    let (number, nanos) = head.split_first_chunk::<4>()?;
    let number = u32::from_be_bytes(*number);
    let sent_at = Duration::from_nanos(u64::from_be_bytes(nanos.try_into().ok()?));
    let (fill, tail) = rest.split_last_chunk::<HEAD>()?;
    Some(Arrival {
        number,
        latency: at.saturating_sub(sent_at),
        at,
        intact: fill.iter().all(|byte| *byte == FILL) && head == tail,
    })
}

impl Sample {
    /// How often each has come; only those that nothing has touched, if asked for.
    pub(super) fn counts(&self, intact: bool) -> Vec<u32> {
        let mut counts = vec![0; self.sent as usize];
        for arrival in self.arrivals.iter().filter(|one| one.intact || !intact) {
            if let Some(count) = counts.get_mut(arrival.number as usize) {
                *count += 1;
            }
        }
        counts
    }

    pub(super) fn lost(&self) -> Share {
        Share::of(&self.counts(false), |count| *count == 0)
    }

    /// How many are lost of those behind one that was lost, or was not.
    pub(super) fn lost_behind(&self, behind_lost: bool) -> Share {
        let counts = self.counts(false);
        let behind: Vec<u32> = counts
            .windows(2)
            .filter(|pair| (pair[0] == 0) == behind_lost)
            .map(|pair| pair[1])
            .collect();
        Share::of(&behind, |count| *count == 0)
    }

    /// In seconds.
    pub(super) fn latencies(&self) -> Vec<f64> {
        let latencies = self.arrivals.iter().map(|one| one.latency.as_secs_f64());
        latencies.collect()
    }

    /// Seconds from one arrival to the next.
    pub(super) fn mean_gap(&self) -> f64 {
        match (self.arrivals.first(), self.arrivals.last()) {
            (Some(first), Some(last)) => {
                (last.at - first.at).as_secs_f64() / (self.arrivals.len() - 1).max(1) as f64
            }
            _ => 0.0,
        }
    }
}

/// The value below which so much of the sample lies; 0 of an empty one.
pub(super) fn quantile(sample: &[f64], share: f64) -> f64 {
    let mut sorted = sample.to_vec();
    sorted.sort_by(f64::total_cmp);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "an index, rounded down on purpose"
    )]
    let index = (sorted.len() as f64 * share) as usize;
    sorted.get(index).or(sorted.last()).copied().unwrap_or(0.0)
}

/// UDP port of the receiver.
const PORT: u16 = 5684;
/// Bytes of each datagram: enough that most flipped bits hit the payload.
const LENGTH: usize = 400;
/// Bytes of number and time.
const HEAD: usize = 12;
const FILL: u8 = 0x5a;
/// Time between two datagrams.
const PACE: Duration = Duration::from_millis(1);
/// When nothing comes for so long beyond the link's own delay, nothing is on its way.
const SILENCE: Duration = Duration::from_millis(700);
/// Bytes; room for everything.
const RECEIVE_BUFFER: usize = 8 << 20;

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Arrivals with these numbers, 10 ms apart, each after 5 ms on its way.
    pub(in super::super) fn sample(sent: u32, numbers: &[u32]) -> Sample {
        let arrivals = (1..).zip(numbers).map(|(place, number)| {
            let at = Duration::from_millis(10 * place);
            let sent_at = at - Duration::from_millis(5);
            arrival(&payload(*number, sent_at), at).unwrap()
        });
        Sample {
            sent,
            arrivals: arrivals.collect(),
        }
    }

    #[test]
    fn datagram_tells_its_number_its_latency_and_any_damage() {
        let good = payload(7, Duration::from_millis(3));
        let seen = arrival(&good, Duration::from_millis(5)).unwrap();
        assert_eq!((seen.number, seen.intact), (7, true));
        assert_eq!(seen.latency, Duration::from_millis(2));
        for bit in 0..LENGTH * 8 {
            let mut bad = good;
            bad[bit / 8] ^= 1 << (bit % 8);
            let seen = arrival(&bad, Duration::from_millis(5)).unwrap();
            assert!(!seen.intact, "bit {bit}");
        }
        assert!(arrival(&good[..20], Duration::ZERO).is_none());
    }

    #[test]
    fn losses_copies_and_times_are_counted_as_they_came() {
        let seen = sample(6, &[0, 1, 1, 5, 4]);
        assert_eq!(seen.counts(false), [1, 2, 0, 0, 1, 1]);
        assert_eq!(
            seen.lost(),
            Share {
                count: 2.0,
                of: 6.0
            }
        );
        let behind_loss = Share {
            count: 1.0,
            of: 2.0,
        };
        assert_eq!(seen.lost_behind(true), behind_loss);
        let behind_none = Share {
            count: 1.0,
            of: 3.0,
        };
        assert_eq!(seen.lost_behind(false), behind_none);
        assert!((seen.mean_gap() - 0.01).abs() < 1e-9);
        assert!(
            seen.latencies()
                .iter()
                .all(|one| (one - 0.005).abs() < 1e-9)
        );
    }
}
