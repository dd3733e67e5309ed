//! Text files of recordings as found in practice: encodings, delimiters, numbers, preambles, unclosed quotes, endless
//! lines. A file gives its values, or a message that says what is wrong and which key reads it.

use std::fs;
use std::io::Write;
use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::Int64Type;
use dacpipe::column;
use dacpipe::signal::window::{WindowSpec, Within};
use dacpipe::source::{
    BadRows, CsvSpec, Delimiter, Dialect, Encoding, OnBadRow, SourceOptions, SourceSpec, TextFormat, open,
};
use dacpipe::{Kind, Result};
use datafusion::prelude::SessionContext;
use tempfile::TempDir;

/// What a file gave: its rows, and the bad ones with line and reason.
struct Read {
    rows: RecordBatch,
    bad: Vec<(u64, String)>,
}

/// Reads `bytes` as a file, under quarantine if `on_bad_row` says so; each row is a sample, or windows of `window`
/// samples are cut.
async fn read_with(bytes: &[u8], spec: CsvSpec, on_bad_row: OnBadRow, window: Option<usize>) -> Result<Read> {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("a.csv");
    fs::write(&path, bytes).unwrap();
    let window = window.map(|length| WindowSpec { length, stride: 1, within: Within::Recordings });
    let options = SourceOptions { on_bad_row, window, ..Default::default() };
    let bad = Arc::new(BadRows::new());
    let spec = SourceSpec::Csv(CsvSpec { path: path.display().to_string(), ..spec });
    let source = open(&spec, &options, bad.clone()).await?;
    let context = SessionContext::new();
    context.register_table("t", source.provider)?;
    let frame = context.sql("SELECT * FROM t").await?;
    let schema = Arc::new(frame.schema().as_arrow().clone());
    let batches = frame.collect().await?;
    let schema = batches.first().map_or(schema, |b| b.schema());
    let rows = arrow::compute::concat_batches(&schema, &batches)?;
    Ok(Read { rows, bad: bad.rows().into_iter().map(|row| (row.line, row.reason)).collect() })
}

/// The good and the bad rows of `bytes`.
async fn read(bytes: impl AsRef<[u8]>, spec: &CsvSpec) -> Read {
    read_with(bytes.as_ref(), spec.clone(), OnBadRow::Quarantine, None).await.unwrap()
}

/// The message of the error that `bytes` give.
async fn refused(bytes: impl AsRef<[u8]>, spec: &CsvSpec) -> String {
    let error = read_with(bytes.as_ref(), spec.clone(), OnBadRow::Fail, None).await.err().expect("an error");
    assert_eq!(error.kind(), Kind::Input, "{error}");
    let said = error.to_string();
    assert!(said.len() < 1000 && !said.contains('\u{fffd}') && !said.chars().any(char::is_control), "{said:?}");
    said
}

impl Read {
    /// The values of the channels, row after row.
    fn values(&self) -> Vec<f32> {
        column::values(&self.rows, "features").unwrap().0.narrow().into_owned()
    }

    fn texts(&self, column: &str) -> Vec<&str> {
        self.rows[column].as_string::<i32>().iter().map(Option::unwrap_or_default).collect()
    }

    fn bad_lines(&self) -> Vec<u64> {
        self.bad.iter().map(|(line, _)| *line).collect()
    }
}

/// A file of the channels x and y.
fn xy(dialect: Dialect) -> CsvSpec {
    CsvSpec { dialect, ..CsvSpec::new("", &["x", "y"]) }
}

fn usual() -> CsvSpec {
    xy(Dialect::default())
}

const VALUES: [f32; 4] = [1.5, -2.0, 3.25, 4e3];

/// Checks that `bytes` give exactly [`VALUES`].
async fn same(bytes: impl AsRef<[u8]>, dialect: Dialect) {
    let shown = String::from_utf8_lossy(bytes.as_ref()).into_owned();
    let found = read(bytes, &xy(dialect)).await;
    assert!(found.bad.is_empty(), "{shown:?}: {:?}", found.bad);
    assert_eq!(found.values(), VALUES, "{shown:?}");
}

