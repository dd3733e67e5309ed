//! The contract of a stage: [`Fit`] learns from rows and gives a [`Transform`], which is pure and cheap to share.
//!
//! The driver (`pipeline`) owns where rows come from; a learner owns the mathematics. Rows reach a learner through
//! [`Rows`], in order or gathered at random, from memory or from spill files, with the same bits either way.

mod apply;
pub mod compliance;
mod ids;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::datatypes::{Field, Schema};
use arrow::record_batch::RecordBatch;

use crate::device::Device;
use crate::error::Result;
use crate::event::Control;
use crate::kernel::Rows;
use crate::memory;
use crate::origin::Origin;
use crate::seed::Seed;

pub(crate) use apply::labels;
pub use apply::{Apply, label_fields};
pub use ids::ClusterIds;

/// The column of feature vectors that a source yields and that `scale` rewrites.
pub const FEATURES: &str = "features";
/// The column of learned representations that `embed` makes of the features.
pub const EMBEDDING: &str = "embedding";
/// The columns that `label` appends: nearest centroid, Euclidean distance to it, and how much further the second is.
pub const LABEL_COLUMNS: [&str; 3] = ["cluster", "distance", "margin"];
/// The column of how far each row is from its reconstruction, where it is asked for.
pub const RECONSTRUCTION_ERROR: &str = "reconstruction_error";

/// A fitted stage: pure, deterministic, cheap to share. Keeps the number and the order of rows.
///
/// What it does to rows it says once, by its [`action`](Self::action). Training, which has bare vectors, and labelling, which
/// has record batches, both follow from that: see [`Apply`], which every stage has and none can change.
pub trait Transform: Debug + Send + Sync {
    /// The name under which it is saved and found again (`"scale"`, `"embed"`, `"label"`).
    fn kind(&self) -> &'static str;

    /// What it does to rows.
    fn action(&self) -> Action<'_>;

    /// Everything needed to rebuild it.
    fn save(&self) -> Artifact;

    /// The feature weights it holds, for later stages to use in their loss.
    fn feature_weights(&self) -> Option<&[f32]> {
        None
    }

    /// The layout of the training rows that it holds, for a later stage to learn. It is no part of [`save`](Self::save).
    fn coordinates(&self) -> Option<&Coordinates> {
        None
    }

    /// The clusters that were learned with it, for a later stage to label by. They are no part of [`save`](Self::save).
    fn centroids(&self) -> Option<&Centroids> {
        None
    }

    /// What an interrupted run needs to go on after this stage: all of [`save`](Self::save), and what later stages
    /// learn from.
    fn keep(&self) -> Artifact {
        self.save()
    }
}

/// What a stage does to rows: to all of them the same, each by itself.
#[derive(Clone, Copy)]
pub enum Action<'a> {
    /// Makes other vectors of the vectors. Later stages learn from what it makes.
    Map {
        /// The column of the vectors: [`FEATURES`] or [`EMBEDDING`].
        from: &'a str,
        /// The column, at the same place, of what is made of them: the same, or the other of the two.
        to: &'a str,
        /// How.
        map: &'a dyn VectorMap,
    },
    /// Assigns vectors to clusters: appends the [`LABEL_COLUMNS`].
    Assign {
        /// The column of the vectors.
        column: &'a str,
        /// The clusters.
        clusters: &'a dyn Clusters,
    },
    /// Appends other columns. Vectors stay as they are.
    Append(&'a dyn Columns),
    /// Leaves rows as they are: it holds something for later stages to learn from.
    Keep {
        /// Values in the rows' [`FEATURES`]; `None` where it takes rows of any width.
        dim: Option<usize>,
    },
}

/// Columns that a stage appends, each value made of its own row.
pub trait Columns: Send + Sync {
    /// Their fields, for rows of schema `input`. Names of vectors and labels are not among them: those are made by
    /// [`Action::Map`] and [`Action::Assign`] alone.
    ///
    /// # Errors
    /// Kind `Input` for a column that is missing, `Model` for vectors of another width.
    fn fields(&self, input: &Schema) -> Result<Vec<Field>>;

