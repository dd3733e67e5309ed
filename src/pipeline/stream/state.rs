//! What a stream keeps from one commit to the next.

use serde::{Deserialize, Serialize};

use super::learning::Moved;
use crate::config::Plan;
use crate::error::{Error, Result};
use crate::source::follow::Position;
use crate::store::Location;
use crate::table::{Snapshot, StreamCommit};

/// The form of the state; another program version may have another one.
const FORM: u32 = 1;
/// The most bytes of a state, decompressed.
const MOST_BYTES: u64 = 1 << 30;
/// How hard the state is compressed: it is written with every commit.
const LEVEL: i32 = 1;

/// The state of a stream after a commit.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct StreamState {
    form: u32,
    /// What decides how the source's rows are cut: its columns and rules, windows and features.
    reads: String,
    /// How far the source was read.
    pub position: Position,
    /// Whether all rows of the table are the stream's own.
    pub alone: bool,
    /// Rows of the table after its last commit, if nobody else wrote any.
    pub rows: u64,
    /// What the stream learned, if it learns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub learned: Option<Moved>,
}

/// The state of a stream, and which of its commits it is of.
#[derive(Debug, Clone)]
pub(super) struct Reached {
    pub state: StreamState,
    pub sequence: u64,
}

impl StreamState {
    /// The beginning of a stream into a table, which has rows of others or not.
    pub fn begin(plan: &Plan, alone: bool) -> Self {
        Self { form: FORM, reads: reads(plan), position: Position::default(), alone, rows: 0, learned: None }
    }

    /// The state in the newest version of the table at `location`, if there is one.
    ///
    /// # Errors
    /// Kind `Table` if it is damaged or of a newer form; `Config` if it is that of another pipeline.
    pub async fn of(table: Option<&Snapshot>, location: &Location, plan: &Plan) -> Result<Option<Reached>> {
        let Some(note) = table.and_then(|table| table.note.as_ref()?.stream.as_ref()) else { return Ok(None) };
        if note.name != plan.name {
            return Err(Error::config(format!(
                "the stream into {location} is that of the pipeline {:?}, and this one is {:?}; write to another table: \
                 sink.path",
                note.name, plan.name
            )));
        }
        let bytes = note.read(location).await?;
        let damaged =
            |why: &str| Error::table(format!("{}: the state of the stream {why}", location.show(&note.state.path)));
        let mut json = Vec::new();
        let plain = zstd::Decoder::new(&bytes[..]).map_err(|e| damaged("is damaged").with_source(e))?;
        std::io::Read::read_to_end(&mut std::io::Read::take(plain, MOST_BYTES), &mut json)
            .map_err(|e| damaged("is damaged").with_source(e))?;
        #[derive(Deserialize)]
        struct Form {
            form: u32,
        }
        let Form { form } = serde_json::from_slice(&json).map_err(|e| damaged("is damaged").with_source(e))?;
        if form > FORM {
            return Err(damaged(&format!(
                "has form {form}, and this version of dacpipe reads up to {FORM}; use a newer one"
            )));
        }
        let state: Self = serde_json::from_slice(&json).map_err(|e| damaged("is damaged").with_source(e))?;
        if state.reads != reads(plan) {
            return Err(Error::config(format!(
                "the source, the windows or the features of the pipeline changed since the last commit of its stream into \
                 {location}, so it cannot go on; change them back, or write to another table: sink.path"
            )));
        }
        Ok(Some(Reached { state, sequence: note.sequence }))
    }

    /// It as the state of commit `sequence`.
    ///
    /// # Errors
    /// Kind `Internal` if it cannot be written.
    pub fn commit(&self, name: &str, sequence: u64) -> Result<StreamCommit> {
        let json = serde_json::to_vec(self).map_err(|e| Error::internal("the state of a stream").with_source(e))?;
        let state = zstd::encode_all(&json[..], LEVEL).map_err(|e| Error::internal("compressing").with_source(e))?;
        Ok(StreamCommit { name: name.to_owned(), sequence, state })
    }
}

/// What decides how rows are cut: everything but the source's place, and what is done with bad rows.
fn reads(plan: &Plan) -> String {
    let source = plan.source.clone().at("");
    let what = (&source, &plan.window, &plan.window_label, &plan.features, &plan.split, plan.stream.files);
    serde_json::to_string(&what).unwrap_or_default()
}
