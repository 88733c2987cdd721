//! Whom to believe: what an end demands of the other's certificate, and the verdict on it.
//!
//! ```text
//! Certificate ─► OpenSSL builds and checks the chain ─► Trust decides ─► handshake goes on, or alert
//!                (dates, signatures, name, CRL)                       └► first use is noted at the end
//! ```
//!
//! A [`Trust`] is made with a configuration and shared by all threads; it is asked on the thread of
//! the connection, in the middle of its handshake.

mod fingerprint;
mod known_peers;

use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use openssl::error::ErrorStack;
use openssl::ex_data::Index;
use openssl::sha::Sha256;
use openssl::ssl::{Ssl, SslContext, SslContextBuilder, SslRef};
use openssl::x509::{X509StoreContext, X509StoreContextRef, X509VerifyResult};

use crate::config::TrustAnchors;
use crate::error::ConfigError;
use crate::session::CertificateInfo;
use crate::sys::callbacks::{CertificateJudge, cert_rejected, guard, set_cert_judge};

pub use fingerprint::{Fingerprint, FingerprintError};
pub use known_peers::{KnownPeer, KnownPeers, KnownPeersLineError};

/// Which certificates of the other end are good enough.
///
/// The simple ones combine: `a.or(b)` takes what either takes, `a.and(b)` what both do.
///
/// ```no_run
/// use dtls::{KnownPeers, Trust, TrustAnchors};
///
/// let pin = "SHA256:5E:0A:…".parse()?;
/// // The company's CA, or this one device, whose certificate nobody signed.
/// let trust = Trust::Anchors(TrustAnchors::from_file("ca.pem")?).or(Trust::Pins(vec![pin]));
/// // As a shell's first login does it.
/// let trust = Trust::KnownPeers(KnownPeers::open("known_peers")?);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// A resumed session is as trusted as the handshake that it came from, for at most two hours:
/// certificates are not shown again. A session is only resumed under the same trust, by either end.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Trust {
    /// Chains that end in one of these, are valid now and, at a client, carry the server's name.
    Anchors(TrustAnchors),
    /// Like [`Self::Anchors`] with the system's (OpenSSL's default paths).
    System,
    /// Leaf certificates with one of these fingerprints, whatever else they say: no issuer, date
    /// or name is looked at. None given means nobody.
    Pins(Vec<Fingerprint>),
    /// The first certificate a server shows is noted in a file, and from then on no other is taken
    /// (trust on first use). For clients.
    KnownPeers(KnownPeers),
    /// What a function of yours says, see [`Trust::check`].
    Check(Check),
    /// What either takes, see [`Trust::or`].
    Either(Box<Self>, Box<Self>),
    /// What both take, see [`Trust::and`].
    Both(Box<Self>, Box<Self>),
    /// Any: protects against eavesdroppers who only listen.
    Anyone,
}

/// A function of yours that decides about certificates.
#[derive(Clone)]
pub struct Check {
    name: String,
    function: Arc<CheckFn>,
}

type CheckFn = dyn Fn(&Presented<'_>) -> Result<(), String> + Send + Sync;

impl fmt::Debug for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Check").field(&self.name).finish()
    }
}

/// What the other end presents, and what OpenSSL thinks of it.
#[derive(Debug)]
#[non_exhaustive]
pub struct Presented<'a> {
    /// The chain as far as OpenSSL could build it, leaf first; never empty.
    pub chain: &'a [CertificateInfo],
    /// OpenSSL's verdict on chain, dates, revocation and name: fine, or its reason.
    pub verdict: Result<(), &'static str>,
    /// The name that the server was asked for; a client has none.
    pub name: Option<&'a str>,
    /// The other end's address.
    pub address: SocketAddr,
}

