//! A server's process, for the benchmarks. Main thread.

use std::error::Error;
use std::process::Child;
use std::thread;
use std::time::{Duration, Instant};

pub(crate) type Failure = Box<dyn Error>;

/// A process that ends with the measurement.
pub(crate) struct Running(pub(crate) Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Waits until a program has this UDP port.
pub(crate) fn wait_until_bound(port: u16) -> Result<(), Failure> {
    let give_up = now() + Duration::from_secs(10);
    loop {
        let sockets = procfs::net::udp()?.into_iter().chain(procfs::net::udp6()?);
        if sockets
            .into_iter()
            .any(|socket| socket.local_address.port() == port)
        {
            return Ok(());
        }
        if now() > give_up {
            return Err(format!("nothing listens on port {port}").into());
        }
        thread::park_timeout(Duration::from_millis(20));
    }
}

#[expect(clippy::disallowed_methods, reason = "bounds a loop of a benchmark")]
pub(crate) fn now() -> Instant {
    Instant::now()
}
