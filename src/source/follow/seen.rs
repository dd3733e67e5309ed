//! What was read of a file, and whether it is still the same.

use std::io::Read;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::source::location::DataFile;
use crate::source::parquet;

/// Milliseconds since 1970; negative before.
pub(super) fn milliseconds(time: SystemTime) -> i64 {
    let whole = |span: std::time::Duration| i64::try_from(span.as_millis()).unwrap_or(i64::MAX);
    match time.duration_since(UNIX_EPOCH) {
        Ok(span) => whole(span),
        Err(e) => -whole(e.duration()),
    }
}

/// A file as it is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Stamp {
    /// Its size in bytes.
    pub(super) bytes: u64,
    /// When it was last written, in milliseconds since 1970; `None` in an object store, where a file is there as a
    /// whole or not at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) written: Option<i64>,
}

impl Stamp {
    /// The stamp of `file`.
    ///
    /// # Errors
    /// As opening it.
    pub(super) fn of(file: &DataFile) -> Result<Self> {
        let bytes = file.size()?;
        let written = file.local_path().and_then(|path| std::fs::metadata(path).ok()?.modified().ok());
        Ok(Self { bytes, written: written.map(milliseconds) })
    }

    /// Whether nothing was written to it in the last `settle` milliseconds before `now`. A file from the future is
    /// taken as settled: its clock is not ours.
    pub(super) fn is_settled(&self, now: i64, settle: i64) -> bool {
        self.written.is_none_or(|written| written > now || now.saturating_sub(written) >= settle)
    }
}

/// What was read of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Seen {
    /// The file when it was read.
    #[serde(flatten)]
    pub(super) stamp: Stamp,
    /// The part of a growing file that was read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) part: Option<ReadPart>,
}

/// The beginning of a growing file that was read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ReadPart {
    /// Its bytes.
    pub(super) bytes: u64,
    /// Its lines.
    pub(super) lines: u64,
    /// The lines up to the header, and their bytes.
    pub(super) head: (u64, u64),
    /// A hash of the first bytes that were read, and how many they are.
    pub(super) begins: (u64, u64),
}

impl Seen {
    /// The bytes of it that were read.
    pub(super) fn bytes(&self) -> u64 {
        self.part.as_ref().map_or(self.stamp.bytes, |part| part.bytes)
    }

    /// A file that was read as a whole.
    pub(super) fn whole(stamp: Stamp) -> Self {
        Self { stamp, part: None }
    }

    /// What is wrong if `file` was changed since it was read; it is then taken as read the way it is now.
    pub(super) fn changed(&mut self, file: &DataFile, now: Stamp) -> Option<String> {
        let before = std::mem::replace(&mut self.stamp, now);
        let rewritten = before.written.is_some() && before.written != now.written;
        if before.bytes == now.bytes && !rewritten {
            return None;
        }
        // The same size at another time: touched, or copied once more.
        if before.bytes == now.bytes && file.local_path().is_some() {
            return Some(format!(
                "written again after it was read, with as many bytes ({}); its rows are not read again: give a new file \
                 another name, or say files = \"growing\" for files that lines are added to",
                now.bytes
            ));
        }
        Some(format!(
            "changed after it was read: {} bytes then, {} now; its rows are not read again: give a new file another name, \
             or say files = \"growing\" for files that lines are added to",
            before.bytes, now.bytes
        ))
    }
}

/// The lines of a text file, or the rows of a Parquet file; 0 if it cannot be read, which is found out later.
pub(super) fn rows_in(file: &DataFile, table: bool) -> u64 {
    if table {
        return parquet::rows_in(file).unwrap_or(0);
    }
    let Ok(mut text) = file.open() else { return 0 };
    let (mut piece, mut lines) = (vec![0; 1 << 16], 0);
    while let Ok(read) = text.read(&mut piece) {
        if read == 0 {
            break;
        }
        lines += piece[..read].iter().filter(|&&byte| byte == b'\n').count() as u64;
    }
    lines
}
