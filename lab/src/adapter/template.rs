//! Words of a command with placeholders such as `{port}` in them.

use std::ffi::{OsStr, OsString};
use std::ops::Range;

use strum::{EnumString, IntoStaticStr, VariantNames};

/// What a placeholder stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, EnumString, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "snake_case")]
pub enum Slot {
    /// `server` or `client`.
    Role,
    /// The server's address and port, an IPv6 address in brackets.
    Address,
    /// The server's address alone, without brackets.
    Host,
    /// The server's port.
    Port,
    /// The port below it, for programs that put DTLS one above the port they are told.
    PortBelow,
    /// `ipv4` or `ipv6`.
    Family,
    /// `4` or `6`.
    Ip,
    /// A name that stands in the server's certificate.
    Name,
    /// The server's certificate with the authorities between it and the root.
    Cert,
    /// Those authorities alone.
    Chain,
    /// The server's private key.
    Key,
    /// The root that signs for it.
    Ca,
    /// Bytes of the longest datagram that the link carries.
    Mtu,
    /// Bytes of the longest IP packet that the link carries.
    LinkMtu,
    /// Where the end's TLS secrets go.
    Keylog,
    /// A folder for what else it wants to write.
    Evidence,
    /// The scenario's name.
    Scenario,
    /// What the end has to do: `echo`, `resume` or `many`.
    Task,
    /// How many clients there are.
    Clients,
    /// How many of them at the same time.
    AtOnce,
}

/// A word with placeholders.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template(Vec<Piece>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(String),
    Slot(Slot),
}

/// What is wrong with a template.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// No placeholder has this name.
    Unknown(String),
    /// A brace that belongs to none.
    LoneBrace,
}

impl Template {
    /// Reads a word; `{{` and `}}` stand for braces.
    ///
    /// # Errors
    ///
    /// Where the first mistake lies in the word, and what it is.
    pub(super) fn parse(word: &str) -> Result<Self, (Range<usize>, Fault)> {
        let mut pieces = Vec::new();
        let mut text = String::new();
        let mut at = 0;
        while let Some(brace) = word[at..].find(['{', '}']).map(|found| at + found) {
            text += &word[at..brace];
            let rest = &word[brace..];
            if let Some(doubled) = ["{{", "}}"].iter().find(|pair| rest.starts_with(**pair)) {
                text += &doubled[..1];
                at = brace + 2;
                continue;
            }
            let Some(end) = rest.find('}').filter(|end| *end > 0) else {
                return Err((brace..brace + 1, Fault::LoneBrace));
            };
            let name = &rest[1..end];
            let slot = name
                .parse()
                .map_err(|_| (brace..brace + end + 1, Fault::Unknown(name.to_owned())))?;
            if !text.is_empty() {
                pieces.push(Piece::Text(std::mem::take(&mut text)));
            }
            pieces.push(Piece::Slot(slot));
            at = brace + end + 1;
        }
        text += &word[at..];
        if !text.is_empty() || pieces.is_empty() {
            pieces.push(Piece::Text(text));
        }
        Ok(Self(pieces))
    }

    /// The word with each placeholder replaced.
    pub fn fill(&self, value: &dyn Fn(Slot) -> OsString) -> OsString {
        let mut word = OsString::new();
        for piece in &self.0 {
            match piece {
                Piece::Text(text) => word.push(OsStr::new(text)),
                Piece::Slot(slot) => word.push(value(*slot)),
            }
        }
        word
    }

    /// The word itself where it holds no placeholder.
    pub(super) fn plain(&self) -> Option<&str> {
        match self.0.as_slice() {
            [Piece::Text(text)] => Some(text),
            _ => None,
        }
    }
}
