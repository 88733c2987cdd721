//! A plain UDP service for the server to forward to.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::PATIENCE;

/// A plain UDP service.
pub(crate) struct Backend {
    pub(crate) socket: Arc<UdpSocket>,
    pub(crate) address: SocketAddr,
}

impl Backend {
    pub(crate) fn new() -> Self {
        Self::at("127.0.0.1:0".parse().unwrap())
    }

    pub(crate) fn at(address: SocketAddr) -> Self {
        let socket = UdpSocket::bind(address).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let address = socket.local_addr().unwrap();
        let socket = Arc::new(socket);
        Self { socket, address }
    }

    pub(crate) fn receive(&self) -> (Vec<u8>, SocketAddr) {
        let mut buffer = vec![0; 65_536];
        let (length, from) = self.socket.recv_from(&mut buffer).unwrap();
        buffer.truncate(length);
        (buffer, from)
    }

    pub(crate) fn send(&self, datagram: &[u8], to: SocketAddr) {
        assert_eq!(self.socket.send_to(datagram, to).unwrap(), datagram.len());
    }

    /// Echoes on a thread of its own until dropped.
    pub(crate) fn echo(self) -> Echo {
        self.socket
            .set_read_timeout(Some(Duration::from_millis(50)))
            .unwrap();
        let (socket, done) = (Arc::clone(&self.socket), Arc::new(AtomicBool::new(false)));
        let end = Arc::clone(&done);
        let thread = thread::spawn(move || {
            let mut buffer = vec![0; 65_536];
            while !end.load(Ordering::SeqCst) {
                if let Ok((length, from)) = socket.recv_from(&mut buffer) {
                    drop(socket.send_to(&buffer[..length], from));
                }
            }
        });
        Echo {
            address: self.address,
            done,
            thread: Some(thread),
        }
    }
}

/// An echoing backend.
pub(crate) struct Echo {
    pub(crate) address: SocketAddr,
    done: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.done.store(true, Ordering::SeqCst);
        drop(self.thread.take().map(JoinHandle::join));
    }
}
