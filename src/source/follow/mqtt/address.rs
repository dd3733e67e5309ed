//! The address of a broker, and the topics there.

use url::Url;

use crate::secret;
use crate::source::hive;
use crate::terminal::shown_name;

/// What a path such as `mqtt://user:password@host:1883/plant/+/accel` says.
#[derive(Clone, PartialEq, Eq)]
pub(in crate::source::follow) struct Address {
    /// Whether the connection is encrypted.
    pub(super) tls: bool,
    pub(super) host: String,
    pub(super) port: u16,
    /// The user and the password, if there are any.
    pub(super) login: Option<(String, String)>,
    /// The topics: a filter with the wildcards `+` and `#`.
    pub(super) filter: String,
}

impl Address {
    /// Reads `path`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(in crate::source::follow) fn parse(path: &str) -> Result<Self, String> {
        // The wildcard # would begin a fragment of a URL, so the topics are split off first.
        let (scheme, rest) = path.split_once("://").ok_or("no URL")?;
        let (authority, filter) = rest.split_once('/').unwrap_or((rest, ""));
        let url = Url::parse(&format!("{scheme}://{authority}/")).map_err(|e| format!("no valid URL: {e}"))?;
        secret::keep_of_url(&url);
        let host = url.host_str().filter(|host| !host.is_empty()).ok_or("no host")?.to_owned();
        if filter.is_empty() {
            return Err("no topic behind the host".into());
        }
        let topics = topics(filter);
        if topics.is_empty() || !rumqttc::valid_filter(topics) || filter.contains('\0') {
            return Err(format!("{:?} is no filter of topics", shown_name(filter)));
        }
        let tls = url.scheme() == "mqtts";
        let login = (!url.username().is_empty() || url.password().is_some()).then(|| {
            let password = hive::decoded(url.password().unwrap_or_default());
            secret::keep(&password);
            (hive::decoded(url.username()), password)
        });
        let port = url.port().unwrap_or(if tls { 8883 } else { 1883 });
        Ok(Self { tls, host, port, login, filter: filter.to_owned() })
    }

    /// Whether messages of `topic` are asked for.
    pub(super) fn takes(&self, topic: &str) -> bool {
        rumqttc::matches(topic, topics(&self.filter))
    }

    /// The broker, for messages.
    pub(super) fn broker(&self) -> String {
        format!("{}://{}:{}", if self.tls { "mqtts" } else { "mqtt" }, shown_name(&self.host), self.port)
    }
}

/// The topics of a subscription that several clients may share: `$share/group/filter`.
fn topics(filter: &str) -> &str {
    filter.strip_prefix("$share/").and_then(|rest| rest.split_once('/')).map_or(filter, |(_, topics)| topics)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_a_broker_and_topics() {
        let of = |path| Address::parse(path).unwrap();
        let plain = of("mqtt://broker/plant/+/accel");
        assert_eq!((plain.tls, plain.host.as_str(), plain.port, plain.login.clone()), (false, "broker", 1883, None));
        assert!(plain.takes("plant/7/accel") && !plain.takes("plant/7/gyro") && !plain.takes("plant/7/accel/x"));
        let all = of("mqtts://joe:h%23sh-hush@[::1]:99/plant/#");
        assert_eq!((all.tls, all.host.as_str(), all.port), (true, "[::1]", 99));
        assert_eq!(all.login, Some(("joe".into(), "h#sh-hush".into())));
        assert!(all.takes("plant/7/accel"));
        assert_eq!(all.broker(), "mqtts://[::1]:99");
        assert!(of("mqtt://h/$share/g/a/+").takes("a/b"));
        // A leading slash is an empty level.
        assert!(of("mqtt://h//a").takes("/a"));
    }

    #[test]
    fn an_address_without_topics_is_refused() {
        for (path, said) in [
            ("mqtt://host", "no topic"),
            ("mqtt://host/", "no topic"),
            ("mqtt:///a", "host"),
            ("mqtt://host/a/#/b", "no filter"),
            ("mqtt://host/a+/b", "no filter"),
            ("mqtt://host:x/a", "no valid URL"),
        ] {
            assert!(Address::parse(path).err().unwrap().contains(said), "{path}");
        }
    }
}
