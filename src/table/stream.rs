//! How far a stream has followed its source: kept in the commit of its rows, so that neither is there without the other.

use deltalake_core::kernel::{Action, Transaction};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::actions::line;
use super::attempt::stream_file;
use super::beside::{read_bytes, write_bytes};
use super::commit::FileBeside;
use crate::error::{Error, Result};
use crate::store::Location;

/// How far a stream was when its last commit was made. Later commits by others keep it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamNote {
    /// The stream's name.
    pub name: String,
    /// Which of its commits this was, counted from 1.
    pub sequence: u64,
    /// Its state after that commit.
    pub state: FileBeside,
}

/// The state of a stream that goes into a commit with its rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamCommit {
    /// The stream's name.
    pub name: String,
    /// Which of its commits this is, counted from 1.
    pub sequence: u64,
    /// Its state after this commit, in bytes that only the stream reads.
    pub state: Vec<u8>,
}

impl StreamNote {
    /// The state of the stream, in the table at `location`.
    ///
    /// # Errors
    /// Kind `Table` if the file is missing or damaged, `Io` if it cannot be read.
    pub async fn read(&self, location: &Location) -> Result<Vec<u8>> {
        Ok(read_bytes(location, &self.state).await?.to_vec())
    }

    /// The transaction in the log by which other engines tell how far the stream is.
    pub(super) fn action(&self) -> Result<Value> {
        let version = i64::try_from(self.sequence).unwrap_or(i64::MAX);
        let app_id = format!("dacpipe-stream-{}", self.name);
        line(&Action::Txn(Transaction { app_id, version, last_updated: None }))
    }
}

impl StreamCommit {
    /// Writes the state as a file of the attempt `id`.
    pub(super) async fn write(&self, location: &Location, id: &str) -> Result<StreamNote> {
        let state = write_bytes(location, stream_file(id), self.state.clone()).await?;
        Ok(StreamNote { name: self.name.clone(), sequence: self.sequence, state })
    }

    /// Checks that it is the commit that follows on those of the table, whose newest is `there`.
    ///
    /// # Errors
    /// Kind `Table` if another process follows the same source into the table.
    pub(super) fn check_follows(&self, there: Option<&StreamNote>, location: &Location) -> Result<()> {
        let before = there.map_or(0, |there| there.sequence);
        if before + 1 == self.sequence {
            return Ok(());
        }
        Err(Error::table(format!(
            "another process follows a stream into {location}: its commit {before} is there, and this one made its commit {} \
             on top of commit {}; nothing of this one was committed: stop one of the two",
            self.sequence,
            self.sequence.saturating_sub(1),
        )))
    }
}