#[tokio::test]
async fn the_same_values_in_every_dialect() {
    let usual = Dialect::default;
    let by = |delimiter: Delimiter| Dialect { delimiter: Some(delimiter), ..usual() };
    same("x,y\n1.5,-2\n3.25,4e3\n", usual()).await;
    same("x;y\n1.5;-2\n3.25;4e3\n", by(';'.into())).await;
    same("x\ty\n1.5\t-2\n3.25\t4e3", by('\t'.into())).await;
    same("x|y\n1.5|-2\n3.25|4e3", by('|'.into())).await;
    same("   x    y\n 1.5   -2\n3.25 \t4e3  \n\n", by(Delimiter::Blanks)).await;
    same("x;y\n1,5;-2,0\n3,25;4e3\n", Dialect { decimal: ',', ..usual() }).await;
    same("x;y\n\"1,5\";-2\n+3,25;4.000,0\n", Dialect { decimal: ',', thousands: Some('.'), ..usual() }).await;
    same("x,y\n1.5,-2\n3.25,\"4,000\"\n", Dialect { thousands: Some(','), ..usual() }).await;
    same("'x','y'\n'1.5','-2'\n3.25,4e3\n", Dialect { quote: Some('\''), ..usual() }).await;
    same("# by hand\nx,y\n#1,2\n1.5,-2\n\n# \"\n3.25,4e3\n#", Dialect { comment: Some("#".into()), ..usual() }).await;
    same("x,y;1.5,-2;\n3.25,4e3;", Dialect { row_end: Some(';'), ..usual() }).await;
    same("x,y,\n1.5,-2,\n3.25,4e3\n", usual()).await;
    same("x,y\n1.5,-2,\n3.25,4e3,,,\n", usual()).await;
    same("note,x,y\n\"a, b\",1.5,-2\n\"two\r\nlines\",3.25,4e3\n", usual()).await;
    same("x,y\nm/s,m/s\n1.5,-2\n3.25,4e3\n", Dialect { skip_after_header: 1, ..usual() }).await;
    same("x,y\n9,9\n\nx,y\n1.5,-2\n3.25,4e3\n", Dialect { skip_lines: 3, ..usual() }).await;
    same("sep=;\r\nx;y\r\n1.5;-2\r\n3.25;4e3\r\n", usual()).await;
    same("sep=;\nx;y\n1.5;-2\n3.25;4e3\n", by(';'.into())).await;
    same("\u{feff}\"sep=\t\"\nx\ty\n1.5\t-2\n3.25\t4e3\n", usual()).await;
}

/// Quotes inside fields: doubled, or escaped.
#[tokio::test]
async fn quotes_that_are_text_are_doubled_or_escaped() {
    let spec = |dialect: Dialect| CsvSpec { keys: vec!["k".into()], dialect, ..CsvSpec::new("", &["x"]) };
    let usual = Dialect::default;
    let escape = Dialect { escape: Some('\\'), ..usual() };
    let caret = Dialect { escape: Some('^'), quote: Some('\''), delimiter: Some(';'.into()), ..usual() };
    for (text, dialect) in [
        ("k,x\n\"a \"\"b\"\", c\",1\n\"\\\",2\n", usual()),
        ("k,x\n\"a \\\"b\\\", c\",1\n\"\\\\\",2\n", escape.clone()),
        ("k,x\n\"a \"\"b\\\", c\",1\n\\,2\n", escape.clone()),
        ("k;x\n'a \"b\", ^c';1\n'\\';2\n", caret),
    ] {
        let found = read(text, &spec(dialect)).await;
        let keys: Vec<_> = found.rows.column_by_name("k").unwrap().as_string::<i32>().iter().flatten().collect();
        assert_eq!((keys, found.bad), (vec!["a \"b\", c", "\\"], vec![]), "{text}");
    }
    // Without the key, the row has more fields, and the message says which key reads it.
    let said = refused("k,x\n\"a \\\"b\\\", c\",1\n", &spec(usual())).await;
    assert!(said.contains("escape = \"\\\\\""), "{said}");
    let said = refused("k,x\n\"open \\\",1\nb,2\n", &spec(escape)).await;
    assert!(said.contains("line 2") || said.contains(":2:"), "{said}");
}

