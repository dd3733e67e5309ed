//! The note of a commit, and the files beside the rows that it names: each is the table's own with this run's added.

use std::time::{Duration, UNIX_EPOCH};

use arrow::compute::concat_batches;
use arrow::record_batch::RecordBatch;

use super::{CommitInfo, TableWriter};
use crate::error::{Kind, Result};
use crate::store::Location;
use crate::table::attempt::{clusters_file, lineage_file, profile_file, replayed_file, sample_file};
use crate::table::commit::{CommitNote, FileBeside};
use crate::table::files::{Labels, nothing_committed};
use crate::table::lineage::{Happened, History, Lineage, births, lineage_schema};
use crate::table::log::Snapshot;
use crate::table::replace::Replaced;
use crate::table::{beside, clusters, lineage, profile, quarantine, sample};

impl History {
    /// The ids that the clusters of `table` have had so far, at `location`.
    ///
    /// # Errors
    /// As of [`TableWriter::history`].
    pub async fn of(table: Option<&Snapshot>, location: &Location) -> Result<Self> {
        let Some(note) = table.and_then(|table| table.note.as_ref()) else {
            return Ok(Self::default());
        };
        let mut history = match (&note.lineage, &note.clusters) {
            (Some(file), _) => Self::of_lineage(&beside::read(location, file, &lineage_schema()).await?),
            (None, Some(file)) => {
                let clusters = beside::read(location, file, &clusters::clusters_schema()).await?;
                Self::of_clusters(&clusters, &note.model)
            }
            (None, None) => Self::default(),
        };
        history.models.insert(note.model.clone());
        history.model = Some(note.model.clone()).filter(|model| !model.is_empty());
        Ok(history)
    }
}

impl TableWriter {
    /// The ids that the table's clusters have had so far, whether the run appends to it or overwrites it.
    ///
    /// # Errors
    /// Kind `Table` if the file of its lineage is missing or damaged (or that of its clusters, in a table that an older
    /// dacpipe wrote), `Io` if it cannot be read.
    pub async fn history(&self) -> Result<History> {
        History::of(self.base.as_ref(), &self.location).await
    }

    /// The note of the commit. Writes the files beside the rows.
    pub(super) async fn note(
        &self,
        info: &CommitInfo,
        labels: &Labels,
        rows: u64,
        new: Option<&RecordBatch>,
        replaced: Option<&Replaced>,
        version: u64,
    ) -> Result<CommitNote> {
        let run = &self.options.run_id;
        let base = self.appends_to();
        let before = base.and_then(|base| base.note.as_ref());
        let there = |of: fn(&CommitNote) -> &Option<FileBeside>| before.and_then(|note| of(note).as_ref());
        let old = match there(|note| &note.clusters) {
            Some(file) => {
                let old = beside::read(&self.location, file, &clusters::clusters_schema()).await?;
                Some(replaced.map_or(Ok(old.clone()), |replaced| clusters::without(&old, replaced.gone()))?)
            }
            None => None,
        };
        let merged = match (old, new) {
            (Some(old), Some(new)) => Some(clusters::merge(&old, new)?),
            (old, new) => old.or_else(|| new.cloned()),
        };
        let clusters = match &merged {
            Some(rows) => Some(self.write_beside(clusters_file(run), rows).await?),
            None => None,
        };
        // The replaced rows cannot be subtracted from the sums.
        let there = |of: fn(&CommitNote) -> &Option<FileBeside>| there(of).filter(|_| replaced.is_none());
        let profile = there(|note| &note.profile);
        let profile = self.merge_beside(profile_file(run), profile, profile::merge, info.profile.as_ref()).await?;
        let sample = there(|note| &note.sample);
        let sample = self.merge_beside(sample_file(run), sample, sample::merge, info.sample.as_ref()).await?;
        let followed = before.and_then(|note| note.stream.as_ref());
        let stream = match &info.stream {
            Some(stream) => {
                stream.check_follows(followed, &self.location)?;
                Some(stream.write(&self.location, run).await.map_err(nothing_committed)?)
            }
            None => followed.cloned(),
        };
        let quarantine = match &info.quarantine {
            Some(rows) if rows.num_rows() > 0 => {
                let written = quarantine::write(&self.location, rows, run, version, labels.labelled_at).await;
                Some(written.map_err(|e| if e.kind() == Kind::Config { e } else { nothing_committed(e) })?)
            }
            _ => None,
        };
        let replayed = match info.replayed.is_empty() {
            true => None,
            false => Some(info.replayed.write(&self.location, replayed_file(run)).await.map_err(nothing_committed)?),
        };
        let last_replay = match &replayed {
            Some(_) => Some(run.clone()),
            None => before.and_then(|note| note.last_replay.clone()),
        };
        Ok(CommitNote {
            attempt: run.clone(),
            run: run.clone(),
            model: labels.model.clone(),
            rows,
            skipped_rows: info.skipped_rows,
            clusters,
            profile,
            sample,
            lineage: self.lineage_beside(&info.lineage, labels).await?,
            quarantine,
            replayed,
            last_replay,
            published: None,
            quarantined_before: base.and_then(Snapshot::last_quarantine),
            source: info.source.clone(),
            stream,
        })
    }

