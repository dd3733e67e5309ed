//! Turns `[source]` into the spec of a source.

use super::super::file::*;
use crate::source::parquet::Features;
use crate::source::{
    CsvSpec, Delimiter, Dialect, Disorder, HaptSpec, Keep, ParquetSpec, SampleRules, SourceSpec, TimeColumn,
};

pub(in crate::config) fn source(table: &SourceTable) -> SourceSpec {
    match table {
        SourceTable::Hapt(table) => SourceSpec::Hapt(HaptSpec { path: table.path.clone() }),
        SourceTable::Csv(table) => SourceSpec::Csv(csv(table)),
        SourceTable::Parquet(table) => SourceSpec::Parquet(ParquetSpec {
            path: table.path.clone(),
            features: match &table.features {
                Columns::One(name) => Features::Column(name.clone()),
                Columns::Many(names) => Features::Columns(names.clone()),
            },
            dim: table.dim,
            label: table.label.clone(),
            keys: table.keys.clone(),
            split: table.split.clone(),
            keep: table.keep.clone(),
        }),
    }
}

fn csv(table: &CsvTable) -> CsvSpec {
    let unit = table.time_unit;
    CsvSpec {
        path: table.path.clone(),
        channels: table.channels.clone(),
        time: table.time.clone().map(|column| TimeColumn { column, unit }),
        time_format: table.time_format.clone(),
        rate_hz: table.rate_hz,
        keys: table.keys.clone(),
        label: table.label.clone(),
        split: table.split.clone(),
        dialect: dialect(table),
        rules: sample_rules(table),
        interleaved: table.interleaved,
        keep: table.keep.iter().map(keep).collect(),
    }
}

/// How the files of a CSV source are written. An invalid delimiter is left out.
pub(in crate::config) fn dialect(table: &CsvTable) -> Dialect {
    Dialect {
        encoding: table.encoding,
        delimiter: table.delimiter.as_deref().and_then(Delimiter::parse),
        quote: table.quote.chars().next(),
        escape: table.escape.as_ref().and_then(|escape| escape.chars().next()),
        decimal: match table.decimal {
            DecimalName::Point => '.',
            DecimalName::Comma => ',',
        },
        thousands: table.thousands.map(|mark| match mark {
            ThousandsName::Comma => ',',
            ThousandsName::Point => '.',
            ThousandsName::Blank => ' ',
            ThousandsName::Apostrophe => '\'',
            ThousandsName::Underscore => '_',
        }),
        comment: table.comment.clone(),
        row_end: table.row_end.as_ref().and_then(|end| end.chars().next()),
        skip_lines: table.skip_lines,
        has_header: table.header && table.columns.is_empty(),
        skip_after_header: table.skip_after_header,
        columns: table.columns.clone(),
        format: table.format,
    }
}

fn sample_rules(table: &CsvTable) -> SampleRules {
    SampleRules {
        jitter: table.jitter,
        disorder: match table.disorder {
            DisorderTable::Lines(lines) => Disorder::Lines(lines as usize),
            DisorderTable::Time(time) => Disorder::Time(time),
        },
        same_time: table.same_time,
        repeated: table.repeated,
        fill: table.fill,
        hold_for: None,
        resample: table.resample,
        across_files: table.across_files,
    }
}

fn keep(table: &KeepTable) -> Keep {
    let aggregate = table.aggregate();
    let name = Some(table.name().clone()).filter(|name| name != table.column());
    Keep { column: table.column().clone(), aggregate, name }
}
