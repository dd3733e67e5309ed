//! Checks of `[source]`: its path, its format and its columns.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use super::super::columns::{carried_columns, class_columns, named_columns};
use super::super::file::*;
use super::super::plan::dialect;
use super::{Check, MADE, source_path};
use crate::signal::window::{WindowLabel, Within};
use crate::source::csv::{Conflict, Delimiter, is_parquet};
use crate::source::{AcrossFiles, Missing, Repeated, SameTime, TimeUnit, check_format};

impl Check<'_> {
    pub(super) fn source(&mut self) {
        let draft = self.draft;
        let Some(source) = &draft.source else { return };
        self.not_empty("source.path", source_path(source));
        if let SourceTable::Csv(table) = source {
            if let Some(delimiter) = table.delimiter.as_ref().filter(|text| Delimiter::parse(text).is_none()) {
                let help = "one character, \"tab\" or \"whitespace\"";
                self.at("source.delimiter", format!("{delimiter:?} cannot separate fields"), help);
            }
            for Conflict { key, message, help } in dialect(table).conflicts() {
                self.at(&format!("source.{key}"), message, help);
            }
            if is_parquet(&table.path) {
                for key in dialect(table).given() {
                    let message = format!("`{key}` is about text, and the files are Parquet");
                    self.at(&format!("source.{key}"), message, "leave it out");
                }
            }
            self.samples(table);
        }
        if let SourceTable::Csv(CsvTable { interleaved: Some(true), keys, .. }) = source
            && keys.is_empty()
        {
            let help = "name the columns that tell recordings apart as `keys`";
            self.at("source.interleaved", "recordings take turns, but no keys tell them apart", help);
        }
        if let SourceTable::Parquet(ParquetTable { features: Columns::Many(_), dim: Some(_), .. }) = source {
            self.at("source.dim", "the columns of features say how many values there are", "leave it out");
        }
        self.columns(&named_columns(source));
        self.carried(source);
    }

    /// Each column that is carried along needs a name of its own in the table. Delta compares names without case.
    fn carried(&mut self, source: &SourceTable) {
        let draft = self.draft;
        let mut taken: Vec<(String, String)> =
            MADE.map(|name| ("it is made here".to_string(), name.to_string())).to_vec();
        taken.extend(class_columns(source).into_iter().map(|name| ("it is written already".to_string(), name)));
        for (path, name) in carried_columns(source, draft) {
            if let Some((why, _)) = taken.iter().find(|(_, other)| other.to_lowercase() == name.to_lowercase()) {
                let help = match source {
                    SourceTable::Parquet(_) => "each column once",
                    _ => "another name, such as { column = \"load\", as = \"mean\", name = \"mean_load\" }",
                };
                self.at(&path, format!("a column named {name:?} would be there twice: {why}"), help);
            }
            taken.push((format!("it comes of `{path}`"), name));
        }
        let window = self.draft.stages.iter().find_map(|(_, stage)| match stage {
            Some(StageTable::Window(window)) if window.label == WindowLabel::Mode => Some(window),
            _ => None,
        });
        if let Some(window) = window {
            let labelled = !matches!(source, SourceTable::Csv(CsvTable { label: None, .. }));
            let path = "stage.window.label";
            if window.within == Within::Labels {
                let help = "within = \"recordings\", or leave the key out";
                self.at(path, "windows within labels have one label each", help);
            } else if !labelled {
                self.at(path, "the most frequent label, but the source has no label column", "name it with `label`");
            }
        }
    }

    /// A policy for missing values fits the source.
    pub(super) fn missing(&mut self) {
        let (missing, within) = (self.draft.missing, self.draft.missing_within);
        if within.is_some() && missing != Missing::Last {
            let message = "`missing_within` says how old the last value may be, and missing values do not take it";
            self.at("missing_within", message, "missing = \"last\", or leave it out");
        }
        match (missing, &self.draft.source) {
            (Missing::Mean, Some(SourceTable::Csv(_) | SourceTable::Hapt(_))) => {
                let message = "the mean of a feature stands for a missing value of a feature vector, and this source has \
                               recordings: a window whose samples have gaps has no features";
                self.at("missing", message, "missing = \"last\", where a value lasts, or \"quarantine\"");
            }
            (Missing::Mean, _) if self.draft.stages.is_empty() => {
                self.at("missing", "no stage learns, so no mean is learned either", "missing = \"quarantine\"");
            }
            (Missing::Last, Some(SourceTable::Parquet(_))) => {
                let message =
                    "the last value stands for a missing one of a recording, and this source has feature vectors";
                self.at("missing", message, "missing = \"mean\" or \"quarantine\"");
            }
            (Missing::Last, Some(SourceTable::Hapt(_))) => {
                let message = "every line of recordings of kind = \"hapt\" has three numbers, so none is missing";
                self.at("missing", message, "missing = \"quarantine\"");
            }
            (Missing::Last, Some(SourceTable::Csv(table))) if within.is_some() && table.time.is_none() => {
                let message = "`missing_within` is about times, and `time` names no column of them";
                self.at("missing_within", message, "");
            }
            _ => {}
        }
    }

    /// Keys about times need a column of times, and keys about recordings need keys that tell recordings apart.
    fn samples(&mut self, table: &CsvTable) {
        let times = table.time.iter().map(|column| ("source.time".to_owned(), column));
        let channels = table.channels.iter().enumerate();
        let named = channels.map(|(at, column)| (format!("source.channels[{at}]"), column)).chain(times);
        for (key, column) in named.filter(|(_, column)| !table.columns.is_empty() && !table.columns.contains(column)) {
            self.at(
                &key,
                format!("column {column:?} is not among `columns`"),
                "all columns of the files in their order",
            );
        }
        let of_times = [
            ("time_format", table.time_format.is_some()),
            ("jitter", table.jitter.is_some()),
            ("disorder", table.disorder != DisorderTable::default()),
            ("same_time", table.same_time != SameTime::Refuse),
            ("repeated", table.repeated != Repeated::Refuse),
            ("resample", table.resample),
        ];
        for (key, _) in of_times.iter().filter(|(_, said)| *said && table.time.is_none()) {
            self.at(
                &format!("source.{key}"),
                format!("`{key}` is about times, and `time` names no column of them"),
                "",
            );
        }
        if let Some(format) = &table.time_format {
            if let Err(wrong) = check_format(format) {
                self.at("source.time_format", wrong, "");
            }
            if table.time_unit != TimeUnit::Auto {
                self.at(
                    "source.time_unit",
                    "both `time_unit` and `time_format` say how times are written",
                    "leave one out",
                );
            }
        }
        let keyless = table.keys.is_empty() || table.keys.iter().any(|key| key == "file");
        if table.across_files == AcrossFiles::Continue && keyless {
            let help = "name the columns that tell recordings apart in `keys`, and not \"file\"";
            self.at("source.across_files", "recordings go on from file to file, but each file is one of its own", help);
        }
    }

    /// Each column of the source has one name and one use, and none has the name of a column that dacpipe adds.
    fn columns(&mut self, named: &[(String, &String)]) {
        let described = |path: &str| !path.starts_with("source.channels") && !path.starts_with("source.features");
        let mut used: HashMap<&String, &String> = HashMap::new();
        for (path, name) in named {
            if described(path) && path != "source.time" && MADE.contains(&name.as_str()) {
                let help = format!("rename it; these columns are made here: {}", MADE.join(", "));
                self.at(path, format!("a column named {name:?} would be there twice"), &help);
            }
            match used.entry(name) {
                Entry::Occupied(other) => {
                    self.at(path, format!("column {name:?} is named twice, here and in `{}`", other.get()), "");
                }
                Entry::Vacant(entry) => drop(entry.insert(path)),
            }
        }
    }
}
