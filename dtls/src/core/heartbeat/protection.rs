//! Record protection of heartbeats: the session's own keys and AEAD, as OpenSSL uses them for data.
//!
//! Key block: RFC 5246 §6.3. Additional data: §6.2.3.3. Nonces: AES-GCM RFC 5288 §3 and AES-CCM
//! RFC 6655 §3 (four fixed bytes, eight explicit ones in the record), ChaCha20-Poly1305 RFC 7905 §2
//! (twelve fixed bytes XOR epoch and record number). In all three a nonce belongs to one record, so
//! taking over a record's nonce is sound wherever taking over its number is. CBC suites are not
//! offered and have no heartbeats. Runs on the thread that owns the connection.

use std::fmt;

use openssl::cipher::{Cipher, CipherRef};
use openssl::cipher_ctx::CipherCtx;
use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::PKey;
use openssl::sign::Signer;
use openssl::ssl::{SslCipherRef, SslRef};
use zeroize::Zeroizing;

use crate::core::record::{APPLICATION_DATA, HEARTBEAT, RECORD_HEADER, Record};

/// A record number and nonce that OpenSSL has used up on a record that does not leave.
///
/// Holds nothing of what was sealed. Not to be copied: sealing consumes it.
#[derive(Debug)]
pub(crate) struct Placeholder {
    header: [u8; RECORD_HEADER],
    explicit_nonce: [u8; EXPLICIT_NONCE],
}

impl Placeholder {
    /// Takes the header of a withheld record, and the first bytes of its body as far as they are
    /// the explicit nonce.
    pub(crate) fn of(record: &Record<'_>, suite: Suite) -> Option<Self> {
        let ours = record.content_type == APPLICATION_DATA && record.epoch == DATA_EPOCH;
        if !ours {
            return None;
        }
        let mut explicit_nonce = [0; EXPLICIT_NONCE];
        let length = suite.explicit_nonce();
        explicit_nonce[..length].copy_from_slice(record.body.get(..length)?);
        Some(Self {
            header: *record.bytes.first_chunk()?,
            explicit_nonce,
        })
    }
}

/// The one epoch with keys: renegotiation is refused.
const DATA_EPOCH: u16 = 1;

const EXPLICIT_NONCE: usize = 8;
const NONCE: usize = 12;
const LONGEST_KEY: usize = 32;

/// What a heartbeat needs to know about a cipher suite.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Suite {
    aead: Aead,
    key: usize,
    tag: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Aead {
    Gcm,
    Ccm,
    ChaCha20Poly1305,
}

impl Suite {
    #[cfg(test)]
    pub(crate) const AES_128_GCM: Self = Self {
        aead: Aead::Gcm,
        key: 16,
        tag: 16,
    };

    fn of(cipher: &SslCipherRef) -> Option<Self> {
        let (aead, key) = match cipher.cipher_nid()? {
            Nid::AES_128_GCM => (Aead::Gcm, 16),
            Nid::AES_256_GCM => (Aead::Gcm, 32),
            Nid::AES_128_CCM => (Aead::Ccm, 16),
            Nid::AES_256_CCM => (Aead::Ccm, 32),
            Nid::CHACHA20_POLY1305 => (Aead::ChaCha20Poly1305, 32),
            _ => return None,
        };
        // RFC 6655 §4: the same cipher, with an 8-byte tag.
        let tag = if cipher.name().ends_with("CCM8") {
            8
        } else {
            16
        };
        Some(Self { aead, key, tag })
    }

