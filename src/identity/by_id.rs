//! Counts of clusters that are found by id.

/// The clusters of a model in the rising order of their ids, whatever order the model has them in.
///
/// ```
/// use dacpipe::identity::ById;
///
/// let clusters = ById::new(&[7, 2, 9]);
/// assert_eq!((clusters.ids(), clusters.place(7), clusters.place(3)), (&[2, 7, 9][..], Some(1), None));
/// // What the model has of each cluster, two values each, in this order.
/// assert_eq!(clusters.sorted(&[70, 71, 20, 21, 90, 91], 2), [20, 21, 70, 71, 90, 91]);
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ById {
    ids: Vec<i32>,
    /// The model's index of each.
    order: Vec<usize>,
}

impl ById {
    /// Clusters with these ids, by the model's index.
    pub fn new(ids: &[i32]) -> Self {
        let mut order: Vec<usize> = (0..ids.len()).collect();
        order.sort_by_key(|index| ids[*index]);
        Self { ids: order.iter().map(|index| ids[*index]).collect(), order }
    }

    /// The ids, rising.
    pub fn ids(&self) -> &[i32] {
        &self.ids
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// True if there are none.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// The place of an id among [`ids`](Self::ids).
    pub fn place(&self, id: i32) -> Option<usize> {
        // Most often the ids are the places.
        match usize::try_from(id) {
            Ok(place) if self.ids.get(place) == Some(&id) => Some(place),
            _ => self.ids.binary_search(&id).ok(),
        }
    }

    /// `values` of each cluster, `width` each, from the model's order into the order of the ids.
    ///
    /// # Panics
    /// If there are fewer values.
    pub fn sorted<T: Copy>(&self, values: &[T], width: usize) -> Vec<T> {
        self.order.iter().flat_map(|index| values[index * width..(index + 1) * width].iter().copied()).collect()
    }
}