#[tokio::test]
async fn the_same_values_in_every_encoding() {
    let text = "ort,x,y\r\nBrühl,1.5,-2\r\nfür,3.25,4e3\r\n";
    let wide = |order: fn(u16) -> [u8; 2]| text.encode_utf16().flat_map(order).collect::<Vec<u8>>();
    let (little, big) = (wide(u16::to_le_bytes), wide(u16::to_be_bytes));
    let latin: Vec<u8> = text.chars().map(|c| u8::try_from(u32::from(c)).unwrap()).collect();
    let marked = |mark: &[u8], bytes: &[u8]| [mark, bytes].concat();
    for (bytes, encoding) in [
        (text.into(), Encoding::Utf8),
        (marked(b"\xef\xbb\xbf", text.as_bytes()), Encoding::Utf8),
        (marked(b"\xef\xbb\xbf", text.as_bytes()), Encoding::Latin1),
        (latin.clone(), Encoding::Latin1),
        (latin.clone(), Encoding::Windows1252),
        (marked(b"\xff\xfe", &little), Encoding::Utf8),
        (marked(b"\xfe\xff", &big), Encoding::Utf8),
        (marked(b"\xfe\xff", &big), Encoding::Utf16),
        (little.clone(), Encoding::Utf16Le),
        (big, Encoding::Utf16Be),
    ] {
        let mut spec = xy(Dialect { encoding, ..Default::default() });
        spec.keys = vec!["ort".into()];
        let found = read(&bytes, &spec).await;
        assert_eq!((found.values(), found.texts("ort")), (VALUES.to_vec(), vec!["Brühl", "für"]), "{encoding:?}");
    }
    assert!(refused(&little, &usual()).await.contains("encoding = \"utf-16le\" reads it"));
    let by_mark = xy(Dialect { encoding: Encoding::Utf16, ..Default::default() });
    assert!(refused(&little, &by_mark).await.contains("no byte-order mark"));
}