    fn cipher(self) -> &'static CipherRef {
        match (self.aead, self.key) {
            (Aead::Gcm, 16) => Cipher::aes_128_gcm(),
            (Aead::Gcm, _) => Cipher::aes_256_gcm(),
            (Aead::Ccm, 16) => Cipher::aes_128_ccm(),
            (Aead::Ccm, _) => Cipher::aes_256_ccm(),
            (Aead::ChaCha20Poly1305, _) => Cipher::chacha20_poly1305(),
        }
    }

    /// Ciphertext and tag.
    fn seal(
        self,
        key: &[u8],
        nonce: &[u8; NONCE],
        data: &[u8],
        plaintext: &[u8],
    ) -> Result<Vec<u8>, ErrorStack> {
        let mut context = CipherCtx::new()?;
        context.encrypt_init(Some(self.cipher()), None, None)?;
        if self.aead == Aead::Ccm {
            // Before the key, which is expanded for both lengths.
            context.set_iv_length(NONCE)?;
            context.set_tag_length(self.tag)?;
        }
        context.encrypt_init(None, Some(key), Some(nonce))?;
        if self.aead == Aead::Ccm {
            context.set_data_len(plaintext.len())?;
        }
        context.cipher_update(data, None)?;
        let mut sealed = vec![0; plaintext.len() + self.tag];
        let (ciphertext, tag) = sealed.split_at_mut(plaintext.len());
        context.cipher_update(plaintext, Some(ciphertext))?;
        context.cipher_final(&mut [])?;
        context.tag(tag)?;
        Ok(sealed)
    }

    /// The plaintext of ciphertext and tag, at least a tag long.
    fn open(
        self,
        key: &[u8],
        nonce: &[u8; NONCE],
        data: &[u8],
        sealed: &[u8],
    ) -> Result<Vec<u8>, ErrorStack> {
        let (ciphertext, tag) = sealed.split_at(sealed.len() - self.tag);
        let mut context = CipherCtx::new()?;
        context.decrypt_init(Some(self.cipher()), None, None)?;
        if self.aead == Aead::Ccm {
            context.set_iv_length(NONCE)?;
            context.set_tag(tag)?;
        }
        context.decrypt_init(None, Some(key), Some(nonce))?;
        if self.aead == Aead::Ccm {
            context.set_data_len(ciphertext.len())?;
        } else {
            context.set_tag(tag)?;
        }
        context.cipher_update(data, None)?;
        let mut plaintext = vec![0; ciphertext.len()];
        // CCM checks the tag here, the others at the end.
        context.cipher_update(ciphertext, Some(&mut plaintext))?;
        context.cipher_final(&mut [])?;
        Ok(plaintext)
    }

    /// Bytes of the nonce that travel in the record.
    fn explicit_nonce(self) -> usize {
        match self.aead {
            Aead::Gcm | Aead::Ccm => EXPLICIT_NONCE,
            Aead::ChaCha20Poly1305 => 0,
        }
    }

    /// Bytes of the nonce that come from the key block.
    fn fixed_nonce(self) -> usize {
        NONCE - self.explicit_nonce()
    }

    /// What a protected record is longer than its plaintext.
    pub(crate) fn overhead(self) -> usize {
        self.explicit_nonce() + self.tag
    }
}

/// Both directions' keys; wiped when dropped.
pub(crate) struct Protection {
    suite: Suite,
    write: Keys,
    read: Keys,
}

/// On the heap, so that moving them leaves no copies behind.
struct Keys {
    key: Zeroizing<Vec<u8>>,
    fixed_nonce: Zeroizing<Vec<u8>>,
}

impl fmt::Debug for Protection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Protection")
            .field("suite", &self.suite)
            .finish_non_exhaustive()
    }
}

impl Protection {
    /// The keys of an established connection; `None` for a suite that is no AEAD.
    ///
    /// # Errors
    /// OpenSSL is out of memory.
    pub(crate) fn of(ssl: &SslRef) -> Result<Option<Self>, ErrorStack> {
        let (Some(cipher), Some(session)) = (ssl.current_cipher(), ssl.session()) else {
            return Ok(None);
        };
        let (Some(suite), Some(digest)) = (Suite::of(cipher), cipher.handshake_digest()) else {
            return Ok(None);
        };
        // With an extended master secret (RFC 7627) this already is the extended one.
        let mut master = Zeroizing::new([0; 48]);
        if session.master_key(&mut *master) != master.len() {
            return Ok(None);
        }
        let mut randoms = [0; 64];
        let (server, client) = randoms.split_at_mut(32);
        ssl.server_random(server);
        ssl.client_random(client);
        let mut block = Zeroizing::new([0; 2 * (LONGEST_KEY + NONCE)]);
        let length = 2 * (suite.key + suite.fixed_nonce());
        let block = &mut block[..length];
        prf(digest, &*master, b"key expansion", &randoms, block)?;
        let (keys, nonces) = block.split_at(2 * suite.key);
        let (client_key, server_key) = keys.split_at(suite.key);
        let (client_nonce, server_nonce) = nonces.split_at(suite.fixed_nonce());
        let client = Keys::new(client_key, client_nonce);
        let server = Keys::new(server_key, server_nonce);
        let (write, read) = if ssl.is_server() {
            (server, client)
        } else {
            (client, server)
        };
        Ok(Some(Self { suite, write, read }))
    }

