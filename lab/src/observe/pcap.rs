//! The capture of a run as pcapng: both ends of the wire, with each datagram's fate as a comment.
//!
//! Written once, when the run is over and its fates are known. Run's thread.

use std::borrow::Cow;
use std::fs::File;
use std::io::BufWriter;
use std::path::Path;
use std::time::{Duration, SystemTime};

use pcap_file::DataLink;
use pcap_file::pcapng::blocks::enhanced_packet::{EnhancedPacketBlock, EnhancedPacketOption};
use pcap_file::pcapng::blocks::interface_description::{
    InterfaceDescriptionBlock, InterfaceDescriptionOption, InterfaceTsResolution,
};
use pcap_file::pcapng::blocks::opt_common::CommonOption;
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

/// Writes `frames` to `path`; `started` is the time of day of the run's start.
///
/// # Errors
///
/// What the file system says.
pub fn write_capture(
    path: &Path,
    started: SystemTime,
    frames: &[Frame],
) -> Result<(), PcapNgWriteError> {
    let mut writer = PcapNgWriter::new(BufWriter::new(File::create(path)?))?;
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
    Ok(())
}
