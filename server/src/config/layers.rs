//! Who said what of a listener: a flag, the file, a preset, or nobody. The first of them wins. Pure.

use std::net::SocketAddr;

use serde_json::{Map, Value};

use super::effective::Setting;
use super::file::ConfigFile;
use super::listener::{Mistake, Problem};
use super::options::ListenerOptions;
use super::preset::{self, Preset};
use super::service;
use super::values::ClientAuth;
use crate::error::{ConfigError, Failure};
use crate::service::ServiceName;

/// What is said of one listener.
#[derive(Debug)]
pub(super) struct Layers<'a> {
    flags: ListenerOptions,
    /// The file, and which of its listeners.
    file: Option<(&'a ConfigFile, usize)>,
    preset: Option<Preset>,
    /// What holds in the end.
    pub(super) merged: ListenerOptions,
}

impl<'a> Layers<'a> {
    /// One for each listener of the file, or one for the flags alone.
    ///
    /// # Errors
    /// One address for several listeners.
    pub(super) fn of(
        flags: ListenerOptions,
        file: Option<&'a ConfigFile>,
    ) -> Result<Vec<Self>, ConfigError> {
        let Some((file, count)) = file
            .map(|file| (file, file.options.listener.len()))
            .filter(|(_, count)| *count > 0)
        else {
            return Ok(vec![Self::new(flags, None)]);
        };
        if count > 1 && flags.listen.is_some() {
            return Err(ConfigError::OneAddressForMany(count));
        }
        Ok((0..count)
            .map(|number| Self::new(flags.clone(), Some((file, number))))
            .collect())
    }

    fn new(flags: ListenerOptions, file: Option<(&'a ConfigFile, usize)>) -> Self {
        let of_file = match file {
            Some((file, number)) => file.options.listener[number].clone(),
            None => ListenerOptions::default(),
        };
        let said = flags.clone().or(of_file);
        let preset = said.preset;
        let mut merged = said
            .or(preset.map(Preset::options).unwrap_or_default())
            .or(preset::defaults());
        if service::name(&merged) == ServiceName::Forward {
            merged = merged.or(preset::defaults_of_a_forward());
        }
        Self {
            flags,
            file,
            preset,
            merged,
        }
    }

    /// Those of the settings, as they hold: whoever said them, and however often.
    pub(super) fn holding(&self, keys: &[&str]) -> Map<String, Value> {
        let mut options = ListenerOptions {
            service: Some(service::name(&self.merged)),
            ..self.merged.clone()
        };
        if options.service != Some(ServiceName::Forward) {
            // Presets say these, and other services have no use for them.
            options.syslog_frames = None;
            options.idle_counts = None;
        }
        let mut holding = options.said();
        holding.retain(|key, value| {
            // The order of names is of no account.
            if let Value::Array(named) = value {
                named.sort_by_key(Value::to_string);
            }
            keys.contains(&key.as_str()) && *value != Value::Array(Vec::new())
        });
        holding
    }

    /// Where to listen.
    ///
    /// # Errors
    /// There is no address, or no port to it.
    pub(super) fn address(&self) -> Result<SocketAddr, Failure> {
        let listen = self
            .merged
            .listen
            .ok_or_else(|| self.refuse(Problem::NoAddress.of("listen")))?;
        let port = listen.port.or(self.preset.map(Preset::port));
        match port {
            Some(port) => Ok(SocketAddr::new(listen.ip, port)),
            None => Err(self.refuse(Problem::NoPort { ip: listen.ip }.of("listen"))),
        }
    }

    /// Says where the setting was given, and what is wrong with it.
    pub(super) fn refuse(&self, Mistake { key, problem }: Mistake) -> Failure {
        let place = match self.place_in_file(key) {
            Some(place) if key.is_empty() => place,
            Some(place) => format!("{place}{key}: "),
            None if key.is_empty() => String::new(),
            None => format!("--{key}: "),
        };
        ConfigError::Listener { place, problem }.into()
    }

    /// Where in the file the setting was given or is missing; `None` if a flag says it, or there is no
    /// file.
    pub(super) fn place_in_file(&self, key: &str) -> Option<String> {
        let (file, number) = self.file?;
        let flag = self.flags.said().contains_key(key);
        (!flag).then(|| file.place(Some(number), key))
    }

    /// What each setting is and who said so, for people.
    pub(super) fn settings(
        &self,
        listen: SocketAddr,
        max_connections: usize,
        client_auth: ClientAuth,
    ) -> Vec<Setting> {
        let mut known = ListenerOptions {
            listen: Some(listen.into()),
            max_connections: max_connections.try_into().ok(),
            client_auth: Some(client_auth),
            service: Some(service::name(&self.merged)),
            ..self.merged.clone()
        }
        .said();
        known.remove("preset");
        let flags = self.flags.said();
        let of_file = self.file.map(|(file, number)| {
            let said = file.options.listener[number].said();
            (file, number, said)
        });
        let of_preset = self.preset.map(|preset| (preset, preset.options().said()));
        known
            .into_iter()
            .map(|(key, value)| {
                let from = if flags.contains_key(&key) {
                    "flag".to_owned()
                } else if let Some((file, number, _)) = of_file
                    .as_ref()
                    .filter(|(_, _, said)| said.contains_key(&key))
                {
                    let place = file.place(Some(*number), &key);
                    place.trim_end_matches(": ").to_owned()
                } else if let Some((preset, _)) = of_preset
                    .as_ref()
                    .filter(|(_, said)| said.contains_key(&key))
                {
                    format!("preset {preset}")
                } else {
                    "default".to_owned()
                };
                Setting { key, value, from }
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flag_wins_over_a_preset_and_a_preset_over_a_default() {
        let flags = ListenerOptions {
            preset: Some(Preset::Coaps),
            link_mtu: Some(1400),
            ..ListenerOptions::default()
        };
        let [layers] = Layers::of(flags, None).unwrap().try_into().unwrap();
        assert_eq!(layers.address().unwrap().to_string(), "[::]:5684");
        let settings = layers.settings(layers.address().unwrap(), 9, ClientAuth::Off);
        let from = |key: &str| {
            let setting = settings.iter().find(|setting| setting.key == key).unwrap();
            (setting.value.to_string(), setting.from.as_str())
        };
        assert_eq!(from("link-mtu"), ("1400".to_owned(), "flag"));
        assert_eq!(from("suites"), ("\"iot\"".to_owned(), "preset coaps"));
        assert_eq!(from("heartbeat"), ("false".to_owned(), "default"));
    }

    #[test]
    fn presets_have_the_ports_and_demands_of_their_protocols() {
        for (preset, port, auth) in [
            (Preset::Coaps, 5684, None),
            (Preset::Syslog, 6514, Some(ClientAuth::Required)),
            (Preset::Radius, 2083, Some(ClientAuth::Required)),
        ] {
            let flags = ListenerOptions {
                preset: Some(preset),
                listen: "192.0.2.9".parse().ok(),
                ..ListenerOptions::default()
            };
            let [layers] = Layers::of(flags, None).unwrap().try_into().unwrap();
            let address = layers.address().unwrap();
            assert_eq!(
                (address.ip().to_string().as_str(), address.port()),
                ("192.0.2.9", port)
            );
            assert_eq!(layers.merged.client_auth, auth);
        }
    }
}
