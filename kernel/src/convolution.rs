//! Convolutions in two dimensions with their gradients, over images in `f32`, channel after channel and row after row.
//!
//! Each is a matrix product over patches: the values that the taps of the kernel meet, one row for each input channel
//! and tap, one column for each output position. Patches are made for some hundred positions at a time, from one image
//! or from several small ones, and are multiplied while they are in the cache.
//!
//! With weights `W` of `[out, in, kh, kw]` read as a matrix of `out` rows: the outputs are `W · patches`, the gradient
//! at the patches is `Wᵀ · d_out`, and that of the weights `d_out · patchesᵀ`. Every sum runs in one order that depends
//! neither on the number of threads nor, except for the gradients of the weights and the biases, which are sums over
//! images, on what other images there are.

mod channels;
mod grid;

use std::cell::RefCell;
use std::ops::Range;

use super::Pool;
use super::aligned::Aligned;
use super::gemm::{Left, Panels, Right, Start, gemm, pack_transposed, right_of_panels};
use super::isa::LANES;
pub use channels::sum_channels;
use grid::{Axis, Block, Grid, add_patches, copy_runs, gather_patches, join, split};

/// Output positions that are multiplied together, unless one row of outputs has more.
const MOST_COLUMNS: usize = 256;
/// Values in the patches that are multiplied together, unless those of one channel are more: with the weights that they
/// meet, they fit in a second-level cache.
const MOST_PATCHES: usize = 32 * 1024;
/// Values in the planes of images that are taken together, unless one image has more.
const MOST_PLANES: usize = 64 * 1024;
/// A job has at least so many tasks if there are so many images.
const TASKS: usize = 16;
/// Parts of the images that have sums of their own in the gradient of the weights.
const PARTS: usize = 8;
/// Values in all these sums, unless one part alone has more.
const MOST_SUMS: usize = 16 << 20;

/// What is done to the outputs of some images while they are in the cache.
pub type Finish<'a> = &'a (dyn Fn(&mut [f32]) + Sync);

/// Whether a gradient replaces what is there or is added to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accumulate {
    /// What was there is overwritten.
    Replace,
    /// It is added to what is there.
    Add,
}

impl Accumulate {
    /// The first gradient of a step replaces that of the step before; others are added to it.
    pub fn of_step(first: bool) -> Self {
        if first { Self::Replace } else { Self::Add }
    }

    fn write(self, to: &mut f32, value: f32) {
        *to = if self == Self::Add { *to + value } else { value };
    }
}

/// Room for what one thread works on, kept from call to call.
#[derive(Default)]
struct Scratch {
    planes: Aligned,
    patches: Aligned,
    /// Outputs of several images, or gradients at them, one row a channel.
    outputs: Aligned,
    /// Gradients at the outputs, packed.
    panels: Aligned,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
    /// The sums of all parts, kept by the thread that asks for a gradient of weights.
    static SUMS: RefCell<Aligned> = RefCell::default();
}

/// The first `len` values of `room`, which grows if it has fewer.
fn room(room: &mut Aligned, len: usize) -> &mut [f32] {
    if room.len() < len {
        *room = Aligned::zeros(len);
    }
    &mut room[..len]
}

/// Rows begin an odd number of cache lines apart: an even one would crowd a column into few sets of the cache.
fn stride_of(columns: usize) -> usize {
    (columns.div_ceil(LANES) | 1) * LANES
}

/// The extents of a convolution, which makes `[channels_out, out_height, out_width]` of images of `[channels_in, height,
/// width]`.
///
/// The same object is the transposed convolution, which takes the outputs' extents to the images'.
///
/// ```
/// use dacpipe_kernel::Pool;
/// use dacpipe_kernel::convolution::Convolution;
/// // One channel of 3 x 3, a kernel of 2 x 2 that adds up what it meets.
/// let convolution = Convolution::new(1, [3, 3], 1, [2, 2], [1, 1], [0, 0]).expect("the kernel fits");
/// assert_eq!(convolution.output(), [1, 2, 2]);
/// let image: Vec<f32> = (1..10).map(|v| v as f32).collect();
/// let mut out = [0.0; 4];
/// convolution.forward(&Pool::new(2), &image, &[1.0; 4], Some(&[100.0]), &|_| {}, &mut out);
/// assert_eq!(out, [112.0, 116.0, 124.0, 128.0]);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Convolution {
    channels_in: usize,
    channels_out: usize,
    grid: Grid,
    /// Images whose outputs are computed together; one where their rows are cut.
    images: usize,
    /// Rows of outputs that are computed together.
    rows: usize,
}

