//! What a pipeline says of a broker whose messages it follows, in builds with and without MQTT.

#[cfg(feature = "mqtt")]
use super::mqtt::address::Address;
use crate::source::csv::{CsvSpec, Encoding, TextFormat, is_topic_column};

/// How to connect to a broker, beside its address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Client {
    /// The name of the session at the broker.
    pub id: String,
    /// The quality of service of the subscription: 0 or 1.
    pub qos: u8,
    /// A PEM file of the certificates to trust; the system's if `None`.
    pub certificates: Option<String>,
}

impl Default for Client {
    fn default() -> Self {
        Self { id: "dacpipe".into(), qos: 1, certificates: None }
    }
}

/// Whether `path` is the address of a broker.
pub fn is_broker(path: &str) -> bool {
    path.split_once("://").is_some_and(|(scheme, _)| ["mqtt", "mqtts"].contains(&scheme))
}

/// Why messages cannot be read as `csv` says, and what could be.
pub(super) fn conflict(csv: &CsvSpec) -> Option<(String, &'static str)> {
    if !cfg!(feature = "mqtt") {
        return Some(("this build does not read from brokers".into(), "a build with --features mqtt"));
    }
    #[cfg(feature = "mqtt")]
    if let Err(wrong) = Address::parse(&csv.path) {
        return Some((
            format!("{}: {wrong}", crate::terminal::shown_name(&csv.path)),
            "mqtt://host:1883/topic, with + for any level and # for all further ones",
        ));
    }
    let dialect = &csv.dialect;
    if dialect.format == TextFormat::Csv && dialect.columns.is_empty() {
        return Some((
            "messages have no header".into(),
            "columns = [...] in [source], the names of all columns in their order, or format = \"ndjson\"",
        ));
    }
    if dialect.skip_lines > 0 || dialect.row_end.is_some() {
        return Some(("skip_lines and row_end are about files".into(), "neither of them for messages"));
    }
    if matches!(dialect.encoding, Encoding::Utf16 | Encoding::Utf16Le | Encoding::Utf16Be) {
        return Some(("messages in UTF-16 cannot be put together".into(), "messages in UTF-8"));
    }
    let known = |name: &String| dialect.columns.is_empty() || dialect.columns.contains(name) || is_topic_column(name);
    let named = csv.keys.iter().chain(&csv.label).chain(&csv.split);
    if let Some(missing) = named.into_iter().find(|name| !known(name)) {
        return Some((
            format!("columns does not name {missing:?}"),
            "a column of columns; topic; or topic_1, topic_2, … for the levels of the topic",
        ));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_brokers_are_told_from_paths() {
        assert!(is_broker("mqtt://h/a") && is_broker("mqtts://h/a"));
        assert!(!is_broker("mqtt/h/a") && !is_broker("https://h/mqtt://a") && !is_broker("-"));
    }

    #[cfg(feature = "mqtt")]
    #[test]
    fn what_messages_cannot_be_is_said() {
        let mut csv = CsvSpec::new("mqtt://h/+/a", &["x"]);
        let said = |csv: &CsvSpec| conflict(csv).map(|(message, _)| message).unwrap_or_default();
        assert!(said(&csv).contains("no header"));
        csv.dialect.format = TextFormat::Ndjson;
        assert_eq!(conflict(&csv), None);
        csv.dialect = crate::source::Dialect { columns: vec!["t".into(), "x".into()], ..Default::default() };
        csv.keys = vec!["topic_1".into(), "t".into()];
        assert_eq!(conflict(&csv), None);
        csv.label = Some("activity".into());
        assert!(said(&csv).contains("\"activity\""));
        csv.label = None;
        csv.dialect.skip_lines = 1;
        assert!(said(&csv).contains("skip_lines"));
        csv.path = "mqtt://h".into();
        assert!(said(&csv).contains("no topic"));
    }
}
