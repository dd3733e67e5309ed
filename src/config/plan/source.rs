//! Turns `[source]` into the spec of a source.

use super::super::file::*;
use crate::source::parquet::Features;
use crate::source::{
    AcrossFiles, Aggregate, CsvSpec, Delimiter, Dialect, Disorder, Encoding, Fill, HaptSpec, Jitter, Keep, ParquetSpec,
    Repeated, SameTime, SampleRules, SourceSpec, TimeColumn, TimeUnit,
};

pub(super) fn source(table: &SourceTable) -> SourceSpec {
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
    let unit = match table.time_unit {
        TimeUnitName::Auto => TimeUnit::Auto,
        TimeUnitName::S => TimeUnit::S,
        TimeUnitName::Ms => TimeUnit::Ms,
        TimeUnitName::Us => TimeUnit::Us,
        TimeUnitName::Ns => TimeUnit::Ns,
    };
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
        encoding: match table.encoding {
            EncodingName::Utf8 => Encoding::Utf8,
            EncodingName::Latin1 => Encoding::Latin1,
            EncodingName::Windows1252 => Encoding::Windows1252,
            EncodingName::Utf16 => Encoding::Utf16,
            EncodingName::Utf16Le => Encoding::Utf16Le,
            EncodingName::Utf16Be => Encoding::Utf16Be,
        },
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
        has_header: table.header,
        skip_after_header: table.skip_after_header,
    }
}

fn sample_rules(table: &CsvTable) -> SampleRules {
    SampleRules {
        jitter: table.jitter.map(|jitter| match jitter {
            JitterTable::Part(part) => Jitter::Part(part),
            JitterTable::Time(time) => Jitter::Time(time),
        }),
        disorder: match table.disorder {
            DisorderTable::Lines(lines) => Disorder::Lines(lines as usize),
            DisorderTable::Time(time) => Disorder::Time(time),
        },
        same_time: match table.same_time {
            SameTimeName::Refuse => SameTime::Refuse,
            SameTimeName::Spread => SameTime::Spread,
        },
        repeated: match table.repeated {
            RepeatedName::Refuse => Repeated::Refuse,
            RepeatedName::Drop => Repeated::Drop,
        },
        fill: match table.fill {
            FillName::Refuse => Fill::Refuse,
            FillName::Hold => Fill::Hold,
        },
        resample: table.resample,
        across_files: match table.across_files {
            AcrossFilesName::Refuse => AcrossFiles::Refuse,
            AcrossFilesName::Continue => AcrossFiles::Continue,
        },
    }
}

fn keep(table: &KeepTable) -> Keep {
    let aggregate = match table.aggregate() {
        AggregateName::First => Aggregate::First,
        AggregateName::Last => Aggregate::Last,
        AggregateName::Mode => Aggregate::Mode,
        AggregateName::Mean => Aggregate::Mean,
        AggregateName::Min => Aggregate::Min,
        AggregateName::Max => Aggregate::Max,
    };
    let name = Some(table.name().clone()).filter(|name| name != table.column());
    Keep { column: table.column().clone(), aggregate, name }
}
