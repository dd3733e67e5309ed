//! The types of columns, and the common type of several files.

use arrow::datatypes::{DataType, TimeUnit};

/// Most digits of a decimal of 128 bits.
const DIGITS: u8 = 38;

/// Text as `Utf8` and bytes as `Binary`, whatever they are in the file; every other type unchanged.
pub(super) fn plain_type(stored: &DataType, is_split: bool) -> DataType {
    match stored {
        DataType::Dictionary(_, values) => plain_type(values, is_split),
        DataType::Null => DataType::Null,
        _ if is_split => DataType::Utf8,
        DataType::LargeUtf8 | DataType::Utf8View => DataType::Utf8,
        DataType::LargeBinary | DataType::BinaryView => DataType::Binary,
        other => other.clone(),
    }
}

/// Whether values of that type are numbers that can be learned from: integers, floats, decimals, and booleans as 0 and
/// 1. `Null` is included: it is the type of a column without any value.
pub(in crate::source) fn is_number(t: &DataType) -> bool {
    match t {
        DataType::Dictionary(_, values) => is_number(values),
        DataType::Boolean | DataType::Null => true,
        other => other.is_integer() || other.is_floating() || other.is_decimal(),
    }
}

/// The item type of a column of lists, of any kind of list.
pub(in crate::source) fn item_type(t: &DataType) -> Option<&DataType> {
    use DataType::*;
    match t {
        FixedSizeList(item, _) | List(item) | LargeList(item) | ListView(item) | LargeListView(item) => {
            Some(item.data_type())
        }
        _ => None,
    }
}

/// The type that can represent every value of both; `None` if there is none.
pub(super) fn wider(a: &DataType, b: &DataType) -> Option<DataType> {
    use DataType::*;
    if a.equals_datatype(b) {
        return Some(a.clone());
    }
    match (a, b) {
        (Null, other) | (other, Null) => Some(other.clone()),
        (Binary | FixedSizeBinary(_), Binary | FixedSizeBinary(_)) => Some(Binary),
        (Date32 | Date64, Date32 | Date64) => Some(Date32),
        (Timestamp(one, zone), Timestamp(other, other_zone)) => {
            // Times with different zones can be compared; times with and without a zone cannot.
            let zone = match (zone, other_zone) {
                (Some(zone), Some(other)) if zone == other => Some(zone.clone()),
                (Some(_), Some(_)) => Some("UTC".into()),
                (None, None) => None,
                _ => return None,
            };
            Some(Timestamp(finer(*one, *other), zone))
        }
        _ if a.is_integer() && b.is_integer() => Some(wider_integer(a, b)),
        _ if a.is_floating() && b.is_floating() => Some(if bits(a) > bits(b) { a.clone() } else { b.clone() }),
        // An integer that a 64-bit float cannot represent is found when it is converted.
        _ if (a.is_integer() && b.is_floating()) || (a.is_floating() && b.is_integer()) => Some(Float64),
        _ => wider_decimal(a, b),
    }
}

fn finer(a: TimeUnit, b: TimeUnit) -> TimeUnit {
    let rank = |unit: TimeUnit| match unit {
        TimeUnit::Second => 0,
        TimeUnit::Millisecond => 1,
        TimeUnit::Microsecond => 2,
        TimeUnit::Nanosecond => 3,
    };
    if rank(a) > rank(b) { a } else { b }
}

fn bits(t: &DataType) -> usize {
    t.primitive_width().unwrap_or(0) * 8
}

fn wider_integer(a: &DataType, b: &DataType) -> DataType {
    if a.is_signed_integer() == b.is_signed_integer() {
        return if bits(a) > bits(b) { a.clone() } else { b.clone() };
    }
    let (signed, unsigned) = if a.is_signed_integer() { (a, b) } else { (b, a) };
    match bits(signed).max(bits(unsigned) * 2) {
        ..=16 => DataType::Int16,
        17..=32 => DataType::Int32,
        33..=64 => DataType::Int64,
        _ => DataType::Decimal128(20, 0),
    }
}

/// The decimal type that can represent both types, of which one is a decimal, and the other a decimal or an integer.
fn wider_decimal(a: &DataType, b: &DataType) -> Option<DataType> {
    let of = |t: &DataType| match t {
        DataType::Decimal32(precision, scale)
        | DataType::Decimal64(precision, scale)
        | DataType::Decimal128(precision, scale) => Some((i16::from(*precision), i16::from(*scale))),
        t if t.is_integer() => Some((if bits(t) == 64 { 20 } else { 10 }, 0)),
        _ => None,
    };
    if !a.is_decimal() && !b.is_decimal() {
        return None;
    }
    let ((precision, scale), (other_precision, other_scale)) = (of(a)?, of(b)?);
    let whole = (precision - scale).max(other_precision - other_scale);
    let scale = scale.max(other_scale);
    let precision = u8::try_from(whole + scale).ok().filter(|precision| (1..=DIGITS).contains(precision))?;
    Some(DataType::Decimal128(precision, i8::try_from(scale).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use DataType::*;

    #[test]
    fn the_wider_type_holds_both() {
        let utc = || Some("UTC".into());
        for (a, b, expected) in [
            (Int32, Int64, Some(Int64)),
            (UInt8, Int8, Some(Int16)),
            (UInt32, Int64, Some(Int64)),
            (UInt32, Int8, Some(Int64)),
            (UInt64, Int8, Some(Decimal128(20, 0))),
            (UInt16, UInt64, Some(UInt64)),
            (Float16, Float32, Some(Float32)),
            (Float64, Float32, Some(Float64)),
            (Int64, Float32, Some(Float64)),
            (Null, Utf8, Some(Utf8)),
            (Null, Null, Some(Null)),
            (Decimal128(9, 2), Decimal128(12, 4), Some(Decimal128(12, 4))),
            (Decimal128(9, 2), Int32, Some(Decimal128(12, 2))),
            (Decimal128(38, 0), Decimal128(38, 2), None),
            (Timestamp(TimeUnit::Second, None), Timestamp(TimeUnit::Microsecond, None), {
                Some(Timestamp(TimeUnit::Microsecond, None))
            }),
            (
                Timestamp(TimeUnit::Microsecond, Some("Europe/Berlin".into())),
                Timestamp(TimeUnit::Microsecond, utc()),
                Some(Timestamp(TimeUnit::Microsecond, utc())),
            ),
            (Timestamp(TimeUnit::Microsecond, utc()), Timestamp(TimeUnit::Microsecond, None), None),
            (Utf8, Int64, None),
            (Boolean, Int64, None),
            (Boolean, Utf8, None),
            (Date32, Utf8, None),
            (Date32, Int32, None),
        ] {
            assert_eq!(wider(&a, &b), expected, "{a} and {b}");
            assert_eq!(wider(&b, &a), expected, "{b} and {a}");
        }
    }

    #[test]
    fn numbers_are_what_can_be_learned_from() {
        let dictionary = |values: DataType| Dictionary(Box::new(Int8), Box::new(values));
        for t in
            [Int8, UInt64, Float16, Float64, Boolean, Decimal128(9, 2), Decimal256(40, 2), dictionary(Float32), Null]
        {
            assert!(is_number(&t), "{t}");
        }
        for t in [Utf8, Binary, Date32, Timestamp(TimeUnit::Second, None), dictionary(Utf8)] {
            assert!(!is_number(&t), "{t}");
        }
    }
}
