//! Feature vectors in Parquet files as found in practice: files that differ from each other, columns in paths and
//! structs, tables, times far from 1970, damage.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::path::Path;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, DictionaryArray, FixedSizeListArray, Float32Array, Float64Array, Int8Array,
    Int32Array, Int64Array, LargeStringArray, NullArray, RecordBatch, StringArray, StringViewArray, StructArray,
};
use arrow::buffer::NullBuffer;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Fields, Int64Type, TimeUnit, TimestampMicrosecondType};
use dacpipe::column;
use dacpipe::source::{Features, ParquetSpec, SourceOptions, SourceSpec};
use dacpipe::store::Location;
use dacpipe::table::{CommitInfo, Labels, Mode, TableWriter, WriteOptions};
use dacpipe::{Error, Kind};
use parquet::arrow::ArrowWriter;
use parquet::data_type::{DoubleType, Int96, Int96Type};
use parquet::file::properties::WriterProperties;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use tempfile::TempDir;

use crate::sources::{
    Opened, Vector, all, assert_says, error_of, i32s, ids, list, opened, parquet_spec, plain_vectors, quarantine,
    texts, write_parquet,
};

fn spec(path: &Path) -> SourceSpec {
    SourceSpec::Parquet(parquet_spec(path))
}

async fn read(spec: &SourceSpec) -> RecordBatch {
    all(spec, &SourceOptions::default()).await.unwrap_or_else(|e| panic!("{e}"))
}

async fn set_aside(spec: &SourceSpec) -> Opened {
    opened(spec, &quarantine(SourceOptions::default())).await.unwrap_or_else(|e| panic!("{e}"))
}

async fn refused(spec: &SourceSpec) -> Error {
    error_of(spec, &SourceOptions::default()).await
}

fn values(batch: &RecordBatch) -> Vec<f32> {
    column::values(batch, "features").unwrap().0.narrow().into_owned()
}

/// Rows `from..to` of the vectors that [`plain_vectors`] makes, and their ids.
fn rows(from: i32, to: i32) -> (ArrayRef, ArrayRef) {
    let vectors = plain_vectors(to as usize)[from as usize..].to_vec();
    (list(&vectors), Arc::new(Int32Array::from_iter_values(from..to)))
}

fn numbers(n: usize) -> Vector {
    Some((0..n).map(|i| Some(i as f64)).collect())
}

// ---- the width of vectors ----

#[tokio::test(flavor = "multi_thread")]
async fn most_vectors_decide_the_width_wherever_the_odd_ones_are() {
    for (odd, at) in [(1, vec![0]), (5, vec![0, 1, 2, 3]), (0, vec![0]), (3, vec![0, 1, 5, 8]), (7, vec![8])] {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("a.parquet");
        let mut vectors = plain_vectors(9);
        at.iter().for_each(|&i| vectors[i] = numbers(odd));
        write_parquet(&path, vec![("v", list(&vectors)), ("id", ids(9))]);
        let line = at[0] + 1;
        let what = format!("a.parquet:{line}: row {line}, column \"v\": {odd} values, expected 2");
        assert_says(&refused(&spec(&path)).await, &[&what]);
        let opened = set_aside(&spec(&path)).await;
        assert_eq!(opened.source.dim, 2);
        let kept = i32s(&opened.sql("SELECT * FROM t").await.unwrap(), "id");
        assert_eq!(kept, (0..9).filter(|i| !at.contains(&(*i as usize))).collect::<Vec<_>>());
        assert_eq!(opened.bad.len(), at.len());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_of_other_vectors_does_not_decide_the_width() {
    let dir = TempDir::new().unwrap();
    let (v, id) = rows(0, 9);
    write_parquet(&dir.path().join("b.parquet"), vec![("v", v), ("id", id)]);
    let odd: Vec<Vector> = (0..4).map(|_| numbers(3)).collect();
    write_parquet(&dir.path().join("a.parquet"), vec![("v", list(&odd)), ("id", ids(4))]);
    let opened = set_aside(&spec(dir.path())).await;
    assert_eq!(i32s(&opened.sql("SELECT * FROM t").await.unwrap(), "id"), (0..9).collect::<Vec<_>>());
    assert_eq!(opened.bad.len(), 4, "row by row");

    // A type with a fixed width makes the whole file a different one.
    let item = Arc::new(Field::new("item", DataType::Float64, true));
    let fixed = FixedSizeListArray::new(item, 3, Arc::new(Float64Array::from(vec![1.0; 12])), None);
    write_parquet(&dir.path().join("a.parquet"), vec![("v", Arc::new(fixed)), ("id", ids(4))]);
    assert_says(&refused(&spec(dir.path())).await, &["a.parquet", "holds vectors of 3 values, expected 2"]);
    let opened = set_aside(&spec(dir.path())).await;
    assert_eq!(i32s(&opened.sql("SELECT * FROM t").await.unwrap(), "id"), (0..9).collect::<Vec<_>>());
    assert_eq!(opened.bad_rows()[0].1, 0);
}

#[tokio::test]
async fn the_pipeline_may_say_the_width() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("a.parquet");
    let mut vectors = plain_vectors(5);
    vectors[3] = numbers(3);
    write_parquet(&path, vec![("v", list(&vectors)), ("id", ids(5))]);
    let three = SourceSpec::Parquet(ParquetSpec { dim: Some(3), ..parquet_spec(&path) });
    let opened = set_aside(&three).await;
    assert_eq!((opened.source.dim, opened.source.feature_names.len()), (3, 3));
    assert_eq!(i32s(&opened.sql("SELECT * FROM t").await.unwrap(), "id"), [3]);
    assert_says(&refused(&three).await, &["row 1, column \"v\": 2 values, expected 3"]);
    for dim in [0, 5_000_000] {
        let wrong = SourceSpec::Parquet(ParquetSpec { dim: Some(dim), ..parquet_spec(&path) });
        assert_says(&refused(&wrong).await, &["expected 1 to 4194304"]);
    }
}

#[tokio::test]
async fn one_row_of_very_many_values_is_one_bad_row() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("a.parquet");
    let mut vectors = plain_vectors(5);
    vectors[1] = numbers(300_000);
    write_parquet(&path, vec![("v", list(&vectors)), ("id", ids(5))]);
    assert_says(&refused(&spec(&path)).await, &["row 2, column \"v\": 300000 values, expected 2"]);
    let opened = set_aside(&spec(&path)).await;
    assert_eq!(i32s(&opened.sql("SELECT * FROM t").await.unwrap(), "id"), [0, 2, 3, 4]);
}

