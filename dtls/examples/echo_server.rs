//! An echo server: `cargo run -p dtls --example echo_server -- server.pem server.key [::1]:4433`.
//! The main thread accepts, each connection has a thread of its own.

use std::error::Error;
use std::thread;

use dtls::{DtlsListener, DtlsStream, Identity, Recv, ServerConfig};

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [certificate, key, address] = &args[..] else {
        return Err("give a certificate chain, its key, and an address to listen on".into());
    };
    let identity = Identity::from_files(certificate, key)?;
    let config = ServerConfig::builder(identity).build()?;
    let mut listener = DtlsListener::bind(address.parse()?, config)?;
    println!("listening on {}", listener.local_addr());
    loop {
        let incoming = listener.accept()?;
        thread::spawn(move || {
            let peer = incoming.peer_addr();
            match incoming.accept() {
                Ok(stream) => println!("{peer}: {:?}", echo(stream)),
                Err(error) => println!("{peer}: failed to {error}"),
            }
        });
    }
}

fn echo(mut stream: DtlsStream) -> Result<Recv, Box<dyn Error>> {
    let mut buffer = [0; 16 * 1024];
    loop {
        match stream.recv(&mut buffer)? {
            Recv::Data(length) => stream.send(&buffer[..length])?,
            Recv::Reconnected if stream.accept_reconnect() => {}
            end => return Ok(end),
        }
    }
}
