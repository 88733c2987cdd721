//! The simulator: both ends and the wire in one process, on a virtual clock.
//!
//! ```text
//!  shape ─► two configurations of dtls (full, client-auth, psk, resumed, fragmented, …)
//!    ▼
//!  end ◄──► world ◄──► end         dtls without I/O; datagrams and time are arguments
//!   │ saboteur                     what a planted defect does to an end
//!             │ wire::Engine       the same rules, links and attackers as on the real wire
//!             │ fault              or a list of single faults, without seed
//!             ▼
//!           clock                  gettimeofday(2) as OpenSSL sees it
//! ```
//!
//! Everything of a run happens on the calling thread, at the times its datagrams and timers say, as
//! fast as the machine can: a second of waiting costs nothing. Two runs of the same faults or seed
//! are alike in everything but key material.

mod clock;
mod defect;
pub(crate) mod end;
pub mod fault;
pub(crate) mod play;
mod saboteur;
pub(crate) mod scenario;
pub(crate) mod shape;
pub(crate) mod world;

pub use defect::Defect;
pub use fault::{Fault, Position};
pub use scenario::Simulator;

use crate::scenario::{Family, Shape};

/// Why nothing can be simulated.
#[derive(Debug, thiserror::Error)]
pub enum SimulationError {
    /// Environment: no certificates.
    #[error("cannot make the test PKI: {0}")]
    Pki(#[from] dtls_certs::IssueError),
    /// Our mistake: a configuration that `dtls` refuses.
    #[error("cannot configure an end: {0}")]
    Config(#[from] dtls::ConfigError),
    /// Environment: OpenSSL is out of memory.
    #[error("OpenSSL cannot make a connection: {0}")]
    OpenSsl(String),
    /// Environment: this OpenSSL asks for the time by other means.
    #[error(
        "this OpenSSL does not read the lab's clock: build without OPENSSL_NO_VENDOR, or without what else replaces gettimeofday(2)"
    )]
    Clock,
    /// A handshake without faults fails, so that faults would prove nothing.
    #[error("the handshake fails without any fault ({0}): nothing can be learnt from faults")]
    Control(String),
}

/// Makes sure that OpenSSL sees the virtual clock: a client that nobody answers sends its hello again
/// exactly one virtual second after the first.
///
/// # Errors
///
/// [`SimulationError::Clock`] if it does not.
pub(crate) fn check_clock() -> Result<(), SimulationError> {
    let cast = shape::Cast::new(&shape::Setup::of(Shape::Psk, None))?;
    let nothing_arrives: Vec<Fault> = (1..=2)
        .map(|ordinal| {
            let direction = crate::packet::Direction::ToServer;
            Fault::Fate(Position { direction, ordinal }, crate::wire::Fate::Dropped)
        })
        .collect();
    let engine = crate::wire::Engine::perfect();
    let family = Family::Ipv4;
    let mut world = world::World::new(&cast, engine, &nothing_arrives, family, None)?;
    world.run_out(std::time::Duration::from_millis(1500));
    let times: Vec<_> = world.sent.iter().map(|sent| sent.at.as_micros()).collect();
    if times == [0, 1_000_000] {
        Ok(())
    } else {
        Err(SimulationError::Clock)
    }
}