    /// Their values for the rows of a batch, in the order of the fields.
    ///
    /// # Errors
    /// Kind `Input` for values that it cannot take.
    fn values(&self, batch: &RecordBatch) -> Result<Vec<ArrayRef>>;
}

/// Where training rows lie in a layout of their neighbourhoods: what an embedding is taught.
#[derive(Debug, Clone, PartialEq)]
pub struct Coordinates {
    /// Coordinates of a row.
    pub dim: usize,
    /// The numbers of the training rows that were laid out, rising.
    pub rows: Vec<u32>,
    /// Their coordinates, `rows x dim`, each with mean 0 and standard deviation 1.
    pub values: Vec<f32>,
}

/// Clusters that were learned together with a network.
#[derive(Debug, Clone, PartialEq)]
pub struct Centroids {
    /// Values of a centroid.
    pub dim: usize,
    /// `k x dim`.
    pub values: Vec<f32>,
}

/// Clusters that rows are assigned to.
pub trait Clusters: Send + Sync {
    /// How many there are.
    fn k(&self) -> usize;

    /// Values in a vector.
    fn dim(&self) -> usize;

    /// Their centroids, `k x dim`, row-major, in the units of the vectors that are labelled; none where clusters have no
    /// centroids.
    fn centroids(&self) -> Option<Vec<f32>>;

    /// Their ids, in the order of the centroids: what rows are labelled with. From 0 on, unless they were
    /// [given others](Self::with_ids).
    fn ids(&self) -> Vec<i32> {
        (0..self.k()).map(|index| index as i32).collect()
    }

    /// The same stage with these ids of its clusters, in the order of the centroids; `None` where clusters cannot be given
    /// ids, which is the default.
    ///
    /// # Errors
    /// Kind `Model` unless there is one for each, distinct and not negative.
    fn with_ids(&self, ids: &[i32]) -> Result<Option<Arc<dyn Transform>>> {
        let _ = ids;
        Ok(None)
    }

    /// The clusters of `rows` (row-major), each row by itself. A tie goes to the cluster that comes first. A row with values
    /// that are not finite, or too large, has a distance that is not finite.
    ///
    /// # Errors
    /// Kind `Compute` where the device it works on fails.
    ///
    /// # Panics
    /// If `rows` is not a whole number of rows.
    fn assign(&self, rows: &[f32]) -> Result<Assignments>;
}

/// The cluster of each row.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Assignments {
    /// The id of the nearest cluster.
    pub cluster: Vec<i32>,
    /// The distance to it.
    pub distance: Vec<f32>,
    /// How much further the second nearest is; infinite where there is only one.
    pub margin: Vec<f32>,
}

/// A function from rows of `dim_in` values to rows of `dim_out` values.
pub trait VectorMap: Send + Sync {
    /// Values in an input row.
    fn dim_in(&self) -> usize;

    /// Values in an output row.
    fn dim_out(&self) -> usize;

    /// Maps `input` (`rows x dim_in`) into `output` (`rows x dim_out`), each row by itself.
    ///
    /// # Errors
    /// Kind `Compute` where the device it works on fails.
    fn map(&self, input: &[f32], output: &mut [f32]) -> Result<()>;

    /// The way back, where it is known.
    fn as_inverse(&self) -> Option<&dyn InverseMap> {
        None
    }

    /// What it subtracts, for a map that does nothing else and so takes rows in double precision, too.
    fn as_origin(&self) -> Option<&Origin> {
        None
    }
}

/// The way back through a [`VectorMap`]: exact but for rounding where the map loses nothing, the nearest that was learned
/// where it does (an autoencoder's decoder).
pub trait InverseMap: VectorMap {
    /// Maps `output` (`rows x dim_out`) back into `input` (`rows x dim_in`), each row by itself.
    ///
    /// # Errors
    /// Kind `Compute` where the device it works on fails.
    fn invert(&self, output: &[f32], input: &mut [f32]) -> Result<()>;
}

