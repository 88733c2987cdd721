//! A handshake lab: real DTLS programs across a network broken on purpose.

pub mod scenario;
pub mod wire;
pub mod packet;
pub mod record;
pub mod icmp;
