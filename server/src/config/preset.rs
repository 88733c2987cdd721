//! Defaults for well-known protocols: what their RFCs and their clients expect. A constant table.

use std::fmt;
use std::time::Duration;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use super::options::ListenerOptions;
use super::values::{ClientAuth, PortSharing, Suites, Time, TimeOrNone, Transport};
use crate::service::{IdleCounts, ProxyProtocol, SyslogFrames};

/// A protocol whose defaults are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Preset {
    /// CoAP over DTLS: devices that sleep, pre-shared keys, CCM-8
    Coaps,
    /// Syslog over DTLS: certificates on both sides, nothing is answered
    Syslog,
    /// RADIUS over DTLS: certificates on both sides
    Radius,
}

impl fmt::Display for Preset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Coaps => "coaps",
            Self::Syslog => "syslog",
            Self::Radius => "radius",
        })
    }
}

impl Preset {
    /// The port that its clients use.
    pub(super) fn port(self) -> u16 {
        match self {
            // RFC 7252 §12.7.
            Self::Coaps => 5684,
            // RFC 6012.
            Self::Syslog => 6514,
            // RFC 7360.
            Self::Radius => 2083,
        }
    }

    /// What it says of a listener.
    pub(super) fn options(self) -> ListenerOptions {
        let anywhere = ListenerOptions {
            listen: "[::]".parse().ok(),
            ..ListenerOptions::default()
        };
        match self {
            Self::Coaps => ListenerOptions {
                suites: Some(Suites::Iot),
                // RFC 7925 §11: the first repetition after 9 s, then less often, down to one in 60 s.
                // Three of them fit into the handshake timeout.
                retransmit_initial: Some(seconds(9)),
                retransmit_max: Some(seconds(60)),
                handshake_timeout: Some(seconds(120)),
                // Devices sleep for hours, and a new handshake costs them more than silence costs us.
                idle_timeout: Some(TimeOrNone(Some(Duration::from_secs(24 * 3600)))),
                link_mtu: Some(1280),
                ..anywhere
            },
            Self::Syslog => ListenerOptions {
                // Both ends show certificates, and only one of them speaks (RFC 6012).
                client_auth: Some(ClientAuth::Required),
                idle_timeout: Some(TimeOrNone(Some(Duration::from_secs(30 * 60)))),
                idle_counts: Some(IdleCounts::ToServer),
                // What is behind us speaks plain UDP.
                syslog_frames: Some(SyslogFrames::Split),
                ..anywhere
            },
            Self::Radius => ListenerOptions {
                client_auth: Some(ClientAuth::Required),
                // A quiet night is no reason to make a client start over.
                idle_timeout: Some(TimeOrNone(Some(Duration::from_secs(24 * 3600)))),
                ..anywhere
            },
        }
    }
}

/// What holds where nothing is said.
pub(super) fn defaults() -> ListenerOptions {
    ListenerOptions {
        suites: Some(Suites::Recommended),
        heartbeat: Some(false),
        probe_when_idle: Some(TimeOrNone(None)),
        handshake_timeout: Some(seconds(30)),
        idle_timeout: Some(TimeOrNone(Some(Duration::from_secs(60)))),
        // RFC 6347 §4.2.4.1.
        retransmit_initial: Some(seconds(1)),
        retransmit_max: Some(seconds(60)),
        link_mtu: Some(1400),
        port_sharing: Some(PortSharing::Reuseport),
        transport: Some(Transport::Connected),
        ..ListenerOptions::default()
    }
}

/// The same of what only a forward has.
pub(super) fn defaults_of_a_forward() -> ListenerOptions {
    ListenerOptions {
        proxy_protocol: Some(ProxyProtocol::default()),
        syslog_frames: Some(SyslogFrames::default()),
        idle_counts: Some(IdleCounts::default()),
        ..ListenerOptions::default()
    }
}

fn seconds(seconds: u64) -> Time {
    Time(Duration::from_secs(seconds))
}
