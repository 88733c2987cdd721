//! Selectors: which conditions a datagram can meet together, and the direction they imply.

use std::ops::Range;

use super::super::raw::RawSelector;
use crate::packet::Direction;
use crate::record::{ContentType, MessageType};
use crate::refusal::{Problem, problem};
use crate::scenario::Selector;

/// A selector that can match, its direction filled in where the rest tells it.
///
/// # Errors
///
/// Conditions no datagram meets together.
pub(super) fn selector(raw: RawSelector, span: Range<usize>) -> Result<Selector, Problem> {
    let flights: Vec<u8> = raw
        .flight
        .into_iter()
        .flat_map(|of| of.0)
        .map(|of| of.0)
        .collect();
    let message = raw.message.map(|message| message.0);
    let content_type = raw.content_type.map(ContentType::from);
    let epoch = raw.epoch.map(|epoch| epoch.0);
    let direction = agreed_direction(raw.direction, &flights, message, span.clone())?;
    if let Some(message) = message {
        let of = flights_of(message);
        if !flights.is_empty() && !flights.iter().any(|flight| of.contains(flight)) {
            return problem(
                span,
                format!("no such flight carries {message}, only {of:?}; change one of the two"),
            );
        }
        let encrypted = message == MessageType::Finished;
        if epoch.is_some_and(|epoch| (epoch == 1) != encrypted) {
            return problem(
                span,
                format!(
                    "{message} travels in epoch {}; change `epoch` or leave it out",
                    u8::from(encrypted)
                ),
            );
        }
        if content_type.is_some_and(|wanted| wanted != ContentType::Handshake) {
            return problem(
                span,
                format!("{message} travels in handshake records; leave `content_type` out"),
            );
        }
    }
    let chance = raw.chance.map(|chance| chance.0);
    if chance.is_some_and(|chance| chance.is_never()) {
        return problem(span, "a chance of 0% selects nothing; leave the rule out");
    }
    Ok(Selector {
        direction,
        flights,
        transmissions: raw
            .transmission
            .into_iter()
            .flat_map(|of| of.0)
            .map(Into::into)
            .collect(),
        resumed: raw.resumed,
        datagram: raw.datagram.map(|position| position.0),
        ordinal: raw.ordinal.map(Into::into),
        every: raw.every.map(Into::into),
        message,
        epoch: epoch.map(Into::into),
        content_type,
        chance,
    })
}

/// The one direction that the key, the flights and the message speak of; `None` when all of
/// them leave it open.
///
/// # Errors
///
/// Two of them that disagree.
fn agreed_direction(
    said: Option<Direction>,
    flights: &[u8],
    message: Option<MessageType>,
    span: Range<usize>,
) -> Result<Option<Direction>, Problem> {
    let sender = flights.first().map(|flight| sender_of_flight(*flight));
    let mixed = flights
        .iter()
        .any(|flight| Some(sender_of_flight(*flight)) != sender);
    if mixed && said.is_some() {
        return problem(
            span,
            "`flight` names flights of both directions; leave `direction` or some of them out",
        );
    }
    let of_flight = match sender {
        Some(by) if !mixed => Some((by, format!("flight {}", flights[0]))),
        _ => None,
    };
    let of_message = message.and_then(|message| Some((sender_of(message)?, message.to_string())));
    let mut agreed = said;
    for (by, what) in of_flight.into_iter().chain(of_message) {
        if agreed.is_some_and(|agreed| agreed != by) {
            return problem(
                span,
                format!(
                    "{what} goes {by} and never {}; change one of the two",
                    by.reversed()
                ),
            );
        }
        agreed = Some(by);
    }
    Ok(agreed)
}

/// Odd flights are the client's (RFC 6347, figure 1).
fn sender_of_flight(flight: u8) -> Direction {
    if flight % 2 == 1 {
        Direction::ToServer
    } else {
        Direction::ToClient
    }
}

/// Which way a message goes; `None` for those both sides send.
fn sender_of(message: MessageType) -> Option<Direction> {
    match message {
        MessageType::ClientHello
        | MessageType::ClientKeyExchange
        | MessageType::CertificateVerify => Some(Direction::ToServer),
        MessageType::HelloRequest
        | MessageType::ServerHello
        | MessageType::HelloVerifyRequest
        | MessageType::NewSessionTicket
        | MessageType::ServerKeyExchange
        | MessageType::CertificateRequest
        | MessageType::ServerHelloDone
        | MessageType::CertificateStatus => Some(Direction::ToClient),
        MessageType::Certificate | MessageType::Finished | MessageType::Other(_) => None,
    }
}

/// The flights a message can be part of, full and resumed handshakes together.
fn flights_of(message: MessageType) -> &'static [u8] {
    match message {
        MessageType::ClientHello => &[1, 3],
        MessageType::HelloVerifyRequest => &[2],
        MessageType::ServerHello
        | MessageType::ServerKeyExchange
        | MessageType::CertificateRequest
        | MessageType::ServerHelloDone
        | MessageType::CertificateStatus => &[4],
        MessageType::Certificate => &[4, 5],
        MessageType::ClientKeyExchange | MessageType::CertificateVerify => &[5],
        MessageType::NewSessionTicket => &[4, 6],
        MessageType::Finished => &[4, 5, 6],
        MessageType::HelloRequest | MessageType::Other(_) => &[],
    }
}