impl Trust {
    /// Asks a function of yours. It sees the chain and OpenSSL's verdict and has the last word, so
    /// to narrow down a CA, combine them: `Trust::Anchors(ca).and(Trust::check(…))`.
    ///
    /// A refusal's text becomes part of [`HandshakeError::Verification`]. A panic refuses. The
    /// name stands for the function: sessions are resumed between servers that share
    /// [`TicketKeys`](crate::TicketKeys) only if their checks have the same names, so rename a
    /// check when it becomes stricter.
    ///
    /// [`HandshakeError::Verification`]: crate::HandshakeError::Verification
    ///
    /// ```
    /// use dtls::Trust;
    ///
    /// let meters = Trust::check("meters", |presented| {
    ///     let names = &presented.chain[0].names;
    ///     if names.iter().any(|name| name.ends_with(".meters.example")) {
    ///         Ok(())
    ///     } else {
    ///         Err(format!("{names:?} is no meter"))
    ///     }
    /// });
    /// ```
    #[must_use]
    pub fn check(
        name: impl Into<String>,
        function: impl Fn(&Presented<'_>) -> Result<(), String> + Send + Sync + 'static,
    ) -> Self {
        Self::Check(Check {
            name: name.into(),
            function: Arc::new(function),
        })
    }

    /// Takes what either takes; `other` is asked only about what `self` refuses.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self::Either(Box::new(self), Box::new(other))
    }

    /// Takes what both take.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self::Both(Box::new(self), Box::new(other))
    }

    /// Whether the name matters to OpenSSL's verdict.
    pub(crate) fn checks_name(&self) -> bool {
        !matches!(self, Self::Anyone)
    }

    /// Whether it needs to know the other end by name.
    pub(crate) fn is_for_clients(&self) -> bool {
        self.any(&|part| matches!(part, Self::KnownPeers(_)))
    }

    /// Whether a part of it is like this.
    fn any(&self, like: &dyn Fn(&Self) -> bool) -> bool {
        match self {
            Self::Either(a, b) | Self::Both(a, b) => a.any(like) || b.any(like),
            part => like(part),
        }
    }

    /// Every set of anchors in it.
    pub(crate) fn anchors<'a>(&'a self, found: &mut Vec<&'a TrustAnchors>) {
        match self {
            Self::Anchors(anchors) => found.push(anchors),
            Self::Either(a, b) | Self::Both(a, b) => {
                a.anchors(found);
                b.anchors(found);
            }
            _ => {}
        }
    }

    /// Makes a context ask it.
    pub(crate) fn install(&self, context: &mut SslContextBuilder) -> Result<(), ConfigError> {
        let mut anchors = Vec::new();
        self.anchors(&mut anchors);
        let system = self.any(&|part| matches!(part, Self::System));
        TrustAnchors::install(&anchors, system, context)
            .map_err(crate::config::openssl("the CA"))?;
        let index = trust_index().map_err(crate::config::openssl("the trust"))?;
        context.set_ex_data(index, self.clone());
        set_cert_judge::<Judge>(context);
        Ok(())
    }

    /// Adds everything that makes this trust what it is.
    pub(crate) fn describe(&self, digest: &mut Sha256) -> Result<(), ErrorStack> {
        let mut part = |tag: u8, bytes: &[u8]| {
            digest.update(&[tag]);
            digest.update(&(bytes.len() as u64).to_be_bytes());
            digest.update(bytes);
        };
        match self {
            Self::Anchors(anchors) => {
                for der in anchors.to_ders()? {
                    part(1, &der);
                }
            }
            Self::System => part(2, b""),
            Self::Pins(pins) => pins.iter().for_each(|pin| part(3, pin.as_bytes())),
            Self::KnownPeers(_) => part(4, b""),
            Self::Check(check) => part(5, check.name.as_bytes()),
            Self::Anyone => part(6, b""),
            Self::Either(a, b) | Self::Both(a, b) => {
                part(
                    if matches!(self, Self::Either(..)) {
                        7
                    } else {
                        8
                    },
                    b"",
                );
                a.describe(digest)?;
                b.describe(digest)?;
                digest.update(&[9]);
            }
        }
        Ok(())
    }

    /// Decides. `first_use` is what to note once the handshake is complete.
    fn judge(
        &self,
        presented: &Presented<'_>,
        leaf: Fingerprint,
        first_use: &mut Option<FirstUse>,
    ) -> Result<(), String> {
        match self {
            Self::Anyone => Ok(()),
            Self::Anchors(_) | Self::System => presented.verdict.map_err(explain),
            Self::Pins(pins) if pins.contains(&leaf) => Ok(()),
            Self::Pins(_) => Err(format!(
                "its fingerprint is {leaf}, which is not among the pinned ones"
            )),
            Self::KnownPeers(known) => {
                let name = presented.name.ok_or("it is known by no name")?;
                if known.look_up(name, presented.address.port(), leaf)? {
                    return Ok(());
                }
                *first_use = Some(FirstUse {
                    known: known.clone(),
                    name: name.to_owned(),
                    port: presented.address.port(),
                    leaf,
                });
                Ok(())
            }
            Self::Check(check) => guard(|| (check.function)(presented))
                .unwrap_or_else(|| Err("the function panicked".to_owned()))
                .map_err(|reason| format!("the check \"{}\": {reason}", check.name)),
            Self::Either(a, b) => {
                let Err(first) = a.judge(presented, leaf, first_use) else {
                    return Ok(());
                };
                *first_use = None;
                b.judge(presented, leaf, first_use)
                    .map_err(|second| format!("{first}; nor otherwise: {second}"))
            }
            Self::Both(a, b) => {
                a.judge(presented, leaf, first_use)?;
                let earlier = first_use.take();
                b.judge(presented, leaf, first_use)?;
                *first_use = first_use.take().or(earlier);
                Ok(())
            }
        }
    }

    /// Whether it takes anything without proof; then OpenSSL's verdict is left as it is, to be
    /// shown, and the peer does not count as verified.
    fn is_anyone(&self) -> bool {
        match self {
            Self::Anyone => true,
            Self::Either(a, b) => a.is_anyone() || b.is_anyone(),
            Self::Both(a, b) => a.is_anyone() && b.is_anyone(),
            _ => false,
        }
    }
}

