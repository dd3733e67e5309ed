//! Sizes in bytes, written as "1 GiB", and the schema formats of sizes and time spans.

use std::fmt;
use std::str::FromStr;

use bytesize::ByteSize;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::source::Span;

/// A number of bytes, written `"1 GiB"` (powers of 1024), `"300 MB"` (powers of 1000), or as a bare number of bytes.
///
/// ```
/// use dacpipe::config::Size;
/// assert_eq!("1 GiB".parse::<Size>().unwrap().bytes(), 1 << 30);
/// assert_eq!("300MB".parse::<Size>().unwrap().bytes(), 300_000_000);
/// assert!("-3 MB".parse::<Size>().is_err());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Size(u64);

impl Size {
    /// A size of `n` MiB.
    pub const fn mebibytes(n: u64) -> Self {
        Self(n << 20)
    }

    /// The number of bytes.
    pub const fn bytes(self) -> u64 {
        self.0
    }
}

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.trim().parse::<ByteSize>() {
            Ok(ByteSize(u64::MAX)) | Err(_) => Err(format!("{text:?} is not a size; write \"1 GiB\" or \"300 MB\"")),
            Ok(ByteSize(bytes)) => Ok(Self(bytes)),
        }
    }
}

impl fmt::Display for Size {
    /// The shortest form that reads back to the same number of bytes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(u64, &str); 8] = [
            (1 << 40, "TiB"),
            (1_000_000_000_000, "TB"),
            (1 << 30, "GiB"),
            (1_000_000_000, "GB"),
            (1 << 20, "MiB"),
            (1_000_000, "MB"),
            (1 << 10, "KiB"),
            (1_000, "KB"),
        ];
        match UNITS.iter().find(|(unit, _)| self.0 > 0 && self.0.is_multiple_of(*unit)) {
            Some((unit, name)) => write!(f, "{} {name}", self.0 / unit),
            None => write!(f, "{} B", self.0),
        }
    }
}

impl Serialize for Size {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Size;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a size such as \"1 GiB\"")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Size, E> {
                text.parse().map_err(E::custom)
            }

            fn visit_u64<E: de::Error>(self, bytes: u64) -> Result<Size, E> {
                Ok(Size(bytes))
            }

            fn visit_i64<E: de::Error>(self, bytes: i64) -> Result<Size, E> {
                u64::try_from(bytes).map(Size).map_err(E::custom)
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

/// The JSON Schema format of a [`Size`].
pub(super) const SIZE_FORMAT: &str = "byte-size";

impl JsonSchema for Size {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Size".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": ["string", "integer"], "format": SIZE_FORMAT, "minimum": 0 })
    }
}

/// The JSON Schema format of a [`Span`].
pub(super) const SPAN_FORMAT: &str = "time-span";

impl JsonSchema for Span {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Span".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": SPAN_FORMAT })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_people_write() {
        let bytes = |text: &str| text.parse::<Size>().map(Size::bytes).ok();
        assert_eq!(bytes("1 GiB"), Some(1_073_741_824));
        assert_eq!(bytes("1.5GiB"), Some(1_610_612_736));
        assert_eq!(bytes("300 MB"), Some(300_000_000));
        assert_eq!(bytes(" 64 mib "), Some(67_108_864));
        assert_eq!(bytes("4096"), Some(4096));
        for wrong in ["", "GiB", "-1 MB", "1 GiBB", "many", "1e400 TB", "999999999999 EiB", "1,5 GB"] {
            assert_eq!(bytes(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn what_is_shown_reads_back() {
        for bytes in [0, 1, 1_000, 1_024, 300_000_000, 1 << 30, 3 << 29, 123_456_789] {
            assert_eq!(Size(bytes).to_string().parse(), Ok(Size(bytes)));
        }
        assert_eq!(Size::mebibytes(1024).to_string(), "1 GiB");
        assert_eq!(Size(300_000_000).to_string(), "300 MB");
    }
}
