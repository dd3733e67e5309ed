//! The shape of a row between two layers.

use std::fmt;

/// The shape of one row: `[n]`, values in no order, or `[channels, height, width]`, an image. Either way its values lie
/// one after the other, row-major.
#[derive(Debug, Clone, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct RowShape(Vec<usize>);

impl RowShape {
    /// Rows of `len` values in no order.
    pub fn flat(len: usize) -> Self {
        Self(vec![len])
    }

    /// Images.
    pub fn image(channels: usize, height: usize, width: usize) -> Self {
        Self(vec![channels, height, width])
    }

    /// The shape of these extents; none if they are neither one nor three, one of them is 0, or there are too many values.
    ///
    /// ```
    /// use dacpipe::network::RowShape;
    /// assert_eq!(RowShape::of(&[1, 28, 28]).map(|shape| shape.len()), Some(784));
    /// assert_eq!(RowShape::of(&[28, 28]), None);
    /// ```
    pub fn of(extents: &[usize]) -> Option<Self> {
        let product = extents.iter().try_fold(1_usize, |product, &extent| product.checked_mul(extent))?;
        let few = matches!(extents.len(), 1 | 3) && product > 0 && u32::try_from(product).is_ok();
        few.then(|| Self(extents.to_vec()))
    }

    /// Its extents.
    pub fn extents(&self) -> &[usize] {
        &self.0
    }

    /// Values in a row.
    #[allow(clippy::len_without_is_empty)] // a row has values
    pub fn len(&self) -> usize {
        self.0.iter().product()
    }

    /// Channels, height and width, if it is an image.
    pub fn as_image(&self) -> Option<[usize; 3]> {
        self.0.as_slice().try_into().ok()
    }

    /// The channels of an image, or the values of a flat row: what batch norm has a mean for.
    pub fn channels(&self) -> usize {
        self.0[0]
    }
}

impl fmt::Display for RowShape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}