impl Convolution {
    /// A convolution of images of `channels_in` channels of `[height, width]`, all pairs in the order of rows and
    /// columns. The padding is on both sides and of zeros.
    ///
    /// # Errors
    /// What does not fit, in words: an extent or stride of zero, or a kernel larger than the padded image.
    pub fn new(
        channels_in: usize,
        size: [usize; 2],
        channels_out: usize,
        kernel: [usize; 2],
        stride: [usize; 2],
        padding: [usize; 2],
    ) -> Result<Self, String> {
        if channels_in == 0 || channels_out == 0 {
            return Err(format!("{channels_in} channels in, {channels_out} out: neither may be zero"));
        }
        let axis = |i: usize| Axis::new(size[i], kernel[i], stride[i], padding[i]);
        let (y, x) = (axis(0)?, axis(1)?);
        // Every product of extents that is computed later is below one of these.
        let planes = Grid::checked_len(&y, &x).and_then(|len| len.checked_mul(channels_in));
        let image = size[0].checked_mul(size[1]).and_then(|len| len.checked_mul(channels_in));
        let outputs = y.out.checked_mul(x.out).and_then(|len| len.checked_mul(channels_out));
        let taps = kernel[0].checked_mul(kernel[1]);
        let weights = taps.and_then(|taps| taps.checked_mul(channels_in)?.checked_mul(channels_out));
        if [planes, image, outputs, weights].iter().any(|len| len.is_none_or(|len| len > isize::MAX as usize / 64)) {
            return Err(format!("{channels_in} channels of {size:?} with a kernel of {kernel:?} are too large"));
        }
        let grid = Grid::new(y, x);
        let (images, rows) = block_extents(&grid, channels_in);
        Ok(Self { channels_in, channels_out, grid, images, rows })
    }

    /// Channels, height and width of an image.
    pub fn input(&self) -> [usize; 3] {
        [self.channels_in, self.grid.y.size, self.grid.x.size]
    }

    /// Channels, height and width of an output.
    pub fn output(&self) -> [usize; 3] {
        [self.channels_out, self.grid.y.out, self.grid.x.out]
    }

    /// Values of the weights, `channels_out * channels_in * kh * kw`.
    pub fn weight_len(&self) -> usize {
        self.channels_out * self.depth()
    }

    fn image_len(&self) -> usize {
        self.input().iter().product()
    }

    fn output_len(&self) -> usize {
        self.output().iter().product()
    }

    /// Weights of one output channel: rows of the patches.
    fn depth(&self) -> usize {
        self.channels_in * self.grid.taps.len()
    }

    /// Output positions of one image.
    fn positions(&self) -> usize {
        self.grid.y.out * self.grid.x.out
    }

    /// Values in the planes of one image.
    fn planes_len(&self) -> usize {
        self.channels_in * self.grid.len()
    }

    /// Number of images. Panics if the slices do not belong to as many.
    fn count(&self, images: &[f32], outputs: &[f32], weights: usize) -> usize {
        let n = images.len() / self.image_len();
        assert_eq!(images.len(), n * self.image_len(), "images of {:?}", self.input());
        assert_eq!(outputs.len(), n * self.output_len(), "{n} outputs of {:?}", self.output());
        assert_eq!(weights, self.weight_len(), "as many weights");
        n
    }

    /// Images that one task takes together.
    fn group(&self, n: usize) -> usize {
        self.images.min(n / TASKS).max(1)
    }

