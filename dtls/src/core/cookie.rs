//! Cookies of the HelloVerifyRequest (RFC 6347 §4.2.1): proof that a peer receives at the address
//! it claims, kept without any state per peer.
//!
//! A cookie is `key id (1) | Unix time in seconds (4) | first 16 bytes of HMAC-SHA256(key, key id |
//! time | peer | local)`. Keys rotate; the previous one stays good, because a slow client repeats
//! its hello only after 9 s (RFC 7925 §11) and OpenSSL asks again on the worker thread.
//!
//! Where servers share their keys, the local address is left out: a load balancer that rewrites the
//! destination shows each server another one for the same peer. That gives nothing away. What a
//! cookie proves is that the peer receives at *its* address, and that is as true at one server as at
//! the next; sharing the keys means to believe each other's proofs. Alone, a server binds a cookie to
//! the local address too, because that costs nothing: a cookie of one of its addresses is then of no
//! use at another.
//!
//! [`CookieJar`] is shared by all threads of a listener; time is an argument.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, PoisonError};

use hmac::{Hmac, KeyInit, Mac};
use openssl::error::ErrorStack;
use sha2::Sha256;

/// Seconds since 1970, from the caller's clock.
pub(crate) type UnixSeconds = u64;

/// A cookie is good for this long. The longest honest path is a first retransmission after 9 s and
/// a doubling of it, lost once more.
const LIFETIME: UnixSeconds = 60;

/// Two clocks that rotate and verify may differ by this much.
const SKEW: UnixSeconds = 60;

/// No clock finds a cookie good for longer than this after it was issued: shared keys, issued by a clock
/// that is ahead and verified by one that is behind.
pub(crate) const LONGEST_LIFE: UnixSeconds = LIFETIME + 2 * SKEW;

/// A key signs for this long, then verifies for as long again.
const ROTATION: UnixSeconds = 600;

const MAC: usize = 16;

/// Length of a cookie in bytes.
pub(crate) const COOKIE: usize = 1 + 4 + MAC;

/// Issues cookies and verifies them.
#[derive(Debug)]
pub struct CookieJar {
    keys: Mutex<Keys>,
}

#[derive(Debug)]
struct Keys {
    current: Key,
    previous: Option<Key>,
    /// Whether other servers have the same keys: then they change when they are told to, and the
    /// clocks differ.
    shared: bool,
}

#[derive(Debug, Clone)]
struct Key {
    id: u8,
    born: UnixSeconds,
    /// Keyed once and cloned for each cookie: OpenSSL's interface sets up each HMAC anew, which
    /// costs more than the HMAC, three times a handshake.
    hmac: Hmac<Sha256>,
}

impl Key {
    fn random(id: u8, born: UnixSeconds) -> Result<Self, ErrorStack> {
        // One block of SHA-256.
        let mut secret = [0; 64];
        openssl::rand::rand_bytes(&mut secret)?;
        Ok(Self {
            id,
            born,
            hmac: Hmac::new(&secret.into()),
        })
    }

    /// Over everything that a cookie stands for; `local` is `None` where keys are shared.
    fn mac(&self, peer: SocketAddr, local: Option<SocketAddr>, issued: [u8; 4]) -> Hmac<Sha256> {
        let mut mac = self.hmac.clone();
        mac.update(&[self.id]);
        mac.update(&issued);
        mac.update(&address_bytes(peer));
        if let Some(local) = local {
            mac.update(&address_bytes(local));
        }
        mac
    }
}

impl CookieJar {
    /// A jar with a fresh random key.
    ///
    /// # Errors
    /// OpenSSL has no randomness.
    pub fn new(now: UnixSeconds) -> Result<Self, ErrorStack> {
        let current = Key::random(0, now)?;
        Ok(Self {
            keys: Mutex::new(Keys {
                current,
                previous: None,
                shared: false,
            }),
        })
    }

    /// A jar whose keys other servers have too. It issues with `current` and takes cookies of both.
    pub(crate) fn shared(current: (u8, &[u8; 64]), previous: Option<(u8, &[u8; 64])>) -> Self {
        let key = |(id, secret): (u8, &[u8; 64])| Key {
            id,
            born: 0,
            hmac: Hmac::new(secret.into()),
        };
        Self {
            keys: Mutex::new(Keys {
                current: key(current),
                previous: previous.map(key),
                shared: true,
            }),
        }
    }

    /// Whether other servers have the keys too, so that they do not change by themselves.
    pub(crate) fn is_shared(&self) -> bool {
        let keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        keys.shared
    }

