//! The capture of a run as pcapng: the TLS secrets, then both ends of the wire, with each datagram's
//! fate as a comment.
//!
//! Written once, when the run is over and its fates are known. Run's thread.

use std::borrow::Cow;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::time::{Duration, SystemTime};

use pcap_file::DataLink;
use pcap_file::Endianness;
use pcap_file::pcapng::blocks::enhanced_packet::{EnhancedPacketBlock, EnhancedPacketOption};
use pcap_file::pcapng::blocks::interface_description::{
    InterfaceDescriptionBlock, InterfaceDescriptionOption, InterfaceTsResolution,
};
use pcap_file::pcapng::blocks::opt_common::CommonOption;
use pcap_file::pcapng::blocks::unknown::UnknownBlock;
use pcap_file::pcapng::{PcapNgWriteError, PcapNgWriter};

/// Which end of the wire a frame was seen at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The server's.
    Server,
    /// The client's.
    Client,
}

/// A frame seen at one end of the wire.
#[derive(Debug, Clone)]
pub struct Frame {
    /// When, counted from the start of the run.
    pub at: Duration,
    /// Where.
    pub end: End,
    /// Ethernet header and all.
    pub bytes: Vec<u8>,
    /// What became of it, or where it comes from.
    pub comment: String,
}

/// Writes `frames` to `path`, with the lines of `secrets` that decrypt them; `started` is the time of
/// day of the run's start.
///
/// # Errors
///
/// What the file system says.
pub fn write_capture(
    path: &Path,
    started: SystemTime,
    secrets: &str,
    frames: &[Frame],
) -> Result<(), PcapNgWriteError> {
    let file = BufWriter::new(File::create(path)?);
    let mut writer = PcapNgWriter::with_endianness(file, Endianness::Little)?;
    for name in ["at the server", "at the client"] {
        writer.write_pcapng_block(InterfaceDescriptionBlock {
            linktype: DataLink::ETHERNET,
            snaplen: 0,
            options: vec![
                InterfaceDescriptionOption::IfName(Cow::Borrowed(name)),
                InterfaceDescriptionOption::IfTsResol(InterfaceTsResolution::NANO),
            ],
        })?;
    }
    if !secrets.is_empty() {
        // Before the packets: a reader that decrypts does so as it goes. Behind the interfaces: what
        // comes with secrets at its beginning editcap 4.0 refuses to write again.
        let block = decryption_secrets(secrets.as_bytes());
        writer.write_pcapng_block(UnknownBlock::new(DECRYPTION_SECRETS, 0, &block))?;
    }
    // Before 1970 no run was started; a clock that claims so gives a capture that counts from zero.
    let started = started
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    for frame in frames {
        let length = u32::try_from(frame.bytes.len()).unwrap_or(u32::MAX);
        let comment = CommonOption::Comment(Cow::Borrowed(frame.comment.as_str()));
        writer.write_pcapng_block(EnhancedPacketBlock {
            interface_id: match frame.end {
                End::Server => 0,
                End::Client => 1,
            },
            timestamp: started + frame.at,
            original_len: length,
            data: Cow::Borrowed(&frame.bytes),
            options: vec![EnhancedPacketOption::Common(comment)],
        })?;
    }
    writer.into_inner().flush()?;
    Ok(())
}

/// The body of a decryption secrets block: type, length, secrets, padding. `pcap-file` knows no such block.
fn decryption_secrets(secrets: &[u8]) -> Vec<u8> {
    let length = u32::try_from(secrets.len()).expect("a key log of some kilobytes");
    let mut body = Vec::with_capacity(secrets.len() + 12);
    body.extend(TLS_KEY_LOG.to_le_bytes());
    body.extend(length.to_le_bytes());
    body.extend(secrets);
    body.resize(body.len().next_multiple_of(4), 0);
    body
}

/// The type of that block, and of secrets in the format of `SSLKEYLOGFILE`
/// (draft-ietf-opsawg-pcapng, section 4.7).
const DECRYPTION_SECRETS: u32 = 0x0000_000a;
const TLS_KEY_LOG: u32 = 0x544c_534b;