    /// The blocks of a group of images.
    fn blocks(&self, images: usize) -> impl Iterator<Item = Block> + use<> {
        let (height, rows) = (self.grid.y.out, self.rows);
        (0..height).step_by(rows).map(move |first_row| Block { images, first_row, rows: rows.min(height - first_row) })
    }

    /// Channels whose patches are in the cache together.
    fn channels(&self, stride: usize) -> impl Iterator<Item = Range<usize>> + use<> {
        let (all, most) = (self.channels_in, (MOST_PATCHES / (stride * self.grid.taps.len())).max(1));
        // Parts of nearly equal size.
        let most = all.div_ceil(all.div_ceil(most));
        (0..all).step_by(most).map(move |first| first..all.min(first + most))
    }

    /// The outputs of all images: their convolution plus the bias of each output channel, then `finish`, which sees
    /// some whole outputs at a time.
    ///
    /// Panics if slices do not have the lengths that the extents say. `O(n x channels_out x out_height x out_width x
    /// channels_in x kh x kw)` time; a few hundred kilobytes for each thread, or as much as one padded image, if it is
    /// larger.
    pub fn forward(
        &self,
        pool: &Pool,
        images: &[f32],
        weight: &[f32],
        bias: Option<&[f32]>,
        finish: Finish<'_>,
        out: &mut [f32],
    ) {
        let group = self.group(self.count(images, out, weight.len()));
        assert!(bias.is_none_or(|bias| bias.len() == self.channels_out), "one bias for each output channel");
        pool.for_each_chunk_mut(out, group * self.output_len(), |i, out| {
            let images = group_of(images, self.image_len(), i * group, out.len() / self.output_len());
            SCRATCH.with_borrow_mut(|scratch| self.forward_group(images, weight, bias, out, scratch));
            finish(out);
        });
    }

    fn forward_group(&self, images: &[f32], weight: &[f32], bias: Option<&[f32]>, out: &mut [f32], s: &mut Scratch) {
        let (positions, depth, taps) = (self.positions(), self.depth(), self.grid.taps.len());
        let count = images.len() / self.image_len();
        let planes = room(&mut s.planes, count * self.planes_len());
        self.split_images(images, planes);
        for block in self.blocks(count) {
            let columns = self.columns(block);
            let stride = stride_of(columns);
            // One image alone is written where it belongs.
            let (outputs, out_stride) = match count {
                1 => (&mut out[block.first_row * self.grid.x.out..], positions),
                _ => (room(&mut s.outputs, self.channels_out * stride), stride),
            };
            for (o, row) in outputs.chunks_mut(out_stride).take(self.channels_out).enumerate() {
                row[..columns].fill(bias.map_or(0.0, |bias| bias[o]));
            }
            for channels in self.channels(stride) {
                let left = Left::rows(&weight[channels.start * taps..], depth);
                let patches = room(&mut s.patches, channels.len() * taps * stride);
                let steps = channels.len() * taps;
                gather_patches(&self.grid, planes, self.planes_len(), channels, block, patches, stride);
                let right = Right::rows(patches, stride, steps, columns);
                gemm(self.channels_out, left, right, Start::Output, outputs, out_stride);
            }
            if count > 1 {
                for (o, row) in s.outputs.chunks_exact(stride).take(self.channels_out).enumerate() {
                    copy_runs(positions, count, row, positions, &mut out[o * positions..], self.output_len());
                }
            }
        }
    }

    /// The gradient at the images, from that at the outputs.
    ///
    /// Panics and costs as [`forward`](Self::forward).
    pub fn backward_input(&self, pool: &Pool, d_out: &[f32], weight: &[f32], d_images: &mut [f32]) {
        self.forward_transposed(pool, d_out, weight, None, &|_| {}, d_images);
    }

