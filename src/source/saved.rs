//! How parts of a stream's state are written as JSON that serde does not write by itself.

use sha2::{Digest, Sha256};

/// A hash that is the same in every build, since it is kept.
pub(super) fn hash(bytes: &[u8]) -> u64 {
    let digest = Sha256::digest(bytes);
    u64::from_le_bytes(std::array::from_fn(|i| digest[i]))
}

/// Shared text.
pub(super) mod shared {
    use std::sync::Arc;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(in crate::source) fn serialize<S: Serializer>(text: &Arc<str>, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(text)
    }

    pub(in crate::source) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Arc<str>, D::Error> {
        Ok(String::deserialize(from)?.into())
    }
}

/// Numbers, of which those that are NaN become null.
pub(super) mod nan_as_null {
    use serde::{Deserialize, Deserializer, Serializer};

    pub(in crate::source) fn serialize<S: Serializer>(numbers: &[f64], to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(numbers.iter().map(|number| Some(*number).filter(|number| !number.is_nan())))
    }

    pub(in crate::source) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<f64>, D::Error> {
        let numbers = Vec::<Option<f64>>::deserialize(from)?;
        Ok(numbers.into_iter().map(|number| number.unwrap_or(f64::NAN)).collect())
    }
}

/// Several lists of numbers, of which those that are NaN become null.
pub(super) mod lists {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Serialize, Deserialize)]
    #[serde(transparent)]
    struct List(#[serde(with = "super::nan_as_null")] Vec<f64>);

    pub(in crate::source) fn serialize<S: Serializer>(lists: &[Vec<f64>], to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(lists.iter().map(|list| List(list.clone())))
    }

    pub(in crate::source) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Vec<f64>>, D::Error> {
        Ok(Vec::<List>::deserialize(from)?.into_iter().map(|List(list)| list).collect())
    }
}

/// The constants of a recording, which are text or null.
pub(super) mod constants {
    use datafusion::common::ScalarValue;
    use serde::ser::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(in crate::source) fn serialize<S: Serializer>(values: &[ScalarValue], to: S) -> Result<S::Ok, S::Error> {
        let text = |value: &ScalarValue| match value {
            ScalarValue::Utf8(text) => Ok(text.clone()),
            other => Err(S::Error::custom(format!("a constant of a recording that is no text: {other}"))),
        };
        to.collect_seq(values.iter().map(text).collect::<Result<Vec<_>, _>>()?)
    }

    pub(in crate::source) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<ScalarValue>, D::Error> {
        Ok(Vec::<Option<String>>::deserialize(from)?.into_iter().map(ScalarValue::Utf8).collect())
    }
}

/// A map with keys that are no text, as a list of pairs.
pub(super) mod pairs {
    use std::collections::BTreeMap;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(in crate::source) fn serialize<K: Serialize, V: Serialize, S: Serializer>(
        map: &BTreeMap<K, V>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        to.collect_seq(map)
    }

    pub(in crate::source) fn deserialize<'de, K, V, D>(from: D) -> Result<BTreeMap<K, V>, D::Error>
    where
        K: Deserialize<'de> + Ord,
        V: Deserialize<'de>,
        D: Deserializer<'de>,
    {
        Ok(Vec::<(K, V)>::deserialize(from)?.into_iter().collect())
    }
}