/// Two keys or labels that differ in one byte never become equal.
#[tokio::test]
async fn text_of_another_encoding_is_a_bad_row() {
    let bytes = b"ort,art,teil,x,y\nBr\xfchl,a,p,1,2\nB,f\xe9r,p,3,4\nB,a,\xe4,5,6\nB,a,p,7\xb0,8\nB,a,p,9,10\n";
    let mut spec = usual();
    (spec.keys, spec.label, spec.split) = (vec!["ort".into()], Some("art".into()), Some("teil".into()));
    let found = read(bytes, &spec).await;
    assert_eq!((found.values(), found.bad_lines()), (vec![9.0, 10.0], vec![2, 3, 4, 5]));
    for (at, says) in [
        (0, r#"column "ort": "Br\xfchl", expected UTF-8; encoding = "latin-1" reads it as "Brühl""#),
        (1, r#"column "art": "f\xe9r", expected UTF-8; encoding = "latin-1" reads it as "fér""#),
        (2, r#"column "teil": "\xe4""#),
        (3, r#"column "x": "7\xb0""#),
    ] {
        assert!(found.bad[at].1.starts_with(says), "{}", found.bad[at].1);
    }
    // Half a character of UTF-16, in a key.
    let mut wide: Vec<u8> = "\u{feff}ort,x,y\nA".encode_utf16().flat_map(u16::to_le_bytes).collect();
    wide.extend([0x00, 0xdc]);
    wide.extend(",1,2\nB,3,4\n".encode_utf16().flat_map(u16::to_le_bytes));
    let found = read(&wide, &CsvSpec { keys: vec!["ort".into()], ..usual() }).await;
    assert_eq!((found.values(), found.bad_lines()), (vec![3.0, 4.0], vec![2]));
    assert!(found.bad[0].1.contains("expected UTF-16"), "{}", found.bad[0].1);
    // In a column that is not read it does no harm; in a header it is named.
    let found = read(b"note,x,y\n\xb0,1,2\n", &usual()).await;
    assert_eq!(found.values(), [1.0, 2.0]);
    let said = refused(b"x,y (\xb0)\n1,2\n", &CsvSpec::new("", &["x", "y (°)"])).await;
    assert!(
        said.contains(r#"a name is "y (\xb0)", expected UTF-8; encoding = "latin-1" reads it as "y (°)""#),
        "{said}"
    );
}

#[tokio::test]
async fn a_preamble_is_skipped_and_a_sample_is_not() {
    let preamble = "--- Data File at 50 Hz ---\nSerial \"A\n\nStart,10:00:00\nBattery 3.9,V\n";
    same(format!("{preamble}x,y\n1.5,-2\n3.25,4e3\n"), Dialect::default()).await;
    let said = refused("1,2\n3,4\nx,y\n5,6\n", &usual()).await;
    assert!(said.contains("line 1 has numbers where line 3") && said.contains("skip_lines = 2"), "{said}");
    same("1,2\n3,4\nx,y\n1.5,-2\n3.25,4e3\n", Dialect { skip_lines: 2, ..Default::default() }).await;
    // Beyond 64 rows there is no header to be found.
    assert!(refused(format!("{}x,y\n1,2\n", "a,b\n".repeat(70)), &usual()).await.contains("no column \"x\""));
    let found = read("a,b\n\nx,y\n1,2\n", &usual()).await;
    assert_eq!(found.values(), [1.0, 2.0]);
}

#[tokio::test]
async fn what_is_wrong_with_a_header_is_said() {
    for (text, says) in [
        ("", "a.csv: empty, expected"),
        ("\u{feff}", "a.csv: empty, expected"),
        ("\n\r\n  \n", "no lines but empty ones"),
        ("x,y\n", "no lines but the header"),
        ("x,y", "no lines but the header"),
        ("x;y\n1;2\n", "delimiter = \";\" finds them"),
        ("x\ty\n1\t2\n", "delimiter = \"tab\" finds them"),
        (" x   y\n 1   2\n", "delimiter = \"whitespace\" finds them"),
        ("sep=;\nt,x\n", "no column \"x\""),
        ("title\nx,z\n1,2\n", "no column \"y\"; did you mean \"x\"? (columns: x, z); these are of line 2"),
        ("x,y,x\n1,2,3\n", "2 columns are named \"x\", expected one; name it by its place: column_1 or column_3"),
        ("<!DOCTYPE html>\n<p>x,y\n", "web page"),
        ("PAR1\u{15}\u{4}\0", "Parquet file"),
        ("PK\u{3}\u{4}xl/workbook", "zip archive"),
        ("\0\0\0\0", "NUL bytes alone"),
        ("a\u{1b}[2J\u{7},b\n1,2\n", "\"a\\u{1b}[2J\\u{7}\""),
    ] {
        let said = refused(text, &usual()).await;
        let near = if says.contains("did you mean") { says.replace("; did you mean \"x\"?", "") } else { says.into() };
        assert!(said.contains(says) || said.contains(&near), "{text:?}: {said}");
    }
    let comma = xy(Dialect { delimiter: Some(','.into()), ..Default::default() });
    assert!(refused("sep=;\nx;y\n1;2\n", &comma).await.contains("line 1 is \"sep=;\", but delimiter = \",\""));
    let two = refused("device,device,x,y\n1,1,1,2\n", &CsvSpec { keys: vec!["device".into()], ..usual() }).await;
    assert!(two.contains("column_1 or column_2"), "{two}");
    // A duplicate column that is not read does no harm; a position is a name too.
    assert_eq!(read("t,t,x,y\n0,0,1,2\n", &usual()).await.values(), [1.0, 2.0]);
    let places = CsvSpec::new("", &["x", "column_3"]);
    assert_eq!(read("x,y,y\n1,2,3\n", &places).await.values(), [1.0, 3.0]);
    assert!(refused("x,y\n1,2\n", &places).await.contains("no column \"column_3\""));
}

#[tokio::test]
async fn files_without_a_header_are_read_by_places() {
    let dialect = Dialect { has_header: false, ..Default::default() };
    let spec = |dialect| CsvSpec { dialect, ..CsvSpec::new("", &["column_2", "column_3"]) };
    let found = read("a,1,2,\nb,3,4\nc,5\n", &spec(dialect.clone())).await;
    assert_eq!((found.values(), found.bad_lines()), (vec![1.0, 2.0, 3.0, 4.0], vec![3]));
    // The first line may be the bad one.
    let found = read("\0\0\na,1,2\nb,3,4\nc,5,6,7\n", &spec(dialect.clone())).await;
    assert_eq!((found.values(), found.bad_lines()), (vec![1.0, 2.0, 3.0, 4.0], vec![1, 4]));
    let said = refused("title\na,1,2\n", &spec(dialect.clone())).await;
    assert!(said.contains("no column \"column_2\"") && said.contains("skip_lines"), "{said}");
    let skip = Dialect { skip_lines: 1, ..dialect };
    assert_eq!(read("title\na,1,2\n", &spec(skip)).await.values(), [1.0, 2.0]);
}

#[tokio::test]
async fn a_file_without_a_header_may_have_named_columns() {
    let columns = ["k", "x", "y"].map(String::from).to_vec();
    let spec = CsvSpec {
        keys: vec!["k".into()],
        ..xy(Dialect { columns: columns.clone(), has_header: false, ..Default::default() })
    };
    // Also the first row may be bad, and it does not decide how many fields a row has.
    let found = read("a,1\na,1,2\nb,3,4,\nb,5,6,7\nk,x,y\n", &spec).await;
    assert_eq!((found.values(), found.bad_lines()), (vec![1.0, 2.0, 3.0, 4.0], vec![1, 4, 5]));
    assert_eq!(found.texts("k"), ["a", "b"]);
    let other = CsvSpec { channels: vec!["z".into()], ..spec };
    let error = read_with(b"a,1,2\n", other, OnBadRow::Fail, None).await.err().unwrap();
    assert!(error.kind() == Kind::Config && error.to_string().contains("columns does not name \"z\""), "{error}");
}

/// The same values in both formats give the same rows, to the bit, and the same bad lines.
#[tokio::test]
async fn objects_a_line_give_the_rows_of_the_same_csv() {
    let csv = CsvSpec { keys: vec!["k".into()], label: Some("state".into()), ..usual() };
    let objects = CsvSpec { dialect: Dialect { format: TextFormat::Ndjson, ..Default::default() }, ..csv.clone() };
    let lines = ["a,0.1,-3e-7,run", "a,,1,run", "b,1e300,2,", "b,16777217,0.30000000000000004,idle", "b,soon,2,idle"];
    let json = |line: &&str| {
        let [k, x, y, state] = *line.split(',').collect::<Vec<_>>() else { panic!("{line}") };
        let number = |text: &str| match text {
            "" => "null".to_owned(),
            "soon" => "\"soon\"".to_owned(),
            number => number.to_owned(),
        };
        let state = if state.is_empty() { String::new() } else { format!(", \"state\": {state:?}") };
        format!("{{\"y\": {}, \"x\": {}, \"k\": {k:?}{state}, \"z\": {{}}}}\n", number(y), number(x))
    };
    let expected = read(format!("k,x,y,state\n{}\n", lines.join("\n")), &csv).await;
    let found = read(lines.iter().map(json).collect::<String>(), &objects).await;
    let bits = |read: &Read| read.values().iter().map(|value| value.to_bits()).collect::<Vec<_>>();
    assert_eq!(bits(&found), bits(&expected));
    assert_eq!((found.texts("k"), found.texts("state")), (expected.texts("k"), expected.texts("state")));
    // There is no header: the lines are one less.
    assert_eq!(found.bad_lines(), expected.bad_lines().iter().map(|line| line - 1).collect::<Vec<_>>());
    let said = refused("k,x,y\na,1,2\n", &objects).await;
    assert!(said.contains("no JSON") && said.contains("one object a line"), "{said}");
}

#[tokio::test]
async fn rows_that_cannot_be_values_name_why() {
    let text =
        "x,y\n1,2\nx,y\n3,4\n\u{feff}x,y\n5\n6,7,8\n9,\0\0x\n0.5;,1\n\"1,5\",1\n2024-01-01,1\n12 mV,1\n,1\n11,12\n";
    let found = read(text, &usual()).await;
    assert_eq!(found.values(), [1.0, 2.0, 3.0, 4.0, 11.0, 12.0]);
    let says = [
        (3, "the header of line 1 once more"),
        (5, "the header of line 1 once more"),
        (6, "1 field, expected 2: \"5\""),
        (7, "3 fields, expected 2: \"6,7,8\""),
        (8, "2 NUL bytes behind \"9,\""),
        (9, "row_end = \";\""),
        (10, "decimal = \",\""),
        (11, "a date or a time"),
        (12, "a number with its unit"),
        (13, "column \"x\": \"\" is not a number"),
    ];
    assert_eq!(found.bad_lines(), says.map(|(line, _)| line));
    for ((_, reason), (line, says)) in found.bad.iter().zip(says) {
        assert!(reason.contains(says), "{line}: {reason}");
    }
    let units = refused("x,y\nm/s,\n1,2\n", &usual()).await;
    assert!(units.contains("a.csv:2: ") && units.contains("skip_after_header = 1"), "{units}");
    // A header of numbers cannot be distinguished from a row.
    let numbers = read("1,2\n1,2\n3,4\n", &CsvSpec::new("", &["1", "2"])).await;
    assert_eq!(numbers.values(), [1.0, 2.0, 3.0, 4.0]);
}

/// An unclosed quote costs its line and the windows over it, whatever comes later.
#[tokio::test]
async fn an_open_quote_loses_one_line() {
    let line = |i: usize, note: &str| format!("{i},{note},{}\n", i * 2);
    let text = |notes: &[(usize, &str)]| {
        let note = |i| notes.iter().find(|(at, _)| *at == i).map_or("", |(_, note)| *note);
        "x,note,y\n".to_string() + &(0..400).map(|i| line(i, note(i))).collect::<String>()
    };
    for (notes, bad) in [
        (&[(100, "\"check bearing")][..], &[100][..]),
        (&[(100, "\"check bearing"), (300, "\"again")], &[100, 300]),
        (&[(100, "\"check"), (101, "\"again"), (399, "\"last")], &[100, 101, 399]),
        (&[(100, "\"check"), (110, "bearing\"")], &[100]),
        (&[(100, "12\" pipe"), (200, "\"12\"\" pipe\""), (300, "\"a, b\""), (350, "\"line\nbreak\"")], &[]),
    ] {
        let found = read_with(text(notes).as_bytes(), usual(), OnBadRow::Quarantine, Some(10)).await.unwrap();
        assert_eq!(found.bad_lines(), bad.iter().map(|i| *i as u64 + 2).collect::<Vec<_>>(), "{notes:?}");
        let starts: Vec<i64> = found.rows["start"].as_primitive::<Int64Type>().values().to_vec();
        let clean = |start: &i64| !bad.iter().any(|i| (*start..start + 10).contains(i));
        assert_eq!(starts, (0..391).filter(clean).collect::<Vec<_>>(), "{notes:?}");
    }
    let plain = xy(Dialect { quote: None, ..Default::default() });
    assert!(read(text(&[(100, "\"check")]), &plain).await.bad.is_empty());
}

#[tokio::test]
async fn lines_without_end_are_named_in_short() {
    const MIB: usize = 1 << 20;
    let said = refused(vec![b'a'; 3 * MIB], &usual()).await;
    assert!(said.contains("line 1: longer than 1048576 bytes"), "{said}");
    let text = ["x,y\n1,2\n", &"7".repeat(3 * MIB), ",1\n3,4\n", &"\"".repeat(2 * MIB), "\n5,6\n"].concat();
    let found = read(text, &usual()).await;
    assert_eq!((found.values(), found.bad_lines()), (vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0], vec![3, 5]));
    assert!(found.bad.iter().all(|(_, reason)| reason.len() < 200), "{:?}", found.bad);
    // A header of many columns, of which none is the right one.
    let said = refused((0..90_000).map(|i| format!("c{i},")).collect::<String>() + "\n", &usual()).await;
    assert!(said.contains("more)"), "{said}");
}

#[tokio::test]
async fn line_numbers_count_every_line() {
    for end in ["\n", "\r\n", "\r"] {
        let text = ["x,y", "", "1,2", "oops,1", "", "", "3,\"4", "\"", "oops,2", "5,6,7"].join(end) + end;
        let found = read(text, &usual()).await;
        assert_eq!((found.bad_lines(), found.values()), (vec![4, 9, 10], vec![1.0, 2.0, 3.0, 4.0]), "{end:?}");
    }
}

/// A file that is cut off in the middle of its compressed bytes gives the rows before.
#[tokio::test]
async fn other_encodings_are_read_from_compressed_files() {
    let text: String = "x,y\n".to_string() + &"1,2\n".repeat(50_000);
    let bytes: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&bytes).unwrap();
    let gzip = gzip.finish().unwrap();
    let spec = xy(Dialect { encoding: Encoding::Utf16Le, ..Default::default() });
    assert_eq!(read(&gzip, &spec).await.rows.num_rows(), 50_000);
    let said = refused(&gzip[..gzip.len() / 2], &spec).await;
    assert!(said.contains("damaged or cut off after"), "{said}");
}

/// Whatever bytes a file has, every line is a row, a bad row or skipped, and nothing panics.
#[tokio::test]
async fn damage_is_counted_and_never_a_panic() {
    let good = b"device,t,x,y\nA,0,1.5,\"2\"\nA,1,2.5,3\nB,0,\"a\nb\",4\n".to_vec();
    let mut state = 7u64;
    let mut random = |below: usize| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) as usize % below
    };
    for _ in 0..300 {
        let mut bytes = good.repeat(1 + random(3));
        for _ in 0..1 + random(6) {
            let at = random(bytes.len());
            match random(3) {
                0 => bytes[at] = [0, b'"', b'\n', b'\r', b',', 0xff, b';', 0xc3][random(8)],
                1 => drop(bytes.remove(at)),
                _ => bytes.insert(at, [0, b'"', b'\n', b'\r', b',', 0xff, b';', 0xc3][random(8)]),
            }
        }
        for dialect in [
            Dialect::default(),
            Dialect { delimiter: Some(Delimiter::Blanks), row_end: Some(';'), ..Default::default() },
            Dialect { encoding: Encoding::Utf16Le, decimal: ',', ..Default::default() },
        ] {
            let spec = CsvSpec { keys: vec!["device".into()], ..xy(dialect) };
            let Ok(found) = read_with(&bytes, spec, OnBadRow::Quarantine, None).await else { continue };
            let lines = bytes.iter().filter(|b| matches!(b, b'\n' | b'\r' | b';')).count() + 1;
            assert!(found.rows.num_rows() + found.bad.len() <= lines, "{:?}", bytes.escape_ascii().to_string());
            assert!(
                !found
                    .rows
                    .column_by_name("device")
                    .is_some_and(|_| found.texts("device").concat().contains('\u{fffd}'))
            );
        }
    }
}

/// A model that was saved before there were dialects only has `delimiter` and `has_header`.
#[test]
fn a_spec_of_before_is_understood() {
    let text = r#"{"path": "a", "channels": ["x"], "delimiter": "\t", "has_header": false}"#;
    let spec: CsvSpec = serde_json::from_str(text).unwrap();
    let expected = Dialect { delimiter: Some('\t'.into()), has_header: false, ..Default::default() };
    assert_eq!(spec.dialect, expected);
    assert_eq!(serde_json::from_str::<CsvSpec>(&serde_json::to_string(&spec).unwrap()).unwrap(), spec);
}