    /// The suite, for [`Placeholder::of`].
    pub(crate) fn suite(&self) -> Suite {
        self.suite
    }

    /// A heartbeat record under the number and nonce of a placeholder, which nothing else can use.
    ///
    /// # Errors
    /// OpenSSL is out of memory; the number is lost, as if its record had been.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "one placeholder seals one record"
    )]
    pub(crate) fn seal(
        &self,
        placeholder: Placeholder,
        plaintext: &[u8],
    ) -> Result<Vec<u8>, ErrorStack> {
        let Placeholder {
            mut header,
            explicit_nonce,
        } = placeholder;
        header[0] = HEARTBEAT;
        let explicit = &explicit_nonce[..self.suite.explicit_nonce()];
        let nonce = self.write.nonce(self.suite, &header, explicit);
        let data = additional_data(&header, plaintext.len());
        let sealed = self.suite.seal(&self.write.key, &nonce, &data, plaintext)?;
        let body = u16::try_from(plaintext.len() + self.suite.overhead()).unwrap_or(u16::MAX);
        header[11..].copy_from_slice(&body.to_be_bytes());
        Ok([&header, explicit, &sealed].concat())
    }

    /// The plaintext of a record, or `None` if the peer did not seal it.
    pub(crate) fn open(&self, record: &Record<'_>) -> Option<Vec<u8>> {
        let header: &[u8; RECORD_HEADER] = record.bytes.first_chunk()?;
        let (explicit, rest) = record.body.split_at_checked(self.suite.explicit_nonce())?;
        // No message is empty; what a cipher makes of nothing need not be relied on.
        let plaintext = rest.len().checked_sub(self.suite.tag).filter(|&n| n > 0)?;
        let nonce = self.read.nonce(self.suite, header, explicit);
        let data = additional_data(header, plaintext);
        self.suite.open(&self.read.key, &nonce, &data, rest).ok()
    }
}

impl Keys {
    fn new(key: &[u8], fixed_nonce: &[u8]) -> Self {
        Self {
            key: Zeroizing::new(key.to_vec()),
            fixed_nonce: Zeroizing::new(fixed_nonce.to_vec()),
        }
    }

    fn nonce(&self, suite: Suite, header: &[u8; RECORD_HEADER], explicit: &[u8]) -> [u8; NONCE] {
        let mut nonce = [0; NONCE];
        nonce[..self.fixed_nonce.len()].copy_from_slice(&self.fixed_nonce);
        match suite.aead {
            Aead::Gcm | Aead::Ccm => nonce[4..].copy_from_slice(explicit),
            Aead::ChaCha20Poly1305 => {
                for (byte, number) in nonce[4..].iter_mut().zip(&header[3..11]) {
                    *byte ^= number;
                }
            }
        }
        nonce
    }
}

/// Epoch and record number, type, version, length of the plaintext.
fn additional_data(header: &[u8; RECORD_HEADER], plaintext: usize) -> [u8; 13] {
    let mut data = [0; 13];
    data[..8].copy_from_slice(&header[3..11]);
    data[8..11].copy_from_slice(&header[..3]);
    let length = u16::try_from(plaintext).unwrap_or(u16::MAX);
    data[11..].copy_from_slice(&length.to_be_bytes());
    data
}

/// The pseudorandom function of TLS 1.2 (RFC 5246 §5) fills `out`.
fn prf(
    digest: MessageDigest,
    secret: &[u8],
    label: &[u8],
    seed: &[u8],
    out: &mut [u8],
) -> Result<(), ErrorStack> {
    let secret = PKey::hmac(secret)?;
    let hmac = |parts: &[&[u8]]| -> Result<Zeroizing<Vec<u8>>, ErrorStack> {
        let mut signer = Signer::new(digest, &secret)?;
        for part in parts {
            signer.update(part)?;
        }
        signer.sign_to_vec().map(Zeroizing::new)
    };
    let mut a = hmac(&[label, seed])?;
    for chunk in out.chunks_mut(digest.size()) {
        let block = hmac(&[a.as_slice(), label, seed])?;
        chunk.copy_from_slice(&block[..chunk.len()]);
        a = hmac(&[a.as_slice()])?;
    }
    Ok(())
}
