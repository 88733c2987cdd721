//! One run of a list of faults, and what it came to: both ends agree and data flows, or why not.

use std::time::Duration;

use super::SimulationError;
use super::end::End;
use super::fault::Fault;
use super::shape::Cast;
use super::world::{Sent, World};
use crate::explore::words::state;
use crate::role::Role;
use crate::scenario::{Family, SHORT_LINE};
use crate::wire::Engine;

/// What a run came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Played {
    /// Rule L1: both ends are done, agree on their keys, and data flowed both ways, once; or what was
    /// missing.
    pub(crate) verdict: Result<(), String>,
    /// Until both ends were done.
    pub(crate) took: Option<Duration>,
    /// Every datagram sent.
    pub(crate) sent: Vec<Sent>,
    /// Socket calls of client and server, receives and sends.
    pub(crate) calls: [[u32; 2]; 2],
}

/// Plays one connection with these faults.
///
/// # Errors
///
/// OpenSSL is out of memory.
pub(crate) fn play(cast: &Cast, faults: &[Fault]) -> Result<Played, SimulationError> {
    let family = faults.iter().find_map(|fault| match fault {
        Fault::Icmp { kind, .. } => Some(kind.family),
        _ => None,
    });
    play_over(family.unwrap_or(Family::Ipv4), cast, faults)
}

/// The same over a given IP version.
///
/// # Errors
///
/// OpenSSL is out of memory.
pub(crate) fn play_over(
    family: Family,
    cast: &Cast,
    faults: &[Fault],
) -> Result<Played, SimulationError> {
    let mut world = World::new(cast, Engine::perfect(), faults, family, None)?;
    let done = world.shake_hands(DEADLINE);
    let took = done.then(|| world.elapsed());
    let verdict = if done {
        let exchange = world.exchange(0, SHORT_LINE, world.elapsed() + DATA_DEADLINE);
        match (exchange.to_server, exchange.to_client, &exchange.repeated) {
            (true, true, None) if same_keys(&world) => Ok(()),
            (true, true, None) => Err("the two ends have different keys".to_owned()),
            (true, true, Some(line)) => Err(format!("data came out twice: {line}")),
            _ => Err(format!("no data both ways: {}", states(&world))),
        }
    } else {
        Err(format!("no handshake: {}", states(&world)))
    };
    let played = Played {
        verdict,
        took,
        calls: [world.client.calls, world.server.calls],
        sent: std::mem::take(&mut world.sent),
    };
    // A connection that is dropped without this takes its session with it, and the next case would be no
    // resumed handshake.
    world.client.take_session();
    Ok(played)
}

/// Virtual time after which a handshake has failed. No three lost datagrams take so long.
const DEADLINE: Duration = Duration::from_secs(100);
/// Virtual time in which a line must come through.
const DATA_DEADLINE: Duration = Duration::from_secs(30);

fn same_keys(world: &World) -> bool {
    let exported = |end: &End| {
        let mut material = [0; 16];
        let connection = end.connection()?;
        let made = connection.export_keying_material("EXPERIMENTAL lab", None, &mut material);
        made.ok().map(|()| material)
    };
    let (client, server) = (exported(&world.client), exported(&world.server));
    client.is_some() && client == server
}

fn states(world: &World) -> String {
    let client = state(Role::Client, &world.client.state);
    let server = state(Role::Server, &world.server.state);
    format!("{client}, {server}")
}