// ---- files that differ ----

#[tokio::test(flavor = "multi_thread")]
async fn files_of_other_widths_orders_and_lists_are_one_source() {
    let dir = TempDir::new().unwrap();
    let path = |name: &str| dir.path().join(name);
    let item = |t| Arc::new(Field::new("item", t, true));
    let as_lists = |array: ArrayRef, t: DataType| cast(&array, &t).unwrap();
    let kinds = [
        ("a", DataType::List(item(DataType::Float32)), DataType::Int8),
        ("b", DataType::LargeList(item(DataType::UInt8)), DataType::Int64),
        ("c", DataType::FixedSizeList(item(DataType::Float64), 2), DataType::UInt16),
        ("d", DataType::ListView(item(DataType::Float64)), DataType::Int32),
        ("e", DataType::LargeListView(item(DataType::Int64)), DataType::UInt32),
        ("f", DataType::List(item(DataType::Float16)), DataType::Int16),
        ("g", DataType::List(item(DataType::Decimal128(9, 2))), DataType::Int64),
    ];
    for (i, (name, lists, key)) in kinds.iter().enumerate() {
        let (v, id) = rows(3 * i as i32, 3 * i as i32 + 3);
        let (v, id) = (as_lists(v, lists.clone()), cast(&id, key).unwrap());
        let text: ArrayRef = match i % 4 {
            0 => Arc::new(StringArray::from(vec!["x"; 3])),
            1 => Arc::new(LargeStringArray::from(vec!["x"; 3])),
            2 => Arc::new(StringViewArray::from(vec!["x"; 3])),
            _ => Arc::new(vec!["x"; 3].into_iter().collect::<DictionaryArray<arrow::datatypes::Int8Type>>()),
        };
        let mut columns = vec![("v", v), ("id", id), ("name", text)];
        columns.rotate_left(i % 3);
        write_parquet(&path(&format!("{name}.parquet")), columns);
    }
    // A column of a file without a value has no type.
    let (v, id) = rows(21, 23);
    write_parquet(&path("h.parquet"), vec![("name", Arc::new(NullArray::new(2))), ("v", v), ("id", id)]);
    let spec = SourceSpec::Parquet(ParquetSpec { label: Some("name".into()), ..parquet_spec(dir.path()) });
    let found = read(&spec).await;
    assert_eq!(found["id"].as_primitive::<Int64Type>().values()[..], (0..23).collect::<Vec<i64>>()[..]);
    assert_eq!(values(&found), (0..46).map(|i| i as f32).collect::<Vec<_>>());
    let names = texts(&found, "name");
    assert!(names[..21].iter().all(|name| name.as_deref() == Some("x")) && names[21..] == [None, None]);
    let filtered = opened(&spec, &SourceOptions::default()).await.unwrap();
    let filtered = filtered.sql("SELECT id, features FROM t WHERE id >= 8 AND name = 'x'").await.unwrap();
    assert_eq!(values(&filtered), (16..42).map(|i| i as f32).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_cannot_be_of_one_type_are_told_apart_and_most_of_them_win() {
    let dir = TempDir::new().unwrap();
    let text = |from: i32| cast(&rows(from, from + 2).1, &DataType::Utf8).unwrap();
    for (i, name) in ["a", "b", "c"].into_iter().enumerate() {
        let (v, id) = rows(2 * i as i32, 2 * i as i32 + 2);
        let id = if i == 0 { text(0) } else { id };
        write_parquet(&dir.path().join(format!("{name}.parquet")), vec![("v", v), ("id", id)]);
    }
    let says = ["a.parquet: column \"id\" is Utf8, expected Int32 as in ", "b.parquet"];
    assert_says(&refused(&spec(dir.path())).await, &says);
    let opened = set_aside(&spec(dir.path())).await;
    assert_eq!(i32s(&opened.sql("SELECT * FROM t").await.unwrap(), "id"), [2, 3, 4, 5]);
    let bad = opened.bad_rows();
    assert_eq!((bad.len(), bad[0].0.as_str(), bad[0].1), (1, "a.parquet", 0), "{bad:?}");
}

#[tokio::test]
async fn what_the_type_of_all_files_does_not_hold_is_a_bad_row() {
    let dir = TempDir::new().unwrap();
    let (v, _) = rows(0, 3);
    let big: ArrayRef = Arc::new(Int64Array::from(vec![1, (1 << 53) + 1, 1 << 60]));
    write_parquet(&dir.path().join("a.parquet"), vec![("v", v.clone()), ("id", big)]);
    let floats: ArrayRef = Arc::new(Float64Array::from(vec![0.5, 1.5, 2.5]));
    write_parquet(&dir.path().join("b.parquet"), vec![("v", v), ("id", floats)]);
    assert_says(&refused(&spec(dir.path())).await, &["a.parquet:2", "9007199254740993", "Float64"]);
    let opened = set_aside(&spec(dir.path())).await;
    let found = opened.sql("SELECT * FROM t").await.unwrap();
    let keys = found["id"].as_primitive::<arrow::datatypes::Float64Type>().values().to_vec();
    assert_eq!(keys, [1.0, (1u64 << 60) as f64, 0.5, 1.5, 2.5]);
}

// ---- where columns are ----

#[tokio::test(flavor = "multi_thread")]
async fn directories_name_columns() {
    let dir = TempDir::new().unwrap();
    let places = ["split=train/room=a%2Fb", "split=test/room=50%25", "split=test/room=__HIVE_DEFAULT_PARTITION__"];
    for (i, place) in places.into_iter().enumerate() {
        fs::create_dir_all(dir.path().join(place)).unwrap();
        let (v, id) = rows(2 * i as i32, 2 * i as i32 + 2);
        write_parquet(&dir.path().join(place).join("part-0.parquet"), vec![("v", v), ("id", id)]);
    }
    let of_room = ParquetSpec { split: Some("split".into()), label: Some("room".into()), ..parquet_spec(dir.path()) };
    let of_room = SourceSpec::Parquet(of_room);
    // In the order of the paths: 50%, null, a/b.
    let found = read(&of_room).await;
    assert_eq!(i32s(&found, "id"), [2, 3, 4, 5, 0, 1]);
    let some = |text: &str| Some(text.to_owned());
    assert_eq!(texts(&found, "split"), ["test", "test", "test", "test", "train", "train"].map(some));
    assert_eq!(texts(&found, "room"), [some("50%"), some("50%"), None, None, some("a/b"), some("a/b")]);
    let opened = opened(&of_room, &SourceOptions::default()).await.unwrap();
    let found = opened.sql("SELECT id, features FROM t WHERE split = 'train'").await.unwrap();
    assert_eq!((i32s(&found, "id"), values(&found)), (vec![0, 1], vec![0.0, 1.0, 2.0, 3.0]));

    let keyed = ParquetSpec { keys: vec!["room".into(), "id".into()], ..parquet_spec(dir.path()) };
    let keyed = SourceSpec::Parquet(keyed);
    assert_says(&refused(&keyed).await, &["column \"room\" is null, expected a key"]);
    assert_eq!(set_aside(&keyed).await.sql("SELECT * FROM t").await.unwrap().num_rows(), 4);
    let missing = SourceSpec::Parquet(ParquetSpec { label: Some("rooms".into()), ..parquet_spec(dir.path()) });
    assert_says(
        &refused(&missing).await,
        &["no column \"rooms\"; did you mean \"room\"?", "(columns: v, id, room, split)"],
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_and_its_path_must_agree() {
    let dir = TempDir::new().unwrap();
    for (year, stored) in [(2023, [2023, 2023]), (2024, [2024, 1999])] {
        let place = dir.path().join(format!("year={year}"));
        fs::create_dir_all(&place).unwrap();
        let (v, id) = rows(0, 2);
        let stored: ArrayRef = Arc::new(Int32Array::from(stored.to_vec()));
        write_parquet(&place.join("a.parquet"), vec![("v", v), ("id", id), ("year", stored)]);
    }
    // One file has it only in its path: it gets the type of the others.
    fs::create_dir_all(dir.path().join("year=2025")).unwrap();
    let (v, id) = rows(0, 2);
    write_parquet(&dir.path().join("year=2025/a.parquet"), vec![("v", v.clone()), ("id", id.clone())]);
    let keyed = ParquetSpec { keys: vec!["year".into(), "id".into()], ..parquet_spec(dir.path()) };
    let keyed = SourceSpec::Parquet(keyed);
    let says = ["a.parquet:2: row 2, column \"year\" is \"1999\" in the file, and \"2024\" in its path"];
    assert_says(&refused(&keyed).await, &says);
    let opened = set_aside(&keyed).await;
    assert_eq!(i32s(&opened.sql("SELECT * FROM t").await.unwrap(), "year"), [2023, 2023, 2024, 2025, 2025]);
    // The same rows whatever is asked for.
    assert_eq!(opened.sql("SELECT id FROM t").await.unwrap().num_rows(), 5);

    fs::create_dir_all(dir.path().join("year=old")).unwrap();
    write_parquet(&dir.path().join("year=old/a.parquet"), vec![("v", v), ("id", id)]);
    let opened = set_aside(&keyed).await;
    assert_eq!(opened.sql("SELECT * FROM t").await.unwrap().num_rows(), 5);
    assert!(opened.bad_rows().iter().any(|bad| bad.1 == 0 && bad.2.contains("\"old\" in its path, expected Int32")));
}

#[tokio::test]
async fn dots_lead_into_structs() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("a.parquet");
    let field = |name: &str, array: &ArrayRef| Arc::new(Field::new(name, array.data_type().clone(), true));
    let of = |columns: Vec<(&str, ArrayRef)>, nulls: Option<NullBuffer>| -> ArrayRef {
        let fields: Fields = columns.iter().map(|(name, array)| field(name, array)).collect();
        Arc::new(StructArray::new(fields, columns.into_iter().map(|c| c.1).collect(), nulls))
    };
    let x = |from: f32| Arc::new(Float32Array::from_iter_values((0..4).map(|i| from + i as f32))) as ArrayRef;
    let inner = of(vec![("v", list(&plain_vectors(4))), ("name", crate::sources::splits(4))], None);
    let acc =
        of(vec![("x", x(0.0)), ("y", x(10.0)), ("in", inner)], Some(NullBuffer::from(vec![true, true, false, true])));
    write_parquet(&path, vec![("acc", acc), ("id", ids(4)), ("acc.y", x(100.0))]);

    let features = Features::Columns(vec!["acc.x".into(), "acc.y".into()]);
    let columns = ParquetSpec { features, ..parquet_spec(&path) };
    let opened = set_aside(&SourceSpec::Parquet(columns)).await;
    let found = opened.sql("SELECT * FROM t").await.unwrap();
    assert_eq!(values(&found), [0.0, 100.0, 1.0, 101.0, 3.0, 103.0], "a column of that very name comes first");
    assert!(opened.bad_rows()[0].2.contains("column \"acc.x\" is null"));

    let features = Features::Column("acc.in.v".into());
    let lists = ParquetSpec { features, label: Some("acc.in.name".into()), ..parquet_spec(&path) };
    let opened = set_aside(&SourceSpec::Parquet(lists)).await;
    let found = opened.sql("SELECT * FROM t").await.unwrap();
    assert_eq!((i32s(&found, "id"), values(&found).len()), (vec![0, 1, 3], 6));
    assert_eq!(texts(&found, "acc.in.name")[2].as_deref(), Some("test"));

    let whole = ParquetSpec { features: Features::Column("acc".into()), ..parquet_spec(&path) };
    assert_says(&refused(&SourceSpec::Parquet(whole)).await, &["named with a dot (acc.x, acc.y, acc.in)"]);
}

#[tokio::test]
async fn whatever_is_a_number_is_a_feature() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("a.parquet");
    let floats: ArrayRef = Arc::new(Float64Array::from(vec![0.25, 1.5, -2.0]));
    let on: ArrayRef = Arc::new(BooleanArray::from(vec![true, false, true]));
    let keys = Int8Array::from(vec![1, 0, 1]);
    let named: ArrayRef = Arc::new(DictionaryArray::new(keys, Arc::new(Int32Array::from(vec![10, 20]))));
    write_parquet(
        &path,
        vec![
            ("decimal", cast(&floats, &DataType::Decimal128(12, 3)).unwrap()),
            ("wide", cast(&floats, &DataType::Decimal256(50, 2)).unwrap()),
            ("half", cast(&floats, &DataType::Float16).unwrap()),
            ("on", on),
            ("named", named),
            ("id", ids(3)),
            ("v", list(&plain_vectors(3))),
            ("none", Arc::new(NullArray::new(3))),
        ],
    );
    let names = ["decimal", "wide", "half", "on", "named"].map(String::from).to_vec();
    let columns =
        |names| SourceSpec::Parquet(ParquetSpec { features: Features::Columns(names), ..parquet_spec(&path) });
    let found = read(&columns(names)).await;
    let expected = [[0.25, 0.25, 0.25, 1.0, 20.0], [1.5, 1.5, 1.5, 0.0, 10.0], [-2.0, -2.0, -2.0, 1.0, 20.0]];
    assert_eq!(values(&found), expected.concat());
    assert_says(&refused(&columns(vec!["none".into()])).await, &["row 1, column \"none\" is null, expected a number"]);

    let item = Arc::new(Field::new("item", DataType::Float64, true));
    let inside = FixedSizeListArray::new(item.clone(), 1, Arc::new(Float64Array::from(vec![1.0; 4])), None);
    let inner = Arc::new(Field::new("item", inside.data_type().clone(), true));
    let nested: ArrayRef = Arc::new(FixedSizeListArray::new(inner, 2, Arc::new(inside), None));
    write_parquet(&path, vec![("v", nested), ("id", ids(2))]);
    assert_says(&refused(&spec(&path)).await, &["flatten lists of lists"]);
}

/// Writes 96-bit times as `id`, each as days since 4713 BC and nanoseconds within the day, and `x`, which counts them.
fn write_times(path: &Path, times: &[(u32, u64)]) {
    let schema = "message m { required int96 id; required double x; }";
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let file = fs::File::create(path).unwrap();
    let mut writer = SerializedFileWriter::new(file, schema, Arc::new(WriterProperties::new())).unwrap();
    let mut group = writer.next_row_group().unwrap();
    let of_96_bits = |&(day, nanos): &(u32, u64)| {
        let mut time = Int96::new();
        time.set_data(nanos as u32, (nanos >> 32) as u32, day);
        time
    };
    let mut column = group.next_column().unwrap().unwrap();
    let written = times.iter().map(of_96_bits).collect::<Vec<_>>();
    column.typed::<Int96Type>().write_batch(&written, None, None).unwrap();
    column.close().unwrap();
    let mut column = group.next_column().unwrap().unwrap();
    let count = (1..=times.len()).map(|i| i as f64).collect::<Vec<_>>();
    column.typed::<DoubleType>().write_batch(&count, None, None).unwrap();
    column.close().unwrap();
    group.close().unwrap();
    writer.close().unwrap();
}

#[tokio::test]
async fn times_of_96_bits_do_not_wrap() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("a.parquet");
    // 1970, 9999-12-31 02:00, 1200-01-01, 2021-06-09 03:02:37.123456.
    let far = [(2_440_588, 0), (5_373_484, 7_200_000_000_000), (2_159_351, 0), (2_459_375, 10_957_123_456_000u64)];
    write_times(&path, &far);
    let found = ParquetSpec { features: Features::Columns(vec!["x".into()]), ..parquet_spec(&path) };
    let found = read(&SourceSpec::Parquet(found)).await;
    assert_eq!(found["id"].data_type(), &DataType::Timestamp(TimeUnit::Microsecond, None));
    let found = found["id"].as_primitive::<TimestampMicrosecondType>();
    let found = (0..4).map(|i| found.value_as_datetime(i).unwrap().to_string()).collect::<Vec<_>>();
    let expected = ["1970-01-01 00:00:00", "9999-12-31 02:00:00", "1200-01-01 00:00:00", "2021-06-09 03:02:37.123456"];
    assert_eq!(found, expected);
}

/// Digits below a microsecond are not dropped silently, whether the time is a key or is carried along, and whether it
/// is asked for or not.
#[tokio::test(flavor = "multi_thread")]
async fn digits_of_96_bits_below_a_microsecond_are_told() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("a.parquet");
    write_times(
        &path,
        &[(2_459_375, 10_957_123_456_000), (2_459_375, 10_957_123_456_007), (5_373_484, 999), (9_999_999, 0)],
    );
    let store = Location::parse("memory:///digits_of_96_bits").unwrap();
    store.put("a.parquet", fs::read(&path).unwrap().into()).await.unwrap();
    let features = Features::Columns(vec!["x".into()]);
    let key = ParquetSpec { features: features.clone(), ..parquet_spec(&path) };
    let kept = ParquetSpec { keys: vec![], keep: vec!["id".into()], ..key.clone() };
    let remote = ParquetSpec { path: "memory:///digits_of_96_bits/a.parquet".into(), ..key.clone() };
    for spec in [key, kept, remote].map(SourceSpec::Parquet) {
        let e = refused(&spec).await;
        assert_says(
            &e,
            &["a.parquet:2: row 2, column \"id\" is 2021-06-09T03:02:37.123456 and 7 ns more", "microseconds"],
        );
        for query in ["SELECT * FROM t", "SELECT features FROM t"] {
            let opened = set_aside(&spec).await;
            let found = opened.sql(query).await.unwrap();
            assert_eq!(values(&found), [1.0, 4.0]);
            assert_eq!(opened.bad_rows().iter().map(|row| row.1).collect::<Vec<_>>(), [2, 3], "{query}");
        }
    }
}

