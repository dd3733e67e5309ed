//! What can go wrong in a pass over rows.

use std::fmt;

/// The crate's result type.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a pass over rows ended early. Kernels themselves cannot fail: what is against their contract panics.
#[derive(Debug)]
pub enum Error {
    /// A value that is not finite, by its place.
    NotFinite {
        /// What takes finite numbers alone, as its message names it.
        who: String,
        /// The row.
        row: usize,
        /// The place in the row.
        feature: usize,
        /// The value.
        value: f32,
    },
    /// A sum that is not finite, though each of its values is.
    Overflow,
    /// What whoever reads or visits the rows gave.
    Other(Box<dyn std::error::Error + Send + Sync>),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFinite { who, row, feature, value } => {
                write!(f, "row {row}, feature {feature} is {value}; {who} takes finite numbers")
            }
            Self::Overflow => f.write_str("sums of finite values that are not finite"),
            Self::Other(e) => e.fmt(f),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            // Its message is this error's own.
            Self::Other(e) => e.source(),
            Self::NotFinite { .. } | Self::Overflow => None,
        }
    }
}