    /// Writes the cookie of `peer` at `local` into `cookie` and returns its length. Rotates the
    /// key when it is due, if `now` is the wall clock's and so may say.
    pub(crate) fn issue(
        &self,
        peer: SocketAddr,
        local: SocketAddr,
        now: UnixSeconds,
        may_rotate: bool,
        cookie: &mut [u8],
    ) -> Result<usize, ErrorStack> {
        let (key, local) = {
            let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
            let may_rotate = may_rotate && !keys.shared;
            // Either way: a clock that was ahead and has stepped back must not keep a key.
            if may_rotate && now.abs_diff(keys.current.born) >= ROTATION {
                let next = Key::random(keys.current.id.wrapping_add(1), now)?;
                keys.previous = Some(std::mem::replace(&mut keys.current, next));
            }
            (keys.current.clone(), (!keys.shared).then_some(local))
        };
        let issued = coarse(now).to_be_bytes();
        cookie[0] = key.id;
        cookie[1..5].copy_from_slice(&issued);
        let mac = key.mac(peer, local, issued).finalize().into_bytes();
        cookie[5..COOKIE].copy_from_slice(&mac[..MAC]);
        Ok(COOKIE)
    }

    /// Whether `cookie` was issued to `peer` at `local`, recently and by a key still known.
    pub(crate) fn verify(
        &self,
        peer: SocketAddr,
        local: SocketAddr,
        now: UnixSeconds,
        cookie: &[u8],
    ) -> bool {
        let Ok([id, t0, t1, t2, t3, mac @ ..]) = <[u8; COOKIE]>::try_from(cookie) else {
            return false;
        };
        let time = [t0, t1, t2, t3];
        let issued = u32::from_be_bytes(time);
        let age = coarse(now).wrapping_sub(issued);
        let from_the_future = issued.wrapping_sub(coarse(now));
        let (known, local, lifetime) = {
            let keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
            // Both may have the id: whoever gives out shared secrets chooses it.
            let known = [Some(&keys.current), keys.previous.as_ref()]
                .map(|key| key.filter(|key| key.id == id).cloned());
            // The clock of the server that issued it may have been slow.
            let slow = if keys.shared { SKEW } else { 0 };
            (known, (!keys.shared).then_some(local), LIFETIME + slow)
        };
        if u64::from(age) > lifetime && u64::from(from_the_future) > SKEW {
            return false;
        }
        known.into_iter().flatten().any(|key| {
            key.mac(peer, local, time)
                .verify_truncated_left(&mac)
                .is_ok()
        })
    }
}

/// The low 32 bits; ages are differences, so the wrap in 2106 does no harm.
fn coarse(now: UnixSeconds) -> u32 {
    u32::try_from(now & u64::from(u32::MAX)).unwrap_or(0)
}

