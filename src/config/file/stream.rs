//! `[stream]`: how the source is followed.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::config::half_life::HalfLifeSetting;
use crate::kmeans::Decay;
use crate::source::Span;
use crate::source::follow::{Client, Files, FollowSpec};

/// How `dacpipe run --follow` and `dacpipe run --once` follow the source. The rows are added to the table, whatever the
/// sink's mode.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StreamTable {
    /// The directory of the model that labels the rows, local or the URL of one in an object store. Default: the model
    /// that labelled the table's last rows; if there is none, one is learned from the rows that are there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// How the files come to be: "whole" files are written once, and read once nothing has been written to them for
    /// `settle`; lines are added to "growing" ones, and each line is read once it is complete. Default "whole".
    #[serde(default)]
    pub files: Files,
    /// How long nothing may have been written to a file before it is read as a whole; and how long a broker sends nothing
    /// before `--once` takes it that there is no more. Default "2 s".
    #[serde(default = "default_settle")]
    pub settle: Span,
    /// How long a recording that goes on may be without a new line before it ends. Default "1 h".
    #[serde(default = "default_idle")]
    pub idle: Span,
    /// After how many lines or rows of the source there is a commit, if there are as many. A file that is read whole is
    /// not divided. Default 100000.
    #[serde(default = "default_rows")]
    #[schemars(range(min = 1))]
    pub rows: u64,
    /// The name of the session at an MQTT broker, which keeps the session's messages while nobody follows. Two streams
    /// with one name throw each other out. Default: made of the pipeline's name and the table's path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 65535))]
    pub client_id: Option<String>,
    /// The quality of service that an MQTT broker is asked for: 1, or 0, with which messages may be lost. Default 1.
    #[serde(default = "default_qos")]
    #[schemars(range(max = 1))]
    pub qos: u8,
    /// A PEM file of the certificates that mqtts:// trusts. Default: those of the system, or of SSL_CERT_FILE.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificates: Option<String>,
    /// How long `--follow` waits for new rows before each commit. Default "1 s".
    #[serde(default = "default_every")]
    pub every: Span,
    /// Where `--follow` serves what it does: the address of /metrics (OpenMetrics text) and /health, such as "127.0.0.1:9464".
    /// Default: nowhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metrics: Option<String>,
    /// What is learned from the rows once they are labelled: "centroids" moves the clusters' centroids by online k-means,
    /// one batch a commit; the model itself stays. Default "nothing".
    #[serde(default)]
    pub learn: Learn,
    /// After how much a row counts half of what it counted at first, where centroids move: "5000 rows", "20 batches"
    /// (commits), or a time such as "2 h" by the times of the samples. Default: nothing is forgotten.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub half_life: Option<HalfLifeSetting>,
}

/// What a stream learns.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Learn {
    /// Nothing.
    #[default]
    Nothing,
    /// Where the centroids lie.
    Centroids,
}

impl StreamTable {
    /// Whether the file need not say any of it.
    pub(super) fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// How the source is followed into the table that `stream` stands for.
    pub fn follow(&self, stream: &str) -> FollowSpec {
        let duration = |span: Span| Duration::from_nanos(span.nanoseconds().unsigned_abs());
        FollowSpec {
            files: self.files,
            settle: duration(self.settle),
            idle: duration(self.idle),
            rows: self.rows,
            wait: self.wait(),
            once: false,
            client: Client {
                id: self.client_id.clone().unwrap_or_else(|| client_id(stream)),
                qos: self.qos,
                certificates: self.certificates.clone(),
            },
        }
    }

    /// How centroids forget, if they move.
    pub fn decay(&self) -> Option<Decay> {
        let decay = self.half_life.map_or(Decay::None, |half| Decay::HalfLife(half.into()));
        (self.learn == Learn::Centroids).then_some(decay)
    }

    /// How long is waited for new rows.
    pub fn wait(&self) -> Duration {
        Duration::from_nanos(self.every.nanoseconds().unsigned_abs())
    }
}

impl Default for StreamTable {
    fn default() -> Self {
        Self {
            model: None,
            files: Files::default(),
            settle: default_settle(),
            idle: default_idle(),
            rows: default_rows(),
            every: default_every(),
            metrics: None,
            learn: Learn::default(),
            half_life: None,
            client_id: None,
            qos: default_qos(),
            certificates: None,
        }
    }
}

/// The name of the session of a stream, of as many characters as every broker takes.
fn client_id(stream: &str) -> String {
    let hash = Sha256::digest(stream);
    hash[..8].iter().fold("dacpipe".to_owned(), |name, byte| format!("{name}{byte:02x}"))
}

fn default_qos() -> u8 {
    1
}

fn default_settle() -> Span {
    Span::of_seconds(2)
}

fn default_idle() -> Span {
    Span::of_seconds(3600)
}

fn default_rows() -> u64 {
    100_000
}

fn default_every() -> Span {
    Span::of_seconds(1)
}