/// OpenSSL's reason, with a remedy where it is not plain.
fn explain(reason: &'static str) -> String {
    let remedy = match reason {
        "unable to get certificate CRL" => {
            "; the revocation lists must include one of every authority in the chain"
        }
        "CRL has expired" => "; fetch the authority's newest list",
        _ => "",
    };
    format!("{reason}{remedy}")
}

/// A certificate seen for the first time.
struct FirstUse {
    known: KnownPeers,
    name: String,
    port: u16,
    leaf: Fingerprint,
}

/// What a connection knows about the other end; travels in its `SSL`, where the callbacks find it.
pub(crate) struct Counterpart {
    /// Which configuration the connection belongs to.
    pub(crate) config: u64,
    /// The server's name, at a client.
    pub(crate) name: Option<String>,
    address: SocketAddr,
    outcome: Mutex<Outcome>,
}

#[derive(Default)]
struct Outcome {
    refusal: Option<String>,
    first_use: Option<FirstUse>,
    noted: bool,
}

/// Tells the callbacks whom a connection is with.
pub(crate) fn introduce(
    ssl: &mut SslRef,
    config: u64,
    name: Option<&str>,
    address: SocketAddr,
) -> Result<(), ErrorStack> {
    let counterpart = Counterpart {
        config,
        name: name.map(str::to_owned),
        address,
        outcome: Mutex::default(),
    };
    ssl.set_ex_data(counterpart_index()?, counterpart);
    Ok(())
}

/// Whom a connection is with.
pub(crate) fn counterpart(ssl: &SslRef) -> Option<&Counterpart> {
    ssl.ex_data(counterpart_index().ok()?)
}

/// Why the peer's certificate was refused, if it was.
pub(crate) fn refusal(ssl: &SslRef) -> Option<String> {
    let outcome = &counterpart(ssl)?.outcome;
    let outcome = outcome.lock().unwrap_or_else(PoisonError::into_inner);
    outcome.refusal.clone()
}

