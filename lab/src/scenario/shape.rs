//! The kinds of handshake. Plain values.

use strum::{Display, EnumIter, EnumString, IntoStaticStr, VariantNames};

/// A kind of handshake.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, EnumIter, EnumString, Display, IntoStaticStr, VariantNames,
)]
#[strum(serialize_all = "kebab-case")]
pub enum Shape {
    /// The server shows a certificate.
    Full,
    /// So does the client.
    ClientAuth,
    /// A pre-shared key, no certificates.
    Psk,
    /// A session is resumed by its ticket.
    Resumed,
    /// Both show certificates, in datagrams of at most 548 bytes.
    Fragmented,
    /// `Full` with each record in a datagram of its own, as other implementations send.
    FullSplit,
    /// `ClientAuth` likewise.
    ClientAuthSplit,
    /// `Psk` likewise.
    PskSplit,
    /// `Resumed` likewise.
    ResumedSplit,
    /// `Fragmented` likewise.
    FragmentedSplit,
}

impl Shape {
    /// Whether every record is sent in a datagram of its own.
    pub(crate) const fn is_split(self) -> bool {
        matches!(
            self,
            Self::FullSplit
                | Self::ClientAuthSplit
                | Self::PskSplit
                | Self::ResumedSplit
                | Self::FragmentedSplit
        )
    }

    /// The kind that it is but for the records' datagrams.
    pub(crate) const fn packed(self) -> Self {
        match self {
            Self::FullSplit => Self::Full,
            Self::ClientAuthSplit => Self::ClientAuth,
            Self::PskSplit => Self::Psk,
            Self::ResumedSplit => Self::Resumed,
            Self::FragmentedSplit => Self::Fragmented,
            packed => packed,
        }
    }
}
