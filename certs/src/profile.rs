//! The leaves of the test PKI as one table: what each is for, how it is made, and what a verifier
//! must say about it. `generate`, `list` and the tests all read this table. Pure data.

/// A leaf certificate with its chain and key, named as its files are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Profile {
    /// The stem of the file names: `server` for `server.pem` and `server.key`.
    pub name: &'static str,
    /// What sets it apart, in a few words.
    pub purpose: &'static str,
    /// The end that presents it.
    pub role: Role,
    /// The kind of its key.
    pub key: KeyKind,
    /// How far it is from the root.
    pub chain: Chain,
    /// What is wrong with it, if anything.
    pub flaw: Option<Flaw>,
}

impl Profile {
    /// The server's ordinary certificate.
    pub const SERVER: Self = Self {
        name: "server",
        purpose: "the ordinary one",
        role: Role::Server,
        key: KeyKind::EcdsaP256,
        chain: Chain::Intermediate,
        flaw: None,
    };
    /// The client's ordinary certificate.
    pub const CLIENT: Self = Self {
        name: "client",
        role: Role::Client,
        ..Self::SERVER
    };
    /// A server certificate with an Ed25519 key.
    pub const SERVER_ED25519: Self = Self {
        name: "server-ed25519",
        purpose: "another key type",
        key: KeyKind::Ed25519,
        ..Self::SERVER
    };
    /// A server certificate with an RSA key.
    pub const SERVER_RSA: Self = Self {
        name: "server-rsa",
        purpose: "another key type",
        key: KeyKind::Rsa2048,
        ..Self::SERVER
    };
    /// A server certificate under many authorities, so that flight 4 needs several datagrams.
    pub const SERVER_LONG_CHAIN: Self = Self {
        name: "server-long-chain",
        purpose: "its chain is over 4 KB, so flight 4 needs several datagrams",
        chain: Chain::Long,
        ..Self::SERVER
    };
    /// A server certificate whose validity has ended.
    pub const SERVER_EXPIRED: Self = Self {
        name: "server-expired",
        purpose: "its validity ended yesterday",
        flaw: Some(Flaw::Expired),
        ..Self::SERVER
    };
    /// A server certificate whose validity has not begun.
    pub const SERVER_NOT_YET_VALID: Self = Self {
        name: "server-not-yet-valid",
        purpose: "its validity begins in ten years",
        flaw: Some(Flaw::NotYetValid),
        ..Self::SERVER
    };
    /// A server certificate for a host nobody asks for.
    pub const SERVER_WRONG_NAME: Self = Self {
        name: "server-wrong-name",
        purpose: "valid, but only for wrong-name.invalid",
        flaw: Some(Flaw::WrongName),
        ..Self::SERVER
    };
    /// A server certificate from an authority that `ca.pem` does not vouch for.
    pub const SERVER_OTHER_CA: Self = Self {
        name: "server-other-ca",
        purpose: "issued under other-ca.pem",
        flaw: Some(Flaw::OtherAuthority),
        ..Self::SERVER
    };
    /// A server certificate that stands in `crl.pem`.
    pub const SERVER_REVOKED: Self = Self {
        name: "server-revoked",
        purpose: "revoked by crl.pem",
        flaw: Some(Flaw::Revoked),
        ..Self::SERVER
    };

    /// Every leaf of the PKI, the good ones first.
    pub const ALL: [Self; 10] = [
        Self::SERVER,
        Self::CLIENT,
        Self::SERVER_ED25519,
        Self::SERVER_RSA,
        Self::SERVER_LONG_CHAIN,
        Self::SERVER_EXPIRED,
        Self::SERVER_NOT_YET_VALID,
        Self::SERVER_WRONG_NAME,
        Self::SERVER_OTHER_CA,
        Self::SERVER_REVOKED,
    ];

    /// The host names and addresses the certificate carries.
    #[must_use]
    pub fn names(self) -> &'static [&'static str] {
        match (self.flaw, self.role) {
            (Some(Flaw::WrongName), _) => &["wrong-name.invalid"],
            (_, Role::Server) => &[
                "localhost",
                "server.lab",
                "127.0.0.1",
                "::1",
                "10.99.0.1",
                "fd99::1",
            ],
            (_, Role::Client) => &[
                "localhost",
                "client.lab",
                "127.0.0.1",
                "::1",
                "10.99.0.2",
                "fd99::2",
            ],
        }
    }
}

/// The end of a connection that presents a certificate; decides its extended key usage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// `serverAuth`.
    Server,
    /// `clientAuth`.
    Client,
}

/// The kind of a leaf's key. The authorities all have ECDSA P-256 keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyKind {
    /// ECDSA on P-256.
    EcdsaP256,
    /// Ed25519.
    Ed25519,
    /// RSA with a modulus of 2048 bits.
    Rsa2048,
}

impl KeyKind {
    /// The usual spelling.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::EcdsaP256 => "ECDSA P-256",
            Self::Ed25519 => "Ed25519",
            Self::Rsa2048 => "RSA-2048",
        }
    }
}

/// The authorities between the root and a leaf.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chain {
    /// One intermediate.
    Intermediate,
    /// [`LONG_CHAIN_AUTHORITIES`] of them.
    Long,
}

/// The one thing that is wrong with a bad leaf; everything else about it is right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// Its validity has ended.
    Expired,
    /// Its validity has not begun.
    NotYetValid,
    /// It names another host.
    WrongName,
    /// Its root is not `ca.pem`.
    OtherAuthority,
    /// It is on the revocation list.
    Revoked,
}

impl Flaw {
    /// The error a verifier built on OpenSSL must report: its `X509_V_ERR_*` number and text, see
    /// `X509_STORE_CTX_get_error(3)`.
    #[must_use]
    pub fn verify_error(self) -> (u32, &'static str) {
        match self {
            Self::Expired => (10, "certificate has expired"),
            Self::NotYetValid => (9, "certificate is not yet valid"),
            Self::WrongName => (62, "hostname mismatch"),
            Self::OtherAuthority => (20, "unable to get local issuer certificate"),
            Self::Revoked => (23, "certificate revoked"),
        }
    }

    /// What a verifier must be told before it can notice, where trusting `ca.pem` is not enough.
    #[must_use]
    pub fn noticed_only_when(self) -> Option<&'static str> {
        match self {
            Self::WrongName => Some("the host name is checked"),
            Self::Revoked => Some("crl.pem is checked"),
            Self::Expired | Self::NotYetValid | Self::OtherAuthority => None,
        }
    }
}

/// How many authorities stand between the root and the long chain's leaf: with the leaf, over
/// 4 KB of certificates, and below the 16 KB at which a careful peer refuses a chain.
pub const LONG_CHAIN_AUTHORITIES: u8 = 9;