/// One form for an IPv4 address whether or not it came through an IPv6 socket.
fn address_bytes(address: SocketAddr) -> [u8; 18] {
    let ip = match address.ip() {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    };
    let mut bytes = [0; 18];
    bytes[..16].copy_from_slice(&ip.octets());
    bytes[16..].copy_from_slice(&address.port().to_be_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: UnixSeconds = 1_800_000_000;

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn issue(jar: &CookieJar, peer: &str, local: &str, now: UnixSeconds) -> [u8; COOKIE] {
        let mut cookie = [0; 255];
        let length = jar
            .issue(address(peer), address(local), now, true, &mut cookie)
            .unwrap();
        cookie[..length].try_into().unwrap()
    }

    fn verify(jar: &CookieJar, peer: &str, local: &str, now: UnixSeconds, cookie: &[u8]) -> bool {
        jar.verify(address(peer), address(local), now, cookie)
    }

    const PEER: &str = "192.0.2.1:4000";
    const LOCAL: &str = "192.0.2.9:4433";

    #[test]
    fn a_cookie_is_good_for_its_peer_and_local_address_only() {
        let jar = CookieJar::new(NOW).unwrap();
        let cookie = issue(&jar, PEER, LOCAL, NOW);
        assert!(verify(&jar, PEER, LOCAL, NOW, &cookie));
        assert!(verify(&jar, "[::ffff:192.0.2.1]:4000", LOCAL, NOW, &cookie));
        for (peer, local) in [
            ("192.0.2.2:4000", LOCAL),
            ("192.0.2.1:4001", LOCAL),
            (PEER, "192.0.2.8:4433"),
            (PEER, "192.0.2.9:4434"),
        ] {
            assert!(!verify(&jar, peer, local, NOW, &cookie), "{peer} {local}");
        }
    }

    #[test]
    fn a_cookie_lives_for_its_lifetime_and_a_skewed_clock_is_forgiven() {
        let jar = CookieJar::new(NOW).unwrap();
        let cookie = issue(&jar, PEER, LOCAL, NOW);
        for (now, good) in [
            (NOW + LIFETIME, true),
            (NOW + LIFETIME + 1, false),
            (NOW - SKEW, true),
            (NOW - SKEW - 1, false),
        ] {
            assert_eq!(
                verify(&jar, PEER, LOCAL, now, &cookie),
                good,
                "{}",
                now - NOW
            );
        }
    }

    #[test]
    fn a_cookie_survives_one_rotation_but_not_two() {
        let jar = CookieJar::new(NOW - ROTATION).unwrap();
        let just_before = NOW - 1;
        let cookie = issue(&jar, PEER, LOCAL, just_before);
        issue(&jar, PEER, LOCAL, NOW);
        assert!(verify(&jar, PEER, LOCAL, just_before + LIFETIME, &cookie));
        issue(&jar, PEER, LOCAL, NOW + ROTATION);
        assert!(!verify(&jar, PEER, LOCAL, just_before + LIFETIME, &cookie));
    }

    #[test]
    fn jars_that_share_keys_take_each_others_cookies_across_a_rotation_and_a_minute_of_skew() {
        let (old, new) = ((1, &[7; 64]), (2, &[8; 64]));
        let [before, between, after] = [
            CookieJar::shared(old, Some(new)),
            CookieJar::shared(new, Some(old)),
            CookieJar::shared(new, None),
        ];
        for (issuing, verifying, good) in [
            (&before, &between, true),
            (&between, &before, true),
            (&between, &after, true),
            (&before, &after, false),
        ] {
            for skew in [0, SKEW] {
                // The issuer's clock is slow, then fast; keys do not change by themselves.
                for (then, now) in [(NOW, NOW + skew + 2), (NOW + skew, NOW)] {
                    let cookie = issue(issuing, PEER, LOCAL, then);
                    assert_eq!(verify(verifying, PEER, LOCAL, now, &cookie), good);
                }
            }
        }
        let cookie = issue(&before, PEER, LOCAL, NOW);
        let late = NOW + LIFETIME + SKEW;
        assert!(verify(&before, PEER, LOCAL, late, &cookie));
        assert!(!verify(&before, PEER, LOCAL, late + 1, &cookie));
    }

    #[test]
    fn jars_that_share_keys_take_each_others_cookies_at_whatever_address_they_have() {
        let [here, there] = [(); 2].map(|()| CookieJar::shared((1, &[7; 64]), None));
        let cookie = issue(&here, PEER, LOCAL, NOW);
        for local in [LOCAL, "192.0.2.8:5684", "[2001:db8::9]:4433"] {
            assert!(verify(&there, PEER, local, NOW, &cookie), "{local}");
        }
        for peer in ["192.0.2.2:4000", "192.0.2.1:4001"] {
            assert!(!verify(&there, peer, LOCAL, NOW, &cookie), "{peer}");
        }
    }

    #[test]
    fn two_secrets_of_one_id_are_told_apart_by_the_cookie() {
        let (old, new) = ((1, &[7; 64]), (1, &[8; 64]));
        let cookie = issue(&CookieJar::shared(old, None), PEER, LOCAL, NOW);
        for (jar, good) in [
            (CookieJar::shared(old, Some(new)), true),
            (CookieJar::shared(new, Some(old)), true),
            (CookieJar::shared(new, None), false),
        ] {
            assert_eq!(verify(&jar, PEER, LOCAL, NOW, &cookie), good);
        }
    }

    #[test]
    fn a_clock_that_steps_back_does_not_stop_rotation() {
        let jar = CookieJar::new(NOW + ROTATION).unwrap();
        for (now, id) in [
            (NOW + ROTATION, 0),
            (NOW + 1, 0),
            (NOW, 1),
            (NOW + ROTATION - 1, 1),
            (NOW + ROTATION, 2),
        ] {
            assert_eq!(issue(&jar, PEER, LOCAL, now)[0], id, "{}", now - NOW);
        }
    }

    #[test]
    fn another_jar_refuses_the_cookie() {
        let cookie = issue(&CookieJar::new(NOW).unwrap(), PEER, LOCAL, NOW);
        assert!(!verify(
            &CookieJar::new(NOW).unwrap(),
            PEER,
            LOCAL,
            NOW,
            &cookie
        ));
    }

    proptest! {
        #[test]
        fn no_changed_cookie_is_good(at in 0..COOKIE, flip in 1..=255_u8, cut in 0..COOKIE) {
            let jar = CookieJar::new(NOW).unwrap();
            let mut cookie = issue(&jar, PEER, LOCAL, NOW);
            prop_assert!(!verify(&jar, PEER, LOCAL, NOW, &cookie[..cut]));
            cookie[at] ^= flip;
            prop_assert!(!verify(&jar, PEER, LOCAL, NOW, &cookie));
        }
    }
}
