//! Checks of `[sink]`: whether the pipeline has what it is to write.

use super::super::columns::{key_columns, source_columns, written_columns};
use super::super::file::*;
use super::{Check, source_path};
use crate::source::overlap;
use crate::table::{Mode, OnExisting};

impl Check<'_> {
    /// The table's columns, partitions and place.
    pub(super) fn sink(&mut self) {
        let draft = self.draft;
        let Some(sink) = &draft.sink else { return };
        self.not_empty("sink.path", &sink.path);
        let Some(source) = &draft.source else { return };
        let read = source_path(source);
        // An empty path is reported elsewhere.
        if let Some(wrong) = overlap(read, &sink.path).filter(|_| !read.is_empty()) {
            self.at("sink.path", wrong, "another directory");
        }
        self.network_output(sink);
        self.existing_rows(sink, source);
        let columns = source_columns(source, draft);
        for (list, at) in [(sink.keys.as_deref(), "sink.keys"), (Some(&sink.partition_by[..]), "sink.partition_by")] {
            for (index, name) in list.unwrap_or_default().iter().enumerate() {
                let path = format!("{at}[{index}]");
                let list = list.unwrap_or_default();
                let accepted = match at {
                    "sink.partition_by" => written_columns(sink, draft, source),
                    _ => columns.clone(),
                };
                if !accepted.contains(name) {
                    self.no_column(&path, name, &accepted);
                } else if list[..index].contains(name) {
                    self.at(&path, format!("column {name:?} is named twice"), "");
                }
            }
        }
    }

    /// `on_existing` needs mode "append", and keys that tell rows apart.
    fn existing_rows(&mut self, sink: &SinkTable, source: &SourceTable) {
        let Some(on_existing) = sink.on_existing else { return };
        let keyless = sink.keys.as_ref().map_or_else(|| key_columns(source).is_empty(), Vec::is_empty);
        if sink.mode == Mode::Overwrite {
            let message = "rows that are there are replaced by an overwrite, whatever their keys";
            self.at("sink.on_existing", message, "mode = \"append\", or leave the key out");
        } else if keyless && on_existing != OnExisting::Skip {
            let message = "the source names no key columns, so nothing tells which rows are there";
            self.at("sink.on_existing", message, "keys in [source] or [sink], or leave the key out");
        }
    }

    /// Outputs of the autoencoder need an autoencoder stage.
    fn network_output(&mut self, sink: &SinkTable) {
        if self.position("deep_clustering").is_some() {
            return self.method_output(sink);
        }
        let Some(at) = self.position("autoencoder") else {
            if sink.embedding {
                let help = "vectors = \"list\" or \"columns\" writes the features that there are; an embedding needs a stage \
                            of kind = \"autoencoder\"";
                self.at("sink.embedding", "there is no autoencoder stage whose embedding could be written", help);
            }
            if sink.reconstruction_error {
                let help = "leave the key out, or add a stage of kind = \"autoencoder\"";
                self.at("sink.reconstruction_error", "there is no autoencoder stage that reconstructs rows", help);
            }
            return;
        };
        let Some(StageTable::Autoencoder(table)) = &self.draft.stages[at].1 else { return };
        if !sink.reconstruction_error {
            return;
        }
        let (keep_decoder, reconstruction) = (table.keep_decoder, table.reconstruction);
        if !keep_decoder {
            let message = "rows are reconstructed by the decoder, and the autoencoder stage has keep_decoder = false";
            self.at("sink.reconstruction_error", message, "keep_decoder = true, which is the default");
        } else if reconstruction == 0.0 {
            let message = "the decoder learns nothing, for the autoencoder stage has reconstruction = 0";
            self.at("sink.reconstruction_error", message, "a factor of the reconstruction above 0");
        }
    }
}
