//! Who may connect: certificates, pre-shared keys, and the allow list that narrows both. Files are
//! read on the main thread, keys looked up on the worker threads.

use std::sync::Arc;

use dtls::{PskKey, Trust, TrustAnchors};
use sha2::{Digest as _, Sha256};

use super::allow::AllowList;
use super::listener::{Mistake, Problem};
use super::options::ListenerOptions;
use super::psk_file::PskFile;
use super::values::ClientAuth;
use crate::stats::{Counter, Stats};

/// Who may connect to a listener.
pub(super) struct Clients {
    pub(super) auth: ClientAuth,
    pub(super) trust: dtls::ClientAuth,
    pub(super) keys: Option<Arc<Keys>>,
    /// Changes with whatever may end a pre-shared key's right to connect.
    pub(super) session_scope: Vec<u8>,
}

/// Pre-shared keys of those who may connect.
#[derive(Debug)]
pub(super) struct Keys {
    file: PskFile,
    allow: Option<Arc<AllowList>>,
    stats: Arc<Stats>,
}

impl Keys {
    /// How many clients have a key.
    pub(super) fn len(&self) -> usize {
        self.file.len()
    }

    /// The key of an identity. Refusals are counted.
    pub(super) fn find(&self, identity: &[u8]) -> Option<PskKey> {
        // Both are looked at in any case: a stranger must not learn from the time it takes which
        // identities exist.
        let key = self.file.find(identity);
        let allowed = self
            .allow
            .as_ref()
            .is_none_or(|list| list.has_psk(identity));
        match (key, allowed) {
            (Some(key), true) => Some(key),
            (Some(_), false) => {
                self.stats.count(Counter::RefusedPskNotAllowed);
                None
            }
            (None, _) => {
                self.stats.count(Counter::RefusedPskUnknown);
                None
            }
        }
    }
}

impl Clients {
    /// Reads every file that says who may connect.
    ///
    /// # Errors
    /// A file that is wrong, or settings that contradict each other.
    pub(super) fn read(options: &ListenerOptions, stats: &Arc<Stats>) -> Result<Self, Mistake> {
        let file = psk(options)?;
        let allow = allow_list(options)?.map(Arc::new);
        let (auth, trust) = client_auth(options, file.is_some(), allow.is_some())?;
        let trust = match (trust, &allow) {
            (Some(trust), Some(list)) => Some(list.narrow(trust, stats)),
            (trust, _) => trust,
        };
        let nobody = || Trust::Pins(Vec::new());
        let mut scope = Sha256::new();
        if let Some(file) = &file {
            scope.update(file.digest());
            scope.update(
                allow
                    .as_ref()
                    .map_or_else(String::new, |list| list.digest()),
            );
        }
        Ok(Self {
            auth,
            trust: match auth {
                ClientAuth::Off => dtls::ClientAuth::Off,
                ClientAuth::Optional => dtls::ClientAuth::Optional(trust.unwrap_or_else(nobody)),
                // Without a trust, a pre-shared key is the only proof, and no certificate is good.
                ClientAuth::Required => dtls::ClientAuth::Required(trust.unwrap_or_else(nobody)),
            },
            keys: file.map(|file| {
                Arc::new(Keys {
                    file,
                    allow,
                    stats: Arc::clone(stats),
                })
            }),
            session_scope: scope.finalize().to_vec(),
        })
    }
}

/// The allow list, if there is one.
fn allow_list(options: &ListenerOptions) -> Result<Option<AllowList>, Mistake> {
    let (given, file) = (options.allow.as_deref(), options.allow_file.as_deref());
    if given.is_none() && file.is_none() {
        return Ok(None);
    }
    AllowList::read(given.unwrap_or_default(), file)
        .map(Some)
        .map_err(|error| Problem::Allow(error).of("allow-file"))
}

/// Whether certificates are asked of clients, and which are good.
fn client_auth(
    options: &ListenerOptions,
    psk: bool,
    allow: bool,
) -> Result<(ClientAuth, Option<Trust>), Mistake> {
    let trust = trust(options)?;
    let auth = match (options.client_auth, &trust) {
        (Some(ClientAuth::Off), Some(_)) => {
            return Err(Problem::TrustUnused.of(if options.client_ca.is_some() {
                "client-ca"
            } else {
                "client-pin"
            }));
        }
        (Some(ClientAuth::Optional), None) => {
            return Err(Problem::TrustInNobody.of("client-auth"));
        }
        (Some(ClientAuth::Required), None) if !psk => {
            return Err(Problem::TrustInNobody.of("client-auth"));
        }
        (Some(auth), _) => auth,
        (None, Some(_)) => ClientAuth::Required,
        // Nobody may come in without being on the list.
        (None, None) if allow && psk => ClientAuth::Required,
        (None, None) => ClientAuth::Off,
    };
    if allow && auth != ClientAuth::Required {
        let key = if options.allow.is_some() {
            "allow"
        } else {
            "allow-file"
        };
        return Err(match auth {
            ClientAuth::Off if !psk => Problem::AllowWithoutProof,
            _ => Problem::AllowOptional,
        }
        .of(key));
    }
    Ok((auth, trust))
}

/// Which certificates of clients are good, as far as something is said of it.
fn trust(options: &ListenerOptions) -> Result<Option<Trust>, Mistake> {
    let mut trust = None;
    if let Some(ca) = &options.client_ca {
        let bad = |key, source, remedy| Problem::File { source, remedy }.of(key);
        let mut anchors = TrustAnchors::from_file(ca).map_err(|source| {
            bad(
                "client-ca",
                source,
                "give the authorities' certificates in PEM form",
            )
        })?;
        if let Some(crl) = &options.client_crl {
            anchors = anchors.crl_file(crl).map_err(|source| {
                bad(
                    "client-crl",
                    source,
                    "give the authorities' revocation lists in PEM form",
                )
            })?;
        }
        trust = Some(Trust::Anchors(anchors));
    } else if options.client_crl.is_some() {
        return Err(Problem::CrlWithoutCa.of("client-crl"));
    }
    if let Some(pins) = &options.client_pin {
        let pins = Trust::Pins(pins.iter().map(|pin| pin.0).collect());
        trust = Some(match trust {
            Some(anchors) => anchors.or(pins),
            None => pins,
        });
    }
    Ok(trust)
}

/// The pre-shared keys, if clients may have some.
fn psk(options: &ListenerOptions) -> Result<Option<PskFile>, Mistake> {
    let Some(path) = &options.psk_file else {
        return match options.psk_hint {
            Some(_) => Err(Problem::HintWithoutPsk.of("psk-hint")),
            None => Ok(None),
        };
    };
    let keys = PskFile::read(path).map_err(|error| Problem::Psk(error).of("psk-file"))?;
    Ok(Some(keys))
}