    /// The transposed convolution: from values of the outputs' extents to values of the images', plus the bias of each
    /// of the images' channels, then `finish`, which sees some whole images at a time.
    ///
    /// Panics and costs as [`forward`](Self::forward).
    pub fn forward_transposed(
        &self,
        pool: &Pool,
        values: &[f32],
        weight: &[f32],
        bias: Option<&[f32]>,
        finish: Finish<'_>,
        images: &mut [f32],
    ) {
        let group = self.group(self.count(images, values, weight.len()));
        assert!(bias.is_none_or(|bias| bias.len() == self.channels_in), "one bias for each channel of the images");
        pool.for_each_chunk_mut(images, group * self.image_len(), |i, images| {
            let values = group_of(values, self.output_len(), i * group, images.len() / self.image_len());
            SCRATCH.with_borrow_mut(|scratch| self.transposed_group(values, weight, bias, images, scratch));
            finish(images);
        });
    }

    fn transposed_group(&self, values: &[f32], weight: &[f32], bias: Option<&[f32]>, out: &mut [f32], s: &mut Scratch) {
        let (positions, depth, taps) = (self.positions(), self.depth(), self.grid.taps.len());
        let count = out.len() / self.image_len();
        let planes = room(&mut s.planes, count * self.planes_len());
        planes.fill(0.0);
        for block in self.blocks(count) {
            let columns = self.columns(block);
            let stride = stride_of(columns);
            let right = if count == 1 {
                Right::rows(&values[block.first_row * self.grid.x.out..], positions, self.channels_out, columns)
            } else {
                let rows = room(&mut s.outputs, self.channels_out * stride);
                self.gather_outputs(values, block, rows, stride);
                Right::rows(rows, stride, self.channels_out, columns)
            };
            for channels in self.channels(stride) {
                let rows = channels.len() * taps;
                let patches = room(&mut s.patches, rows * stride);
                let left = Left::transposed(&weight[channels.start * taps..], depth);
                gemm(rows, left, right, Start::Zero, patches, stride);
                add_patches(&self.grid, patches, stride, channels, block, planes, self.planes_len());
            }
        }
        let planes = planes.chunks_exact(self.planes_len());
        for (planes, image) in planes.zip(out.chunks_exact_mut(self.image_len())) {
            join(&self.grid, planes, bias, image);
        }
    }

    /// The gradient of the weights, summed over the images.
    ///
    /// Panics and costs as [`forward`](Self::forward), with room for eight gradients besides (or fewer, if they are
    /// large), each the sum over an eighth of the images.
    pub fn backward_weight(
        &self,
        pool: &Pool,
        images: &[f32],
        d_out: &[f32],
        accumulate: Accumulate,
        d_weight: &mut [f32],
    ) {
        let n = self.count(images, d_out, d_weight.len());
        let (len, depth) = (self.weight_len(), self.depth());
        let in_part = n.div_ceil(PARTS.min(MOST_SUMS / len).max(1)).max(1);
        let parts = n.div_ceil(in_part);
        let mut kept = SUMS.take();
        let sums = room(&mut kept, parts * len);
        pool.for_each_chunk_mut(sums, len, |part, sums| {
            let (end, group) = (n.min((part + 1) * in_part), self.group(n));
            let mut start = Start::Zero;
            for first in (part * in_part..end).step_by(group) {
                let count = group.min(end - first);
                let images = group_of(images, self.image_len(), first, count);
                let d_out = group_of(d_out, self.output_len(), first, count);
                SCRATCH.with_borrow_mut(|scratch| self.weight_group(images, d_out, start, sums, scratch));
                start = Start::Output;
            }
        });
        // The sums have a row for each weight of an output channel, the gradient one for each output channel.
        pool.for_each_chunk_mut(d_weight, LANES * depth, |block, rows| {
            let width = rows.len() / depth;
            for step in 0..depth {
                let mut lanes = [0.0; LANES];
                for part in sums.chunks_exact(len) {
                    let values = &part[step * self.channels_out + block * LANES..];
                    match values.first_chunk::<LANES>() {
                        // Lanes beyond `width` are nobody's.
                        Some(values) => lanes.iter_mut().zip(values).for_each(|(sum, v)| *sum += v),
                        None => lanes.iter_mut().zip(&values[..width]).for_each(|(sum, v)| *sum += v),
                    }
                }
                for (row, sum) in rows.chunks_exact_mut(depth).zip(lanes) {
                    accumulate.write(&mut row[step], sum);
                }
            }
        });
        SUMS.set(kept);
    }

