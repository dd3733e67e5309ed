//! What is computed with the kernels: each function checks that the arrays are as long as the kernel takes them to be.

use super::kernels::Kernel;
use super::machine::{Argument, Machine, Product, View};
use crate::error::Result;

/// Threads in a block, as `BLOCK` in the kernels' text.
const BLOCK: u32 = 256;
/// Most blocks along an axis: threads of larger arrays take several values.
const MOST_BLOCKS: usize = 1024;
/// The most blocks of a kernel that adds up, one sum each.
pub const SUMS: usize = 256;
/// Rows whose sums a thread adds up by itself.
const PART_ROWS: usize = 32;
/// The most parts of the rows whose sums are made apart for clusters, and the most values of all of them: 128 MiB.
const CLUSTER_PARTS: (usize, usize) = (512, 1 << 24);

/// Blocks for `count` values, one a thread as far as possible.
fn blocks(count: usize) -> u32 {
    count.div_ceil(BLOCK as usize).clamp(1, MOST_BLOCKS) as u32
}

/// Blocks for `width` columns, one a thread, and for up to `rows` rows.
fn columns(width: usize, rows: usize) -> [u32; 2] {
    [(width.div_ceil(BLOCK as usize)).max(1) as u32, rows.clamp(1, MOST_BLOCKS) as u32]
}

/// Blocks of a kernel that adds up `count` values: as many sums does it write.
pub fn sums_of(count: usize) -> usize {
    count.div_ceil(BLOCK as usize).clamp(1, SUMS)
}

/// A number that kernels take as 32 bits.
fn word(number: usize) -> Argument {
    Argument::Word(u32::try_from(number).expect("at most 2^32 values in a batch"))
}

/// Parts of the rows in [`activation_gradient`].
pub fn bias_parts(rows: usize) -> usize {
    rows.div_ceil(PART_ROWS)
}

