//! What an overwrite leaves behind, and when it goes.
//!
//! The files of the version before stay, for readers that opened it; those of the versions that it had itself replaced
//! go. So a table that is overwritten again and again holds two versions. Files go after the commit and only where a
//! log entry names their run: a crash on the way leaves some of them to the next overwrite, and files of attempts that
//! are under way, or that nobody knows, are not touched.

use std::collections::BTreeSet;

use super::attempt::{data_dir, files_beside, remove_files};
use super::log::{Entry, Log, Snapshot};
use crate::error::Result;
use crate::store::Location;

/// Removes the files of the versions that `before` had replaced, which is the version that `now` has overwritten.
pub(super) async fn remove_replaced(log: &Log, location: &Location, before: &Snapshot, now: &Entry) -> Result<()> {
    let kept: BTreeSet<&str> = before.runs.iter().chain([&now.run_id]).map(String::as_str).collect();
    let mut end = before.since;
    while end > 0 {
        let generation = log.generation(end - 1).await?;
        let (mut had_files, mut found) = (false, false);
        for entry in generation.iter().filter(|entry| !kept.contains(entry.run_id.as_str())) {
            let there = !location.list(&data_dir(&entry.run_id)).await?.is_empty();
            if there || entry.added.is_empty() {
                // First, so that data files that are there still say of a run that it was not removed whole.
                for file in files_beside(&entry.run_id) {
                    location.delete(&file).await?;
                }
                remove_files(location, &entry.run_id).await?;
            }
            (had_files, found) = (had_files || !entry.added.is_empty(), found || there);
        }
        // What is older went when this was replaced, unless that was cut short as well.
        if had_files && !found {
            break;
        }
        end = generation.first().map_or(0, |entry| entry.since);
    }
    Ok(())
}
