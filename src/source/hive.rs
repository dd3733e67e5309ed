//! Columns in the paths of files, as Hive, Spark and Arrow write them: `split=train/day=2024-01-01/a.parquet`.

use std::collections::BTreeMap;

/// The name that stands for null.
const NULL: &str = "__HIVE_DEFAULT_PARTITION__";

/// The columns that the directories of `path` name, and their values with `%` escapes decoded; `None` is null. If two
/// directories name the same column, the last one counts.
///
/// ```
/// use dacpipe::source::hive::columns;
/// let found = columns("s3://b/split=train/room=a%2Fb/day=__HIVE_DEFAULT_PARTITION__/x=y.parquet");
/// assert_eq!(found["split"].as_deref(), Some("train"));
/// assert_eq!(found["room"].as_deref(), Some("a/b"));
/// assert_eq!(found["day"], None);
/// assert_eq!(found.len(), 3);
/// ```
pub fn columns(path: &str) -> BTreeMap<String, Option<String>> {
    let directories = path.rsplit_once('/').map_or("", |(directories, _)| directories);
    let column = |directory: &str| {
        let (name, value) = directory.split_once('=')?;
        let value = (value != NULL).then(|| decoded(value));
        (!name.is_empty()).then(|| (decoded(name), value))
    };
    directories.split('/').filter_map(column).collect()
}

/// `text` with escapes such as `%41` decoded; unchanged if the result is not UTF-8.
pub(super) fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let escaped = after.first_chunk::<2>().filter(|_| first == b'%');
        let escaped = escaped.and_then(|digits| std::str::from_utf8(digits).ok());
        // Parsing alone would accept a sign before a digit.
        let escaped = escaped.filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()));
        match escaped.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            None => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    String::from_utf8(bytes).unwrap_or_else(|_| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_directories_name_columns() {
        assert!(columns("a=1").is_empty());
        assert!(columns("data/=1/b/c.parquet").is_empty());
        assert_eq!(columns("/x/a=/a=2/f").into_iter().collect::<Vec<_>>(), [("a".into(), Some("2".into()))]);
        assert_eq!(columns("a=/f")["a"].as_deref(), Some(""));
        assert_eq!(columns("a=b=c/f")["a"].as_deref(), Some("b=c"));
    }

    #[test]
    fn escapes_are_decoded_where_they_are_text() {
        assert_eq!(columns("a%20b=50%25/f")["a b"].as_deref(), Some("50%"));
        assert_eq!(columns("a=%C3%BC/f")["a"].as_deref(), Some("ü"));
        for odd in ["%", "%4", "%zz", "%+1", "%FF"] {
            assert_eq!(columns(&format!("a={odd}/f"))["a"].as_deref(), Some(odd));
        }
    }
}
