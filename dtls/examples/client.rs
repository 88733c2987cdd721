//! Sends one datagram and prints the answer:
//! `cargo run -p dtls --example client -- ca.pem localhost [::1]:4433 hello`.

use std::error::Error;
use std::time::Duration;

use dtls::{ClientConfig, DtlsConnector, Recv, ServerTrust, TrustAnchors};

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [ca, name, address, text] = &args[..] else {
        return Err("give a CA file, the server's name, its address, and a text".into());
    };
    let trust = ServerTrust::Anchors(TrustAnchors::from_file(ca)?);
    let connector = DtlsConnector::new(ClientConfig::builder(trust).build()?);
    let mut stream = connector.connect(name, address.parse()?)?;
    println!("{} in {:?}", stream.info().cipher, stream.info().time);

    stream.send(text.as_bytes())?;
    stream.set_recv_timeout(Some(Duration::from_secs(2)));
    let mut buffer = [0; 16 * 1024];
    match stream.recv(&mut buffer)? {
        Recv::Data(length) => println!("{}", String::from_utf8_lossy(&buffer[..length])),
        other => println!("no answer: {other:?}"),
    }
    Ok(())
}