/// Notes a certificate seen for the first time, now that the peer has proved that it has the key.
///
/// # Errors
/// The file cannot be written, or somebody else noted another certificate meanwhile.
pub(crate) fn conclude(ssl: &SslRef) -> Result<(), String> {
    let Some(counterpart) = counterpart(ssl) else {
        return Ok(());
    };
    let outcome = &counterpart.outcome;
    let first_use = {
        let mut outcome = outcome.lock().unwrap_or_else(PoisonError::into_inner);
        outcome.first_use.take()
    };
    if let Some(first) = first_use {
        first.known.note(&first.name, first.port, first.leaf)?;
        let mut outcome = outcome.lock().unwrap_or_else(PoisonError::into_inner);
        outcome.noted = true;
    }
    Ok(())
}

/// Whether [`conclude`] noted the peer's certificate.
pub(crate) fn is_first_use(ssl: &SslRef) -> bool {
    counterpart(ssl).is_some_and(|counterpart| {
        let outcome = counterpart.outcome.lock();
        outcome.unwrap_or_else(PoisonError::into_inner).noted
    })
}

/// Asks the trust of the connection's configuration.
struct Judge;

impl CertificateJudge for Judge {
    fn judge(store: &mut X509StoreContextRef) -> bool {
        let complete = store.verify_cert().unwrap_or(false);
        let verdict = match (complete, store.error()) {
            (false, X509VerifyResult::OK) => X509VerifyResult::APPLICATION_VERIFICATION,
            (_, verdict) => verdict,
        };
        let (accepted, verdict) = match decide(store, verdict) {
            Some(Accepted::Yes) => (true, X509VerifyResult::OK),
            Some(Accepted::Unproved) => (true, verdict),
            Some(Accepted::No) if verdict == X509VerifyResult::OK => (false, cert_rejected()),
            Some(Accepted::No) => (false, verdict),
            None => (false, X509VerifyResult::APPLICATION_VERIFICATION),
        };
        store.set_error(verdict);
        accepted
    }
}

enum Accepted {
    /// The peer counts as verified.
    Yes,
    /// Taken without proof; OpenSSL's verdict is left as it is, for people to read.
    Unproved,
    No,
}

fn decide(store: &X509StoreContextRef, verdict: X509VerifyResult) -> Option<Accepted> {
    let ssl = store.ex_data(X509StoreContext::ssl_idx().ok()?)?;
    let trust = ssl.ssl_context().ex_data(trust_index().ok()?)?;
    let counterpart = counterpart(ssl)?;
    let chain = store.chain()?;
    let leaf = Fingerprint::of(chain.get(0)?).ok()?;
    // Only functions look at it.
    let chain: Vec<CertificateInfo> = if trust.any(&|part| matches!(part, Trust::Check(_))) {
        chain.iter().map(CertificateInfo::of).collect()
    } else {
        Vec::new()
    };
    let presented = Presented {
        chain: &chain,
        verdict: match verdict {
            X509VerifyResult::OK => Ok(()),
            verdict => Err(verdict.error_string()),
        },
        name: counterpart.name.as_deref(),
        address: counterpart.address,
    };
    let mut first_use = None;
    let judged = trust.judge(&presented, leaf, &mut first_use);
    let mut outcome = counterpart
        .outcome
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    outcome.first_use = first_use;
    match judged {
        Ok(()) if trust.is_anyone() => Some(Accepted::Unproved),
        Ok(()) => Some(Accepted::Yes),
        Err(reason) => {
            outcome.refusal = Some(reason);
            Some(Accepted::No)
        }
    }
}

fn trust_index() -> Result<Index<SslContext, Trust>, ErrorStack> {
    static INDEX: OnceLock<Index<SslContext, Trust>> = OnceLock::new();
    if let Some(index) = INDEX.get() {
        return Ok(*index);
    }
    let index = SslContext::new_ex_index()?;
    Ok(*INDEX.get_or_init(|| index))
}

fn counterpart_index() -> Result<Index<Ssl, Counterpart>, ErrorStack> {
    static INDEX: OnceLock<Index<Ssl, Counterpart>> = OnceLock::new();
    if let Some(index) = INDEX.get() {
        return Ok(*index);
    }
    let index = Ssl::new_ex_index()?;
    Ok(*INDEX.get_or_init(|| index))
}
