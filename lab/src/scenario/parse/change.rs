//! What sets something off, and what the network then does: blackholes and rebindings.

use std::ops::Range;
use std::time::Duration;

use toml::Spanned;

use super::super::raw::{RawBlackhole, RawRebind, RawSelector, When};
use super::selector::selector;
use crate::refusal::{Problem, problem};
use crate::scenario::{Blackhole, Rebind, Trigger};

/// The one trigger of a section named `what`.
///
/// # Errors
///
/// None, or two.
pub(super) fn trigger(
    what: &str,
    when: Option<When>,
    after: Option<Spanned<RawSelector>>,
    span: Range<usize>,
) -> Result<Trigger, Problem> {
    match (when, after) {
        (Some(_), None) => Ok(Trigger::Established),
        (None, Some(after)) => {
            let span = after.span();
            Ok(Trigger::After(selector(after.into_inner(), span)?))
        }
        _ => problem(
            span,
            format!("{what} needs one trigger: when = \"established\" or after = {{ flight = … }}"),
        ),
    }
}

/// One blackhole.
///
/// # Errors
///
/// One that swallows nothing, or several that are one.
pub(super) fn blackhole(raw: Spanned<RawBlackhole>) -> Result<Blackhole, Problem> {
    let span = raw.span();
    let raw = raw.into_inner();
    let trigger = trigger("a blackhole", raw.when, raw.after, span.clone())?;
    let (lasts, repeat) = (raw.lasts.0, raw.repeat.get());
    if lasts.is_zero() {
        return problem(span, "a blackhole that `lasts` no time swallows nothing");
    }
    if repeat > MOST_HOLES {
        return problem(span, format!("`repeat` is at most {MOST_HOLES}"));
    }
    let spacing = match (raw.spacing, repeat) {
        (None, 1) => Duration::ZERO,
        (Some(_), 1) => {
            return problem(
                span,
                "`spacing` lies between blackholes that come again; write repeat = 2 or more",
            );
        }
        (Some(spacing), _) if spacing.0 > lasts => spacing.0,
        _ => {
            return problem(
                span,
                "blackholes that come again need a `spacing`, from one beginning to the next, above \
                 what each `lasts`",
            );
        }
    };
    Ok(Blackhole {
        trigger,
        direction: raw.direction,
        delay: raw.delay.0,
        lasts,
        repeat,
        spacing,
    })
}

/// Each datagram looks at all of them.
const MOST_HOLES: u32 = 1000;

/// One rebinding.
///
/// # Errors
///
/// Not exactly one trigger.
pub(super) fn rebind(raw: Spanned<RawRebind>) -> Result<Rebind, Problem> {
    let span = raw.span();
    let raw = raw.into_inner();
    Ok(Rebind {
        trigger: trigger("a rebind", raw.when, raw.after, span)?,
        what: raw.what.into(),
    })
}
