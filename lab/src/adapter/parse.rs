//! TOML to [`Adapter`]: what is impossible is refused with file, line and column.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use strum::VariantNames;
use toml::Spanned;

use super::template::Fault;
use super::{Adapter, ClientSide, Data, Many, Ready, ServerSide, Side, Slot, Template};
use crate::endpoint::process::Stream;
use crate::refusal::Refusal;
use crate::refusal::{Problem, did_you_mean, explain, locate, problem};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    name: Spanned<String>,
    about: String,
    install: String,
    version: Option<Vec<String>>,
    #[serde(default)]
    required: bool,
    server: Option<RawServer>,
    client: Option<RawClient>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawServer {
    command: Spanned<Vec<Spanned<String>>>,
    mtu: Option<Vec<Spanned<String>>>,
    #[serde(default)]
    env: BTreeMap<String, Spanned<String>>,
    ready: Option<Spanned<RawReady>>,
    data: Spanned<String>,
    #[serde(default)]
    says_unsupported: bool,
    #[serde(default)]
    counters: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawClient {
    command: Spanned<Vec<Spanned<String>>>,
    mtu: Option<Vec<Spanned<String>>>,
    #[serde(default)]
    env: BTreeMap<String, Spanned<String>>,
    data: Spanned<String>,
    answer: Option<Spanned<String>>,
    #[serde(default)]
    says_unsupported: bool,
    many: Option<RawMany>,
    resume: Option<RawResume>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawMany {
    command: Spanned<Vec<Spanned<String>>>,
    resume: Option<Vec<Spanned<String>>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawResume {
    #[serde(default)]
    first: Vec<Spanned<String>>,
    #[serde(default)]
    next: Vec<Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawReady {
    stdout: Option<String>,
    stderr: Option<String>,
    #[serde(default)]
    whole_line: bool,
}

/// The adapter in one file.
///
/// # Errors
///
/// The first mistake in it.
pub(super) fn adapter(
    file: &Path,
    text: &str,
    folder: Option<PathBuf>,
) -> Result<Adapter, Refusal> {
    let raw = toml::from_str(text).map_err(|error| {
        let problem = Problem {
            span: error.span().unwrap_or(0..0),
            text: explain(error.message()),
        };
        locate(file, text, &problem)
    })?;
    check(file, raw, folder).map_err(|problem| locate(file, text, &problem))
}

fn check(file: &Path, raw: Raw, folder: Option<PathBuf>) -> Result<Adapter, Problem> {
    let stem = file
        .file_stem()
        .and_then(|stem| stem.to_str())
        .unwrap_or_default();
    if raw.name.get_ref() != stem {
        return problem(
            raw.name.span(),
            format!("an adapter is named as its file: write name = \"{stem}\" or rename the file"),
        );
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    if stem.is_empty() || !stem.chars().all(plain) {
        return problem(
            raw.name.span(),
            "an adapter's name is made of letters, digits, `-`, `_` and `.`",
        );
    }
    if raw.server.is_none() && raw.client.is_none() {
        return problem(
            raw.name.span(),
            "nobody to start: add a [server], a [client], or both",
        );
    }
    Ok(Adapter {
        name: raw.name.into_inner(),
        about: raw.about,
        install: raw.install,
        version: raw.version.filter(|words| !words.is_empty()),
        required: raw.required,
        folder,
        server: raw.server.map(server).transpose()?,
        client: raw.client.map(client).transpose()?,
    })
}

fn server(raw: RawServer) -> Result<ServerSide, Problem> {
    let data = match raw.data.get_ref().as_str() {
        "echo" => Data::Echo,
        "lines" => Data::Lines,
        _ => Data::Protocol {
            name: protocol(raw.data)?,
            answer: None,
        },
    };
    Ok(ServerSide {
        side: Side {
            command: command(&raw.command)?,
            mtu: raw.mtu.as_deref().map(templates).transpose()?,
            environment: environment(raw.env)?,
            data,
            says_unsupported: raw.says_unsupported,
        },
        ready: raw.ready.map_or(Ok(Ready::Bound), ready)?,
        counters: raw.counters,
    })
}

fn client(raw: RawClient) -> Result<ClientSide, Problem> {
    let data = match (raw.data.get_ref().as_str(), raw.answer) {
        ("echo", _) => {
            return problem(
                raw.data.span(),
                "a client does not echo: write \"lines\", or the name of its protocol",
            );
        }
        ("lines", None) => Data::Lines,
        ("lines", Some(answer)) => {
            return problem(
                answer.span(),
                "`answer` is for clients with a protocol of their own; what \"lines\" says comes back",
            );
        }
        (_, None) => {
            return problem(
                raw.data.span(),
                "a client with a protocol of its own needs an `answer`: what stands in each answer \
                 that it prints",
            );
        }
        (_, Some(answer)) => {
            if answer.get_ref().is_empty() {
                return problem(answer.span(), "every line contains nothing; name some text");
            }
            Data::Protocol {
                name: protocol(raw.data)?,
                answer: Some(answer.into_inner()),
            }
        }
    };
    let many = raw.many.map(|many| {
        Ok(Many {
            command: command(&many.command)?,
            resume: many.resume.as_deref().map(templates).transpose()?,
        })
    });
    let resume = raw
        .resume
        .map(|resume| Ok([templates(&resume.first)?, templates(&resume.next)?]));
    Ok(ClientSide {
        side: Side {
            command: command(&raw.command)?,
            mtu: raw.mtu.as_deref().map(templates).transpose()?,
            environment: environment(raw.env)?,
            data,
            says_unsupported: raw.says_unsupported,
        },
        many: many.transpose()?,
        resume: resume.transpose()?,
    })
}

/// The name of a protocol.
///
/// # Errors
///
/// A word that is most likely a misspelt `lines` or `echo`.
fn protocol(raw: Spanned<String>) -> Result<String, Problem> {
    let name = raw.get_ref();
    let near = did_you_mean(name, ["lines", "echo"].into_iter());
    if name.is_empty() || !near.is_empty() {
        return problem(
            raw.span(),
            format!(
                "no protocol is named `{name}`{near}; write \"lines\", \"echo\" (servers), or the name \
                 of a protocol that both ends speak, such as \"coap\""
            ),
        );
    }
    Ok(raw.into_inner())
}

fn ready(raw: Spanned<RawReady>) -> Result<Ready, Problem> {
    let span = raw.span();
    let raw = raw.into_inner();
    let (stream, text) = match (raw.stdout, raw.stderr) {
        (Some(text), None) => (Stream::Out, text),
        (None, Some(text)) => (Stream::Err, text),
        _ => {
            return problem(
                span,
                "write ready = { stdout = \"text\" } or { stderr = \"text\" }; without `ready` the lab \
                 waits until the port is bound",
            );
        }
    };
    if text.is_empty() {
        return problem(span, "every line contains nothing; name some text");
    }
    Ok(Ready::Says {
        stream,
        text,
        whole: raw.whole_line,
    })
}

fn command(raw: &Spanned<Vec<Spanned<String>>>) -> Result<Vec<Template>, Problem> {
    let span = raw.span();
    let words = templates(raw.get_ref())?;
    match words.first() {
        None => problem(span, "the command is empty; begin with the program"),
        Some(first) if first.plain().is_none_or(str::is_empty) => problem(
            span,
            "the command begins with the program's name or path, without placeholders",
        ),
        Some(_) => Ok(words),
    }
}

fn environment(
    raw: BTreeMap<String, Spanned<String>>,
) -> Result<BTreeMap<String, Template>, Problem> {
    raw.into_iter()
        .map(|(name, word)| Ok((name, template(&word)?)))
        .collect()
}

fn templates(raw: &[Spanned<String>]) -> Result<Vec<Template>, Problem> {
    raw.iter().map(template).collect()
}

fn template(raw: &Spanned<String>) -> Result<Template, Problem> {
    Template::parse(raw.get_ref()).map_err(|(place, fault)| {
        let text = match fault {
            Fault::LoneBrace => {
                "a brace without its partner; write {{ or }} for a brace itself".to_owned()
            }
            Fault::Unknown(name) => format!(
                "no placeholder is named `{name}`{}; valid here: {}",
                did_you_mean(&name, Slot::VARIANTS.iter().copied()),
                Slot::VARIANTS.join(", ")
            ),
        };
        // Behind the quote. Escapes before the mistake would make this the column of the string.
        let start = raw.span().start + 1 + place.start;
        Problem {
            span: start..start + place.len(),
            text,
        }
    })
}
