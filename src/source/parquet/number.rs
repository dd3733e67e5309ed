//! The precision of vectors: single, or double if the file's type needs it.

use std::fmt::LowerExp;

use arrow::array::{ArrayRef, ArrowPrimitiveType};
use arrow::datatypes::{ArrowNativeType, DataType, Field, Float32Type, Float64Type};

use crate::column::{double_array, double_field, vector_array, vector_field};
use crate::error::Result;

/// A value of a vector.
pub(super) trait Number: ArrowNativeType + LowerExp {
    /// Its type in Arrow.
    type Arrow: ArrowPrimitiveType<Native = Self>;

    /// The field of vectors of `dim` values.
    fn field(name: &str, dim: usize) -> Field;

    /// Vectors of `dim` values, row-major.
    fn array(values: Vec<Self>, dim: usize) -> Result<ArrayRef>;

    /// Whether it is finite in single precision, which vectors are converted to in the end.
    fn is_single(self) -> bool;

    /// Whether it is NaN.
    fn is_missing(self) -> bool;

    fn of_i32(value: i32) -> Self;
    fn of_u32(value: u32) -> Self;
    fn of_i64(value: i64) -> Self;
    fn of_u64(value: u64) -> Self;
    fn of_f32(value: f32) -> Self;
    fn of_f64(value: f64) -> Self;
}

/// The conversions, each of which rounds to the nearest.
macro_rules! conversions {
    () => {
        fn is_missing(self) -> bool {
            self.is_nan()
        }

        fn of_i32(value: i32) -> Self {
            value as Self
        }

        fn of_u32(value: u32) -> Self {
            value as Self
        }

        fn of_i64(value: i64) -> Self {
            value as Self
        }

        fn of_u64(value: u64) -> Self {
            value as Self
        }

        fn of_f32(value: f32) -> Self {
            value as Self
        }

        fn of_f64(value: f64) -> Self {
            value as Self
        }
    };
}

impl Number for f32 {
    type Arrow = Float32Type;

    fn field(name: &str, dim: usize) -> Field {
        vector_field(name, dim)
    }

    fn array(values: Vec<Self>, dim: usize) -> Result<ArrayRef> {
        vector_array(values, dim)
    }

    fn is_single(self) -> bool {
        self.is_finite()
    }

    conversions!();
}

impl Number for f64 {
    type Arrow = Float64Type;

    fn field(name: &str, dim: usize) -> Field {
        double_field(name, dim)
    }

    fn array(values: Vec<Self>, dim: usize) -> Result<ArrayRef> {
        double_array(values, dim)
    }

    fn is_single(self) -> bool {
        (self as f32).is_finite()
    }

    conversions!();
}

/// Whether values of a type need double precision: single has 24 bits, enough for every integer of up to 16.
pub(super) fn needs_double(stored: &DataType) -> bool {
    use DataType::*;
    match stored {
        Dictionary(_, values) => needs_double(values),
        FixedSizeList(item, _) | List(item) | LargeList(item) | ListView(item) | LargeListView(item) => {
            needs_double(item.data_type())
        }
        other => !matches!(other, Null | Boolean | Int8 | Int16 | UInt8 | UInt16 | Float16 | Float32),
    }
}