/// `left * right`, all row-major: `left` has `rows` rows and `right` `columns` columns; `transposed` says of each of them
/// whether what is there is its transpose.
pub fn multiply(
    machine: &dyn Machine,
    [rows, columns, inner]: [usize; 3],
    [left, right]: [View<'_, f32>; 2],
    [left_transposed, right_transposed]: [bool; 2],
    output: View<'_, f32>,
) -> Result<()> {
    let fits = left.len() == rows * inner && right.len() == inner * columns && output.len() == rows * columns;
    assert!(fits, "a product of {rows} x {inner} x {columns}");
    let [left, right, output] = [left, right, output].map(View::address);
    // SAFETY: the lengths were checked.
    unsafe {
        machine.multiply(&Product { rows, columns, inner, left, left_transposed, right, right_transposed, output })
    }
}

/// `values` (`rows x width`) become `activation(values + bias)`.
pub fn bias_activation(
    machine: &dyn Machine,
    values: View<'_, f32>,
    bias: View<'_, f32>,
    rows: usize,
    activation: u32,
) -> Result<()> {
    let width = bias.len();
    assert_eq!(values.len(), rows * width, "values with a bias");
    let arguments = [values.argument(), bias.argument(), word(rows), word(width), Argument::Word(activation)];
    // SAFETY: the arguments of the kernel; the lengths were checked.
    unsafe { machine.launch(Kernel::BIAS_ACTIVATION, columns(width, rows), BLOCK, &arguments) }
}

/// `below` becomes the gradient before an activation that gave `outputs`, from that after it (all `rows x width`), and
/// `bias` (`width`) gets its sum over the rows, added to what is there if `add`. `part` has room for [`bias_parts`] rows.
pub fn activation_gradient(
    machine: &dyn Machine,
    [gradient, outputs, below]: [View<'_, f32>; 3],
    [bias, part]: [View<'_, f32>; 2],
    rows: usize,
    activation: u32,
    add: bool,
) -> Result<()> {
    let (width, parts) = (bias.len(), bias_parts(rows));
    assert!([gradient, outputs, below].iter().all(|view| view.len() == rows * width), "{rows} rows of a gradient");
    assert!(part.len() >= parts * width, "room for the sums of {parts} parts");
    let [blocks, _] = columns(width, 1);
    let arguments = [
        gradient.argument(),
        outputs.argument(),
        below.argument(),
        part.argument(),
        word(rows),
        word(width),
        word(PART_ROWS),
        Argument::Word(activation),
    ];
    // SAFETY: the arguments of the kernel; the lengths were checked.
    unsafe { machine.launch(Kernel::ACTIVATION_GRADIENT, [blocks, parts as u32], BLOCK, &arguments)? };
    let arguments = [part.argument(), bias.argument(), word(parts), word(width), Argument::Word(u32::from(add))];
    // SAFETY: the arguments of the kernel; the lengths were checked.
    unsafe { machine.launch(Kernel::SUM_PARTS, [blocks, 1], BLOCK, &arguments) }
}

/// `out` (`count x dim`) become the rows of `all` whose numbers these are, which must be rows of it.
pub fn gather_rows(
    machine: &dyn Machine,
    all: View<'_, f32>,
    numbers: View<'_, u32>,
    out: View<'_, f32>,
    dim: usize,
) -> Result<()> {
    let count = numbers.len();
    assert!(out.len() == count * dim && all.len().is_multiple_of(dim), "{count} rows of {dim} values");
    let arguments = [all.argument(), numbers.argument(), out.argument(), word(count), word(dim)];
    // SAFETY: the arguments of the kernel; the lengths were checked, and the numbers by the caller.
    unsafe { machine.launch(Kernel::GATHER_ROWS, columns(dim, count), BLOCK, &arguments) }
}

/// Of the reconstruction `y` of `x` (`rows x width`): `d` becomes `scale * w * (y - x)`, and the first
/// [`sums_of`] all values of `sums` those of `w (y - x)^2`. No weights (`width` otherwise) are all 1.
pub fn weighted_error(
    machine: &dyn Machine,
    [x, y, d]: [View<'_, f32>; 3],
    weights: Option<View<'_, f32>>,
    sums: View<'_, f64>,
    [rows, width]: [usize; 2],
    scale: f32,
) -> Result<()> {
    assert!([x, y, d].iter().all(|view| view.len() == rows * width) && sums.len() == SUMS, "{rows} rows of errors");
    let grid = sums_of(rows * width) as u32;
    assert!(weights.is_none_or(|weights| weights.len() == width), "weights of {width} values");
    let arguments = [
        x.argument(),
        y.argument(),
        weights.unwrap_or(x).argument(),
        d.argument(),
        sums.argument(),
        word(rows),
        word(width),
        Argument::Word(u32::from(weights.is_some())),
        Argument::Single(scale),
    ];
    // SAFETY: the arguments of the kernel; the lengths were checked.
    unsafe { machine.launch(Kernel::WEIGHTED_ERROR, [grid, 1], BLOCK, &arguments) }
}

/// Of the embeddings `z` (`rows x dim`) of the training rows `numbers`, each of which has a place in `places`, and there the
/// number of its target among `targets` or `u32::MAX` for none: adds `scale * (z - target)` to `d`, and the
/// first [`sums_of`] all values of `sums` become those of `(z - target)^2`.
pub fn placed_error(
    machine: &dyn Machine,
    [z, d, targets]: [View<'_, f32>; 3],
    [numbers, places]: [View<'_, u32>; 2],
    sums: View<'_, f64>,
    dim: usize,
    scale: f32,
) -> Result<()> {
    let rows = numbers.len();
    let fits = z.len() == rows * dim && d.len() == rows * dim && targets.len().is_multiple_of(dim);
    assert!(fits && sums.len() == SUMS, "{rows} embeddings of {dim} values");
    let arguments = [
        z.argument(),
        numbers.argument(),
        places.argument(),
        targets.argument(),
        d.argument(),
        sums.argument(),
        word(rows),
        word(dim),
        Argument::Single(scale),
    ];
    // SAFETY: the arguments of the kernel; the lengths were checked, and the numbers by the caller.
    unsafe { machine.launch(Kernel::PLACED_ERROR, [sums_of(rows * dim) as u32, 1], BLOCK, &arguments) }
}

/// Adds `more` to `values`.
pub fn add_to(machine: &dyn Machine, values: View<'_, f32>, more: View<'_, f32>) -> Result<()> {
    assert_eq!(values.len(), more.len(), "values and what is added to them");
    let arguments = [values.argument(), more.argument(), Argument::Wide(values.len() as u64)];
    // SAFETY: the arguments of the kernel; the lengths were checked.
    unsafe { machine.launch(Kernel::ADD_TO, [blocks(values.len()), 1], BLOCK, &arguments) }
}

/// The first [`sums_of`] all values of `sums` become those of the squares of `values`.
pub fn sum_of_squares(machine: &dyn Machine, values: View<'_, f32>, sums: View<'_, f64>) -> Result<()> {
    assert_eq!(sums.len(), SUMS, "sums of squares");
    let arguments = [values.argument(), sums.argument(), Argument::Wide(values.len() as u64)];
    // SAFETY: the arguments of the kernel; the lengths were checked.
    unsafe { machine.launch(Kernel::SUM_OF_SQUARES, [sums_of(values.len()) as u32, 1], BLOCK, &arguments) }
}

/// What a step is told ([`TOLD`] values), has met since the last look ([`MET`]), and does ([`RULE`]).
#[derive(Debug, Clone, Copy)]
pub struct StepArrays<'a> {
    pub told: View<'a, f64>,
    pub met: View<'a, f64>,
    pub rule: View<'a, f32>,
}

/// Values that a step is told: the learning rate, Adam's betas and epsilon, the penalty's factor, and 1 if it is that of the
/// squared norm.
pub const TOLD: usize = 6;
/// What steps have met: Adam's count of them, the sums over the rows of both losses, the batches since the last look, the
/// number of the one whose losses were not finite (0 for none), and those.
pub const MET: usize = 7;
/// What a step does.
pub const RULE: usize = 4;

/// Before a step: adds the batch's losses to what was met, and works out what Adam does. `errors`, `targets` and `squares`
/// are sums of the reconstruction's and the embedding's losses and of the parameters' squares, each with how many there are
/// of them; 0 for what was not summed. The mean losses are the sums times `scales`.
pub fn begin_step(
    machine: &dyn Machine,
    StepArrays { told, met, rule }: StepArrays<'_>,
    [(errors, error_parts), (targets, target_parts), (squares, square_parts)]: [(View<'_, f64>, usize); 3],
    rows: usize,
    scales: [f64; 2],
) -> Result<()> {
    assert!((told.len(), met.len(), rule.len()) == (TOLD, MET, RULE), "what a step is told");
    let fits = errors.len() >= error_parts && targets.len() >= target_parts && squares.len() >= square_parts;
    assert!(fits, "sums of a step");
    let arguments = [
        told.argument(),
        met.argument(),
        rule.argument(),
        errors.argument(),
        targets.argument(),
        squares.argument(),
        word(error_parts),
        word(target_parts),
        word(square_parts),
        word(rows),
        Argument::Double(scales[0]),
        Argument::Double(scales[1]),
    ];
    // SAFETY: the arguments of the kernel; the lengths were checked.
    unsafe { machine.launch(Kernel::BEGIN_STEP, [1, 1], BLOCK, &arguments) }
}

/// The step that [`begin_step`] worked out, over parameters, gradient and both moments.
pub fn adam(
    machine: &dyn Machine,
    [parameters, gradient, first, second]: [View<'_, f32>; 4],
    StepArrays { told, rule, .. }: StepArrays<'_>,
) -> Result<()> {
    let count = parameters.len();
    assert!([gradient, first, second].iter().all(|view| view.len() == count), "{count} parameters");
    let arguments = [
        parameters.argument(),
        gradient.argument(),
        first.argument(),
        second.argument(),
        rule.argument(),
        told.argument(),
        Argument::Wide(count as u64),
    ];
    // SAFETY: the arguments of the kernel; the lengths were checked.
    unsafe { machine.launch(Kernel::ADAM, [blocks(count), 1], BLOCK, &arguments) }
}

/// Adam's step with the numbers of [`AdamStep`](crate::kernel::adam::AdamStep): the betas, epsilon, rate, the root's scale,
/// l2 and decay.
pub fn adam_told(
    machine: &dyn Machine,
    [parameters, gradient, first, second]: [View<'_, f32>; 4],
    numbers: [f32; 7],
) -> Result<()> {
    let count = parameters.len();
    assert!([gradient, first, second].iter().all(|view| view.len() == count), "{count} parameters");
    let arrays = [parameters, gradient, first, second].map(View::argument);
    let numbers = numbers.map(Argument::Single);
    let arguments: Vec<Argument> = arrays.into_iter().chain([Argument::Wide(count as u64)]).chain(numbers).collect();
    // SAFETY: the arguments of the kernel; the lengths were checked.
    unsafe { machine.launch(Kernel::ADAM_TOLD, [blocks(count), 1], BLOCK, &arguments) }
}

/// The nearest of `centroids` (`k x dim`) to each of `rows` (`n x dim`), in a tie the lower number, into `labels`, its squared
/// distance and that of the second nearest.
pub fn nearest(
    machine: &dyn Machine,
    [rows, centroids]: [View<'_, f32>; 2],
    labels: View<'_, u32>,
    [squared, second]: [View<'_, f32>; 2],
    dim: usize,
) -> Result<()> {
    /// Rows of a block, as `ROWS` in the kernel's text.
    const ROWS: usize = 128;
    let n = labels.len();
    assert!(rows.len() == n * dim && squared.len() == n && second.len() == n, "{n} rows");
    assert!(centroids.len().is_multiple_of(dim) && centroids.len() > 0, "centroids of {dim} values");
    if n == 0 {
        return Ok(());
    }
    let arguments = [
        rows.argument(),
        centroids.argument(),
        labels.argument(),
        squared.argument(),
        second.argument(),
        Argument::Wide(n as u64),
        word(centroids.len() / dim),
        word(dim),
    ];
    let grid = u32::try_from(n.div_ceil(ROWS)).expect("at most 2^32 blocks of rows");
    // SAFETY: the arguments of the kernel; the lengths were checked.
    unsafe { machine.launch(Kernel::NEAREST, [grid, 1], ROWS as u32, &arguments) }
}

/// Parts of `n` rows whose sums are made apart in [`cluster_sums`].
pub fn cluster_parts(n: usize, k: usize, dim: usize) -> usize {
    let (most, values) = CLUSTER_PARTS;
    n.div_ceil(PART_ROWS).min(values / (k * (dim + 1))).clamp(1, most)
}

/// `sums` (`k x (dim + 1)`) of the `rows` of each label, and last of each how many they are. `part` has room for
/// [`cluster_parts`] times as much, zero before. Labels are below `k`.
pub fn cluster_sums(
    machine: &dyn Machine,
    rows: View<'_, f32>,
    labels: View<'_, u32>,
    [part, sums]: [View<'_, f64>; 2],
    [k, dim]: [usize; 2],
) -> Result<()> {
    let (n, len) = (labels.len(), k * (dim + 1));
    let parts = cluster_parts(n, k, dim);
    assert!(rows.len() == n * dim && sums.len() == len && part.len() == parts * len, "{n} rows of {k} clusters");
    let arguments = [
        rows.argument(),
        labels.argument(),
        part.argument(),
        Argument::Wide(n as u64),
        word(k),
        word(dim),
        Argument::Wide(n.div_ceil(parts) as u64),
    ];
    let [blocks_of_columns, _] = columns(dim + 1, 1);
    // SAFETY: the arguments of the kernel; the lengths were checked, and the labels by the caller.
    unsafe { machine.launch(Kernel::CLUSTER_SUMS, [blocks_of_columns, parts as u32], BLOCK, &arguments)? };
    let arguments = [part.argument(), sums.argument(), word(parts), Argument::Wide(len as u64)];
    // SAFETY: the arguments of the kernel; the lengths were checked.
    unsafe { machine.launch(Kernel::SUM_WIDE_PARTS, [blocks(len), 1], BLOCK, &arguments) }
}

/// The divergence of the targets `p` (`rows x k`) from the soft assignments of `z` (`rows x dim`) to `centroids` (`k x dim`):
/// `total` (one value) becomes `scale` times its sum over the rows, `d_z` and `d_centroids` the gradients of that. `losses`
/// (`rows`) and `pulls` (`rows x k`) are room for what lies between.
pub fn student(
    machine: &dyn Machine,
    [z, centroids, p]: [View<'_, f32>; 3],
    [total, d_z, d_centroids, pulls]: [View<'_, f32>; 4],
    losses: View<'_, f64>,
    [k, dim]: [usize; 2],
    scale: f64,
) -> Result<()> {
    let rows = losses.len();
    let fits = z.len() == rows * dim && d_z.len() == z.len() && centroids.len() == k * dim;
    let fits =
        fits && d_centroids.len() == k * dim && p.len() == rows * k && pulls.len() == p.len() && total.len() == 1;
    assert!(fits, "{rows} embeddings of {dim} values and {k} clusters");
    let arguments = [
        z.argument(),
        centroids.argument(),
        p.argument(),
        losses.argument(),
        d_z.argument(),
        pulls.argument(),
        word(rows),
        word(k),
        word(dim),
        Argument::Single(scale as f32),
    ];
    // Few rows in a block: a thread has k x dim steps to do, and a batch a few hundred rows.
    const THREADS: u32 = 32;
    // SAFETY: the arguments of the kernel; the lengths were checked.
    unsafe { machine.launch(Kernel::STUDENT, [(rows as u32).div_ceil(THREADS), 1], THREADS, &arguments)? };
    let arguments =
        [z.argument(), centroids.argument(), pulls.argument(), d_centroids.argument(), word(rows), word(k), word(dim)];
    let grid = [((k * dim) as u32).div_ceil(THREADS), 1];
    // SAFETY: the arguments of the kernel; the lengths were checked.
    unsafe { machine.launch(Kernel::STUDENT_CENTROIDS, grid, THREADS, &arguments)? };
    let arguments = [losses.argument(), total.argument(), word(rows), Argument::Double(scale)];
    // SAFETY: the arguments of the kernel; the lengths were checked.
    unsafe { machine.launch(Kernel::SUM_LOSSES, [1, 1], BLOCK, &arguments) }
}