    /// Adds the gradient over a group of images to `sums`, one row for each row of the patches.
    fn weight_group(&self, images: &[f32], d_out: &[f32], mut start: Start<'_>, sums: &mut [f32], s: &mut Scratch) {
        let (outputs, taps) = (self.channels_out, self.grid.taps.len());
        let count = images.len() / self.image_len();
        let planes = room(&mut s.planes, count * self.planes_len());
        self.split_images(images, planes);
        for block in self.blocks(count) {
            let columns = self.columns(block);
            let stride = stride_of(columns);
            let panels = room(&mut s.panels, Panels::len(columns, outputs));
            if columns == self.positions() {
                pack_transposed(d_out, columns, outputs, panels);
            } else {
                let rows = room(&mut s.outputs, outputs * columns);
                self.gather_outputs(d_out, block, rows, columns);
                pack_transposed(rows, columns, outputs, panels);
            }
            let right = right_of_panels(panels, columns, outputs);
            for channels in self.channels(stride) {
                let rows = channels.len() * taps;
                let patches = room(&mut s.patches, rows * stride);
                let sums = &mut sums[channels.start * taps * outputs..];
                gather_patches(&self.grid, planes, self.planes_len(), channels, block, patches, stride);
                gemm(rows, Left::rows(patches, stride), right, start, sums, outputs);
            }
            start = Start::Output;
        }
    }

    /// The gradient of the biases: the sum of the gradient at the outputs over images and positions, channel by
    /// channel, in double precision.
    ///
    /// Panics if a slice does not have the length that the extents say.
    pub fn backward_bias(&self, pool: &Pool, d_out: &[f32], accumulate: Accumulate, d_bias: &mut [f32]) {
        sum_channels(pool, d_out, self.channels_out, self.positions(), accumulate, d_bias);
    }

    /// Columns of the patches of a block.
    fn columns(&self, block: Block) -> usize {
        block.images * block.rows * self.grid.x.out
    }

    fn split_images(&self, images: &[f32], planes: &mut [f32]) {
        let planes = planes.chunks_exact_mut(self.planes_len());
        for (image, planes) in images.chunks_exact(self.image_len()).zip(planes) {
            split(&self.grid, image, planes);
        }
    }

    /// The outputs of a block, image after image, one row for each channel.
    fn gather_outputs(&self, outputs: &[f32], block: Block, rows: &mut [f32], stride: usize) {
        let (positions, run) = (self.positions(), block.rows * self.grid.x.out);
        for (o, row) in rows.chunks_exact_mut(stride).enumerate() {
            let from = &outputs[o * positions + block.first_row * self.grid.x.out..];
            copy_runs(run, block.images, from, self.output_len(), row, run);
        }
    }
}

/// How many images, or else how many rows of one image, make the widest products with the least waste.
fn block_extents(grid: &Grid, channels: usize) -> (usize, usize) {
    // A product is computed in panels of sixteen columns, up to three at a time.
    let cost = |columns: usize| {
        let panels = columns.div_ceil(LANES);
        5 * panels + panels.div_ceil(3)
    };
    let (height, width) = (grid.y.out, grid.x.out);
    if height * width <= MOST_COLUMNS {
        let most = (MOST_COLUMNS / (height * width)).min(MOST_PLANES / (channels * grid.len())).max(1);
        // Costs of one image, in whole numbers.
        let of_one = |images: &usize| cost(images * height * width) * 1000 / images;
        ((1..=most).min_by_key(of_one).unwrap_or(1), height)
    } else {
        let most = (MOST_COLUMNS / width).clamp(1, height);
        let of_all = |rows: &usize| height / rows * cost(rows * width) + cost(height % rows * width);
        (1, (1..=most).rev().min_by_key(of_all).unwrap_or(1))
    }
}

/// `count` images of `len` values from image `first` on.
fn group_of(images: &[f32], len: usize, first: usize, count: usize) -> &[f32] {
    &images[first * len..][..count * len]
}

#[cfg(test)]
mod tests;