// ---- tables ----

/// Writes rows `from..to` to the table at `place`, by `part`.
async fn commit(place: &Location, run: &str, mode: Mode, from: i32, to: i32) {
    let options = WriteOptions::new(mode, run).partition_by(&["part".to_owned()]);
    let mut writer = TableWriter::begin(place, options).await.unwrap();
    let part = StringArray::from_iter_values((from..to).map(|i| if i % 2 == 0 { "a/b" } else { "c d" }));
    let batch = RecordBatch::try_from_iter([
        ("id", Arc::new(Int32Array::from_iter_values(from..to)) as ArrayRef),
        ("part", Arc::new(part)),
        ("cluster", Arc::new(Int32Array::from_iter_values((from..to).map(|_| 0)))),
        ("distance", Arc::new(Float32Array::from_iter_values((from..to).map(|i| i as f32)))),
    ]);
    let batch = batch.unwrap();
    let labels = Labels { model: "3f1c".into(), labelled_at: std::time::SystemTime::now() };
    let sink = writer.sink(batch.schema(), labels).unwrap();
    sink.write(&batch).await.unwrap();
    writer.commit(CommitInfo::default()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_is_read_by_its_log() {
    let dir = TempDir::new().unwrap();
    let local = dir.path().join("t").display().to_string();
    let places = [local.clone(), format!("{local}/"), "memory:///parquet_files/t".to_owned()];
    for (i, place) in places.into_iter().enumerate() {
        let location = Location::parse(place.trim_end_matches('/')).unwrap();
        commit(&location, &format!("run-1-{i}"), Mode::Overwrite, 0, 10).await;
        commit(&location, &format!("run-2-{i}"), Mode::Overwrite, 20, 24).await;
        commit(&location, &format!("run-3-{i}"), Mode::Append, 30, 33).await;
        let features = Features::Columns(vec!["distance".into()]);
        let of = |path: &str| ParquetSpec {
            features: features.clone(),
            split: Some("part".into()),
            path: path.to_owned(),
            ..parquet_spec(Path::new(""))
        };
        let found = read(&SourceSpec::Parquet(of(&place))).await;
        let parts = i32s(&found, "id").into_iter().zip(texts(&found, "part")).collect::<BTreeMap<_, _>>();
        let expected = [20, 21, 22, 23, 30, 31, 32];
        assert_eq!(parts.keys().copied().collect::<Vec<_>>(), expected);
        assert!(parts.iter().all(|(id, part)| part.as_deref() == Some(if id % 2 == 0 { "a/b" } else { "c d" })));
        let mut distances = values(&found);
        distances.sort_by(f32::total_cmp);
        assert_eq!(distances, expected.map(|i| i as f32));
    }
    let features = Features::Columns(vec!["distance".into()]);
    let inside = ParquetSpec { features, ..parquet_spec(&dir.path().join("t/data")) };
    assert_says(&refused(&SourceSpec::Parquet(inside.clone())).await, &["give the path of the table itself"]);
    let around = ParquetSpec { path: dir.path().display().to_string(), ..inside };
    assert_says(&refused(&SourceSpec::Parquet(around)).await, &["are files of the Delta table", "whose log says"]);

    let log = fs::read_dir(format!("{local}/_delta_log")).unwrap().map(|entry| entry.unwrap().path()).min().unwrap();
    fs::write(log, "no log").unwrap();
    let features = Features::Columns(vec!["distance".into()]);
    let damaged = SourceSpec::Parquet(ParquetSpec { features, path: local, ..parquet_spec(Path::new("")) });
    let e = all(&damaged, &SourceOptions::default()).await.unwrap_err();
    assert_eq!(e.kind(), Kind::Table, "{e}");
}

// ---- damage ----

/// Every byte of a file is damaged, one bit of it or all: nothing panics, the other file is still read, and every row
/// of the damaged file is read or set aside, or the whole file is.
#[tokio::test(flavor = "multi_thread")]
async fn a_turned_byte_is_one_bad_file() {
    let dir = TempDir::new().unwrap();
    let bad = dir.path().join("a.parquet");
    let name: ArrayRef = crate::sources::splits(4);
    write_parquet(&bad, vec![("v", list(&plain_vectors(4))), ("id", ids(4)), ("name", name.clone())]);
    write_parquet(&dir.path().join("b.parquet"), vec![("v", list(&plain_vectors(4))), ("id", ids(4)), ("name", name)]);
    // If two files have as many vectors each, the damaged one may decide the width.
    let dim = Some(2);
    let spec = SourceSpec::Parquet(ParquetSpec { dim, label: Some("name".into()), ..parquet_spec(dir.path()) });
    let whole = fs::read(&bad).unwrap();
    let (mut as_files, mut as_rows) = (0, 0);
    for at in 0..whole.len() {
        let bits = if at % 2 == 0 { 1u8 << (at / 2 % 8) } else { 0xff };
        let mut bytes = whole.clone();
        bytes[at] ^= bits;
        fs::write(&bad, bytes).unwrap();
        let opened = set_aside(&spec).await;
        let found = opened.sql("SELECT * FROM t").await.unwrap_or_else(|e| panic!("byte {at}: {e}"));
        let in_bad = opened.bad_rows().into_iter().filter(|row| row.0 == "a.parquet").collect::<Vec<_>>();
        let of_good = opened.bad.len() - in_bad.len();
        assert_eq!(of_good, 0, "byte {at}");
        match in_bad.iter().any(|row| row.1 == 0) {
            true => {
                as_files += 1;
                assert!(found.num_rows() >= 4, "byte {at}: {in_bad:?}");
            }
            false => {
                as_rows += 1;
                assert_eq!(found.num_rows() as u64 + opened.aside(), 8, "byte {at}: {in_bad:?}");
            }
        }
        let alone = SourceSpec::Parquet(ParquetSpec { label: Some("name".into()), ..parquet_spec(&bad) });
        if let Err(e) = all(&alone, &SourceOptions::default()).await {
            assert_eq!(e.kind(), Kind::Input, "byte {at}: {e}");
            assert!(e.to_string().contains("a.parquet"), "byte {at}: {e}");
        }
    }
    assert!(as_files > 100 && as_rows > 100, "{as_files} files, {as_rows} with all rows");
}

/// Row groups of five rows: `v` as vectors, `x` and `y` as columns, `id` and `name`.
fn write_groups(path: &Path, groups: usize) {
    let rows = 5 * groups;
    let x: ArrayRef = Arc::new(Float64Array::from_iter_values((0..rows).map(|row| row as f64 / 2.0)));
    let y: ArrayRef = Arc::new(Int64Array::from_iter_values((0..rows).map(|row| row as i64 % 7)));
    let columns = vec![
        ("v", list(&plain_vectors(rows))),
        ("id", ids(rows)),
        ("x", x),
        ("y", y),
        ("name", crate::sources::splits(rows)),
    ];
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let properties = WriterProperties::builder().set_max_row_group_row_count(Some(5)).build();
    let mut writer = ArrowWriter::try_new(File::create(path).unwrap(), batch.schema(), Some(properties)).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

/// Overwrites the pages of one column in a row group; the footer stays as it is.
pub fn spoil(path: &Path, group: usize, column: &str) {
    let metadata = SerializedFileReader::new(File::open(path).unwrap()).unwrap().metadata().clone();
    let group = metadata.row_group(group);
    let chunk = group.columns().iter().find(|chunk| chunk.column_path().parts()[0] == column).unwrap();
    let (start, length) = chunk.byte_range();
    let mut bytes = fs::read(path).unwrap();
    bytes[start as usize..(start + length) as usize].fill(0xff);
    fs::write(path, bytes).unwrap();
}

/// Whatever columns and row groups are damaged, the rows of the others are read, and those of the damaged ones counted.
#[tokio::test(flavor = "multi_thread")]
async fn damaged_pages_cost_their_row_groups_alone() {
    let vectors = Features::Column("v".into());
    let columns = Features::Columns(vec!["x".into(), "y".into()]);
    for (features, damaged) in [
        (&vectors, vec![(0, "v")]),
        (&vectors, vec![(5, "v")]),
        (&vectors, vec![(2, "v"), (3, "v")]),
        (&vectors, vec![(0, "id"), (5, "id"), (2, "v")]),
        (&vectors, vec![(1, "name"), (1, "v"), (4, "name")]),
        (&vectors, (0..5).map(|group| (group, "v")).collect()),
        (&columns, vec![(0, "x"), (5, "y")]),
        (&columns, vec![(3, "x"), (3, "y"), (4, "id")]),
        (&columns, (1..6).map(|group| (group, "y")).collect()),
    ] {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("a.parquet");
        write_groups(&path, 6);
        let spec = ParquetSpec { features: features.clone(), label: Some("name".into()), ..parquet_spec(&path) };
        let spec = SourceSpec::Parquet(spec);
        damaged.iter().for_each(|(group, column)| spoil(&path, *group, column));
        let groups: BTreeSet<i32> = damaged.iter().map(|(group, _)| *group as i32).collect();
        let kept: Vec<i32> = (0..30).filter(|row| !groups.contains(&(row / 5))).collect();
        let of_file = set_aside(&spec).await;
        assert_eq!(i32s(&of_file.sql("SELECT * FROM t").await.unwrap(), "id"), kept, "{damaged:?}");
        let bad = of_file.bad_rows();
        assert_eq!(of_file.aside(), 5 * groups.len() as u64, "{damaged:?}: {bad:?}");
        for (bad, group) in bad.iter().zip(&groups) {
            let (first, last) = (5 * group + 1, 5 * group + 5);
            let says =
                format!("row group {group} (of 6, counted from 0): none of its 5 rows {first} to {last} can be read: ");
            assert!(bad.1 == first as u64 && bad.2.starts_with(&says), "{bad:?}");
        }
        // Any other reading of it counts them once more and not twice.
        for query in ["SELECT count(*) FROM t", "SELECT id FROM t WHERE name = 'train'", "SELECT * FROM t LIMIT 3"] {
            of_file.sql(query).await.unwrap();
        }
        assert_eq!((of_file.aside(), of_file.bad_rows()), (5 * groups.len() as u64, bad));
        let first = groups.first().unwrap();
        assert_says(&refused(&spec).await, &[&format!("a.parquet: row group {first} (of 6, counted from 0): ")]);
    }
}

/// As of a local file, though its row groups are fetched at once.
#[tokio::test(flavor = "multi_thread")]
async fn damaged_pages_of_a_remote_file_cost_their_row_groups_alone() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("a.parquet");
    write_groups(&path, 6);
    [(0, "v"), (3, "id"), (5, "v")].iter().for_each(|(group, column)| spoil(&path, *group, column));
    let place = Location::parse("memory:///damaged-pages").unwrap();
    place.put("a.parquet", fs::read(&path).unwrap().into()).await.unwrap();
    let remote = ParquetSpec { path: "memory:///damaged-pages".into(), ..parquet_spec(&path) };
    for features in [Features::Column("v".into()), Features::Columns(vec!["x".into(), "y".into()])] {
        let spec = SourceSpec::Parquet(ParquetSpec { features: features.clone(), ..remote.clone() });
        let of_file = set_aside(&spec).await;
        let damaged: &[i32] = if features == Features::Column("v".into()) { &[0, 3, 5] } else { &[3] };
        let kept: Vec<i32> = (0..30).filter(|row| !damaged.contains(&(row / 5))).collect();
        assert_eq!(i32s(&of_file.sql("SELECT * FROM t").await.unwrap(), "id"), kept);
        assert_eq!(of_file.aside(), 5 * damaged.len() as u64, "{:?}", of_file.bad_rows());
        let first = damaged[0];
        assert_says(&refused(&spec).await, &[&format!("row group {first} (of 6, counted from 0): none of its 5 rows")]);
    }
}

/// Rows before the damage in a row group are read if they come in a batch before it.
#[tokio::test(flavor = "multi_thread")]
async fn rows_before_the_damage_are_kept_batch_by_batch() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("a.parquet");
    let rows = 4000;
    let x: ArrayRef = Arc::new(Float64Array::from_iter_values((0..rows).map(f64::from)));
    let batch = RecordBatch::try_from_iter([("id", ids(rows as usize)), ("x", x)]).unwrap();
    // Pages of a hundred rows.
    let properties = WriterProperties::builder()
        .set_max_row_group_row_count(Some(2000))
        .set_data_page_row_count_limit(100)
        .set_write_batch_size(100)
        .set_dictionary_enabled(false);
    let properties = Some(properties.build());
    let mut writer = ArrowWriter::try_new(File::create(&path).unwrap(), batch.schema(), properties).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    let metadata = SerializedFileReader::new(File::open(&path).unwrap()).unwrap().metadata().clone();
    let (start, length) = metadata.row_group(0).column(1).byte_range();
    let mut bytes = fs::read(&path).unwrap();
    bytes[(start + length / 2) as usize..(start + length) as usize].fill(0xff);
    fs::write(&path, bytes).unwrap();
    let spec = ParquetSpec { features: Features::Columns(vec!["x".into()]), ..parquet_spec(&path) };
    let of_file = set_aside(&SourceSpec::Parquet(spec)).await;
    let kept = i32s(&of_file.sql_in("SELECT * FROM t", 64).await.unwrap(), "id");
    let before = kept.iter().take_while(|id| **id < 2000).count();
    assert!((800..1100).contains(&before) && before % 64 == 0, "{before}");
    assert_eq!(kept, (0..before as i32).chain(2000..4000).collect::<Vec<_>>());
    let (bad, lost) = (of_file.bad_rows(), 2000 - before);
    assert_eq!((bad.len(), bad[0].1, of_file.aside()), (1, before as u64 + 1, lost as u64));
    let says = format!("its {lost} rows from {} to 2000 cannot be read", before + 1);
    assert!(bad[0].2.contains(&says), "{bad:?}");
    // A pass with larger batches comes less far: what is lost is what that pass does not read.
    let kept = of_file.sql_in("SELECT * FROM t", 1024).await.unwrap().num_rows() as u64;
    assert_eq!(kept + of_file.aside(), 4000);
}

/// A file that is set aside as a whole counts with its rows, where its footer says how many they are.
#[tokio::test(flavor = "multi_thread")]
async fn files_that_are_set_aside_count_with_their_rows() {
    let dir = TempDir::new().unwrap();
    for name in ["a", "b"] {
        write_parquet(
            &dir.path().join(name).with_extension("parquet"),
            vec![("v", list(&plain_vectors(9))), ("id", ids(9))],
        );
    }
    let other: ArrayRef = Arc::new(StringArray::from(vec!["x"; 7]));
    write_parquet(&dir.path().join("c.parquet"), vec![("v", list(&plain_vectors(7))), ("id", other)]);
    fs::write(dir.path().join("d.parquet"), "not Parquet").unwrap();
    let of_files = set_aside(&spec(dir.path())).await;
    assert_eq!(of_files.sql("SELECT * FROM t").await.unwrap().num_rows(), 18);
    let rows: Vec<_> = of_files.bad.rows().into_iter().map(|bad| (bad.line, bad.rows)).collect();
    assert_eq!(rows, [(0, Some(7)), (0, None)]);
    assert_eq!(of_files.aside(), 8);
}

/// The width of vectors is found whatever row groups are damaged, as long as one is not.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_without_any_vector_that_can_be_read_says_so() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("a.parquet");
    write_groups(&path, 3);
    (0..3).for_each(|group| spoil(&path, group, "v"));
    let e = opened(&spec(&path), &quarantine(SourceOptions::default())).await.map(|_| ()).unwrap_err();
    assert_says(&e, &["none of 1 files can be used, the first because: ", "a.parquet: row group 0 (of 3"]);
    // With a width, there are just no rows.
    let of_file = set_aside(&SourceSpec::Parquet(ParquetSpec { dim: Some(2), ..parquet_spec(&path) })).await;
    assert_eq!((of_file.sql("SELECT * FROM t").await.unwrap().num_rows(), of_file.aside()), (0, 15));
    // Another file decides it.
    write_groups(&dir.path().join("b.parquet"), 1);
    let of_files = set_aside(&spec(dir.path())).await;
    assert_eq!((of_files.sql("SELECT * FROM t").await.unwrap().num_rows(), of_files.aside()), (5, 15));
}

