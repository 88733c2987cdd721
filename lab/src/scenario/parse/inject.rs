//! Injects: what sets an attacker off, and what it sends.

use toml::Spanned;

use super::super::raw::RawInject;
use super::change::trigger;
use super::selector::selector;
use crate::icmp;
use crate::refusal::{Problem, did_you_mean, problem};
use crate::scenario::{Attacker, Family, Icmp, Inject, Payload};

/// One inject.
///
/// # Errors
///
/// Not exactly one trigger and one payload, or parameters of another payload.
pub(super) fn inject(
    raw: Spanned<RawInject>,
    families: &[Family],
    attacker: Option<Attacker>,
) -> Result<Inject, Problem> {
    let span = raw.span();
    let raw = raw.into_inner();
    let trigger = trigger("an inject", raw.when, raw.after, span.clone())?;
    let mtu = raw.mtu.map(|mtu| u32::from(mtu.get()));
    let payload = match (raw.icmp, raw.datagram, raw.replay) {
        (Some(name), None, None) => {
            let kinds = icmp_kinds(&name, families)?;
            let announces = kinds.iter().any(|kind| kind.name == icmp::PACKET_TOO_BIG);
            if mtu.is_some() && !announces {
                return problem(
                    span,
                    "only icmp = \"packet-too-big\" or \"all\" carries an `mtu`",
                );
            }
            Payload::Icmp(Icmp {
                kinds,
                mtu: mtu.unwrap_or(USUAL_MTU),
            })
        }
        (None, Some(_), None) | (None, None, Some(_)) if mtu.is_some() => {
            return problem(span, "`mtu` belongs to icmp = \"packet-too-big\"");
        }
        (None, Some(datagram), None) => Payload::Datagrams(datagram.into()),
        (None, None, Some(what)) => {
            let place = what.span();
            let select = selector(what.into_inner(), place.clone())?;
            let to = raw.to.into();
            if select.direction.is_some_and(|direction| direction != to) {
                return problem(
                    place,
                    "these datagrams go the other way; change `to`, or what is replayed",
                );
            }
            if !may_observe(attacker) {
                return problem(
                    place,
                    "only an attacker who sees the datagrams can replay one: write attacker = \"on-path-observer\"",
                );
            }
            Payload::Replay(select)
        }
        _ => {
            return problem(
                span,
                "an inject sends one thing: `icmp`, `datagram` or `replay`",
            );
        }
    };
    if raw.flip_cookie && !matches!(&payload, Payload::Replay(what) if what.flights == [3]) {
        return problem(
            span,
            "`flip_cookie` is about the hello with the cookie: write replay = { flight = 3 }",
        );
    }
    Ok(Inject {
        trigger,
        flip_cookie: raw.flip_cookie,
        to: raw.to.into(),
        payload,
        repeat: raw.repeat.into(),
        delay: raw.delay.0,
        spacing: raw.spacing.0,
        times: raw.times.into(),
    })
}

fn may_observe(attacker: Option<Attacker>) -> bool {
    matches!(
        attacker,
        Some(Attacker::OnPathObserver | Attacker::OnPathFull)
    )
}

/// The smallest MTU every link has under IPv6 (RFC 8200 §5), and a plausible one under IPv4.
const USUAL_MTU: u32 = 1280;

/// The kinds that `all`, a name or `type/code` means in these families.
///
/// # Errors
///
/// A kind that one of the families lacks, or numbers that mean two things.
fn icmp_kinds(
    wanted: &Spanned<String>,
    families: &[Family],
) -> Result<Vec<&'static icmp::Kind>, Problem> {
    let name = wanted.get_ref();
    if name == "all" {
        return Ok(families
            .iter()
            .flat_map(|family| icmp::kinds_of(*family))
            .collect());
    }
    let numbers = name
        .split_once('/')
        .and_then(|(kind, code)| Some((kind.parse::<u8>().ok()?, code.parse::<u8>().ok()?)));
    if numbers.is_some() && families.len() > 1 {
        return problem(
            wanted.span(),
            format!(
                "{name} means different errors in ICMP and ICMPv6; write families = [\"ipv4\"] or \
                 [\"ipv6\"], or the error's name"
            ),
        );
    }
    let mut kinds = Vec::new();
    for family in families {
        let found = icmp::kinds_of(*family).find(|kind| match numbers {
            Some(numbers) => (kind.icmp_type, kind.code) == numbers,
            None => kind.name == name,
        });
        let Some(kind) = found else {
            let valid: Vec<&str> = icmp::kinds_of(*family).map(|kind| kind.name).collect();
            return problem(
                wanted.span(),
                format!(
                    "{family} has no ICMP error `{name}`{}; valid here: all, {}",
                    did_you_mean(name, valid.iter().copied()),
                    valid.join(", ")
                ),
            );
        };
        kinds.push(kind);
    }
    Ok(kinds)
}