    /// Writes a file beside the rows as `path`: the table's own (`there`) merged with this run's (`new`), or only
    /// `new`. Without `new` the table keeps its own.
    async fn merge_beside(
        &self,
        path: String,
        there: Option<&FileBeside>,
        merge: fn(&RecordBatch, &RecordBatch) -> Result<RecordBatch>,
        new: Option<&RecordBatch>,
    ) -> Result<Option<FileBeside>> {
        let Some(new) = new else { return Ok(there.cloned()) };
        let merged = match there {
            Some(file) => merge(&beside::read(&self.location, file, new.schema_ref()).await?, new)?,
            None => new.clone(),
        };
        self.write_beside(path, &merged).await.map(Some)
    }

    /// The file of the lineage after this commit; written if something follows what the table has.
    async fn lineage_beside(&self, lineage: &Lineage, labels: &Labels) -> Result<Option<FileBeside>> {
        let base = self.base.as_ref();
        let there = base.and_then(Snapshot::lineage);
        let changes = match (lineage, there) {
            (Lineage::Keep, there) => return Ok(there.cloned()),
            (Lineage::Forget, _) => return Ok(None),
            (Lineage::Add(changes), Some(there)) if changes.is_empty() => return Ok(Some(there.clone())),
            (Lineage::Add(changes), _) => changes,
        };
        let run = &self.options.run_id;
        let mut all = match (there, base.and_then(Snapshot::clusters)) {
            (Some(file), _) => vec![beside::read(&self.location, file, &lineage_schema()).await?],
            (None, Some(file)) => {
                let clusters = beside::read(&self.location, file, &clusters::clusters_schema()).await?;
                let since = base.and_then(|base| base.files.iter().map(|file| file.added_at).max()).unwrap_or_default();
                let since = UNIX_EPOCH + Duration::from_millis(u64::try_from(since).unwrap_or_default());
                births(&clusters, base.and_then(Snapshot::run_id).unwrap_or(run), since)?
            }
            (None, None) => Vec::new(),
        };
        all.push(lineage::rows(changes, Happened { model: &labels.model, run, at: labels.labelled_at })?);
        let all = concat_batches(&lineage_schema(), &all)?;
        match all.num_rows() {
            0 => Ok(None),
            _ => self.write_beside(lineage_file(run), &all).await.map(Some),
        }
    }

    async fn write_beside(&self, path: String, rows: &RecordBatch) -> Result<FileBeside> {
        beside::write(&self.location, path, rows).await.map_err(nothing_committed)
    }
}