/// A saved stage: settings and named tensors.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Artifact {
    /// Settings and learned scalars, as JSON.
    pub settings: serde_json::Map<String, serde_json::Value>,
    /// Learned arrays by name.
    pub tensors: BTreeMap<String, Tensor>,
}

/// A learned array.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    /// Its extents, outermost first.
    pub shape: Vec<usize>,
    /// Its values, row-major.
    pub values: Vec<f32>,
}

/// What a learner is given to learn from.
#[derive(Clone, Copy)]
pub struct Training<'a> {
    /// The training rows, as the fitted stages before this one leave them.
    pub rows: &'a dyn Rows,
    /// The class of each row, numbered from 0, where a label column was named; `None` for a row without a label.
    pub classes: Option<&'a [Option<u32>]>,
    /// Weights per feature, where a stage before this one learned them.
    pub feature_weights: Option<&'a [f32]>,
    /// A layout of the rows, where a stage before this one made one.
    pub coordinates: Option<&'a Coordinates>,
    /// Clusters of the rows, where a stage before this one learned them.
    pub centroids: Option<&'a Centroids>,
}

impl<'a> Training<'a> {
    /// Rows alone.
    pub fn new(rows: &'a dyn Rows) -> Self {
        Self { rows, classes: None, feature_weights: None, coordinates: None, centroids: None }
    }
}

/// What a learner may use.
#[derive(Clone, Copy)]
pub struct FitContext<'a> {
    /// The source of every random choice.
    pub seed: Seed,
    /// Where the arithmetic runs; it has the compute threads too.
    pub device: &'a dyn Device,
    /// Where events go and where interrupts come from.
    pub control: &'a Control,
    /// Where the learner may leave its state to go on from after an interrupt.
    pub checkpoint: &'a dyn Checkpoint,
    /// Bytes that the learner may hold beside its rows. One that would need more says so before it begins.
    pub memory: u64,
}

impl FitContext<'_> {
    /// Sees to it that `what` can have `needed` bytes.
    ///
    /// # Errors
    /// Kind `Compute` if that is more than [`memory`](Self::memory), or than the machine has.
    pub fn room(&self, what: &str, needed: u128) -> Result<()> {
        memory::room(what, needed, self.memory)
    }
}

/// Keeps the latest state of one learner.
pub trait Checkpoint: Send + Sync {
    /// Replaces the state; all or nothing, also when the process is killed meanwhile.
    fn save(&self, state: &Artifact) -> Result<()>;

    /// The state saved last by an interrupted run of the same pipeline over the same data, if any.
    fn load(&self) -> Result<Option<Artifact>>;
}

/// A [`Checkpoint`] that keeps nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoCheckpoint;

impl Checkpoint for NoCheckpoint {
    fn save(&self, _: &Artifact) -> Result<()> {
        Ok(())
    }

    fn load(&self) -> Result<Option<Artifact>> {
        Ok(None)
    }
}

/// What a learner gives back.
#[derive(Debug, Clone)]
pub struct Fitted {
    /// The fitted stage.
    pub transform: Arc<dyn Transform>,
    /// One line for people: final loss, iterations.
    pub summary: String,
    /// Figures for `run.json`, by name (loss per epoch, inertia, iterations).
    pub figures: serde_json::Map<String, serde_json::Value>,
}

/// A stage that learns.
pub trait Fit: Debug + Send + Sync {
    /// The stage's name, as in the pipeline file (`"autoencoder"`).
    fn kind(&self) -> &'static str;

    /// Learns from the training rows. "Not converged" is a figure in the result, not an error.
    ///
    /// # Errors
    /// Kind `Compute` where the arithmetic fails (a loss that is not finite), `Input` where the rows cannot be learned
    /// from (fewer rows than clusters), `Cancelled` after [`Control::cancel`].
    fn fit(&self, data: &Training<'_>, cx: &FitContext<'_>) -> Result<Fitted>;
}