/// Uncompressed pages with checksums, of 20 vectors of two numbers: i and its square, and `id`, which is i.
const CHECKSUMS: &[u8] = include_bytes!("data/checksums.parquet");

/// A bit turned in a number leaves a number: only the checksum of its page tells.
#[tokio::test(flavor = "multi_thread")]
async fn a_page_that_contradicts_its_checksum_is_damage() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("a.parquet");
    fs::write(&path, CHECKSUMS).unwrap();
    let spec = SourceSpec::Parquet(ParquetSpec { dim: Some(2), ..parquet_spec(&path) });
    let whole = read(&spec).await;
    assert_eq!(values(&whole), (0..20).flat_map(|i| [i as f32, (i * i) as f32]).collect::<Vec<_>>());
    let places = [19f32.to_le_bytes(), 361f32.to_le_bytes(), 18i32.to_le_bytes()];
    for place in places {
        let at = CHECKSUMS.windows(4).position(|bytes| bytes == place).unwrap();
        let mut damaged = CHECKSUMS.to_vec();
        damaged[at] ^= 1;
        fs::write(&path, damaged).unwrap();
        assert_says(&refused(&spec).await, &["a.parquet", "checksum"]);
        let opened = set_aside(&spec).await;
        assert_eq!(opened.sql("SELECT id, features FROM t").await.unwrap().num_rows(), 0);
        let bad = opened.bad_rows();
        assert_eq!(bad.len(), 1, "{bad:?}");
        assert!(bad[0].2.contains("checksum"), "{bad:?}");
    }
}

#[tokio::test]
async fn where_no_file_is_left_the_first_reason_and_the_number_are_said() {
    let dir = TempDir::new().unwrap();
    for name in ["a.parquet", "b.parquet"] {
        fs::write(dir.path().join(name), "<!DOCTYPE html>").unwrap();
    }
    let e = opened(&spec(dir.path()), &quarantine(SourceOptions::default())).await.map(|_| ()).unwrap_err();
    assert_says(&e, &["none of 2 files can be used, the first because: ", "a.parquet: not a readable Parquet file"]);
}
