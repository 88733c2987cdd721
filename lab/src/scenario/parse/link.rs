//! Links: what single parameters say, and what several of them together can get wrong.

use std::time::Duration;

use toml::Spanned;

use super::super::raw::{RawGeModel, RawLink, RawLinks};
use crate::refusal::{Problem, problem};
use crate::scenario::{Chance, GeModel, Link, Mtu};

/// The links to the server and to the clients.
///
/// # Errors
///
/// A link described twice, or one no network could be.
pub(super) fn links(raw: RawLinks) -> Result<(Link, Link), Problem> {
    if let (Some(both), true) = (
        &raw.both,
        raw.to_server.is_some() || raw.to_client.is_some(),
    ) {
        return problem(
            both.span(),
            "link.both already says all; write link.to_server and link.to_client instead",
        );
    }
    if let Some(both) = raw.both {
        let link = link(both)?;
        return Ok((link.clone(), link));
    }
    let one = |raw: Option<_>| raw.map_or(Ok(Link::default()), link);
    Ok((one(raw.to_server)?, one(raw.to_client)?))
}

/// One link.
///
/// # Errors
///
/// Parameters that contradict each other.
fn link(raw: Spanned<RawLink>) -> Result<Link, Problem> {
    let span = raw.span();
    let raw = raw.into_inner();
    let link = Link {
        delay: raw.delay.0,
        jitter: raw.jitter.0,
        loss: raw.loss.0,
        gemodel: raw.gemodel.map(gemodel),
        duplicate: raw.duplicate.0,
        corrupt: raw.corrupt.0,
        reorder: raw.reorder.0,
        slot: raw.slot.0,
        rate: raw.rate.map(|rate| rate.0),
        limit: raw.limit,
        mtu: raw.mtu.map(|bytes| Mtu {
            bytes: bytes.get(),
            announced: raw.too_big,
        }),
    };
    if link.mtu.is_some_and(|mtu| mtu.bytes < LEAST_MTU) {
        return problem(
            span,
            format!("no link has an `mtu` below {LEAST_MTU} (RFC 791 §3.2)"),
        );
    }
    if raw.too_big && link.mtu.is_none() {
        return problem(span, "`too_big` announces the link's `mtu`; name that, too");
    }
    if link.gemodel.is_some() && !link.loss.is_never() {
        return problem(
            span,
            "`loss` and `gemodel` are two models of loss; leave one of them out",
        );
    }
    if link.gemodel.is_some_and(|model| model.never_loses()) {
        return problem(
            span,
            "this `gemodel` never loses anything; raise `p` with `1-h`, or `1-k`",
        );
    }
    if link.limit.is_some() && link.delay.is_zero() && link.rate.is_none() {
        return problem(
            span,
            "nothing waits on this link, so its `limit` is never reached; set a `rate` or a `delay`",
        );
    }
    if link.jitter > link.delay {
        return problem(
            span,
            "`jitter` exceeds `delay`; no datagram arrives before it is sent",
        );
    }
    if !link.reorder.is_never() && link.delay == Duration::ZERO {
        return problem(
            span,
            "`reorder` lets datagrams overtake those that wait for the delay; set a `delay`",
        );
    }
    Ok(link)
}

/// With tc-netem's defaults where nothing is said.
fn gemodel(raw: RawGeModel) -> GeModel {
    GeModel {
        p: raw.p.0,
        r: raw.r.map_or_else(|| raw.p.0.opposite(), |r| r.0),
        loss_in_bad: raw.loss_in_bad.map_or(Chance::ALWAYS, |loss| loss.0),
        loss_in_good: raw.loss_in_good.0,
    }
}

/// The fewest bytes every IPv4 link carries whole (RFC 791 §3.2).
const LEAST_MTU: u16 = 68;
