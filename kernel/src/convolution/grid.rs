//! How the values of an image meet the taps of a kernel: the image padded and cut into planes.
//!
//! With strides `[sy, sx]` the padded image of one channel is cut into `sy * sx` planes: plane `(ry, rx)` holds the
//! values at rows `ry, ry + sy, …` and columns `rx, rx + sx, …`. What one tap of the kernel meets in a row of outputs
//! then lies side by side in one plane, whatever the stride, and the padding is there already. So patches are copied
//! in runs, and gradients are added in runs.

use std::ops::Range;

use crate::isa::vectorised;

/// Calls a function for runs of a length that is known when it is compiled, which makes a few moves of each, where they
/// have at most sixteen values; otherwise with a length of zero, which stands for any.
macro_rules! with_run {
    ($run:expr, $function:ident $args:tt) => {
        with_run!($run, $function $args, 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16)
    };
    ($run:expr, $function:ident $args:tt, $($n:literal)*) => {
        match $run {
            $($n => $function::<$n> $args,)*
            _ => $function::<0> $args,
        }
    };
}

/// One axis of a convolution: rows or columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Axis {
    /// Extent of the image.
    pub size: usize,
    pub kernel: usize,
    pub stride: usize,
    pub padding: usize,
    /// Extent of the output.
    pub out: usize,
}

impl Axis {
    /// The axis, or what is wrong with it.
    pub fn new(size: usize, kernel: usize, stride: usize, padding: usize) -> Result<Self, String> {
        if size == 0 || kernel == 0 || stride == 0 {
            return Err(format!("a size of {size}, a kernel of {kernel}, a stride of {stride}: none may be zero"));
        }
        let padded = padding.checked_mul(2).and_then(|both| both.checked_add(size));
        let padded = padded.ok_or_else(|| format!("a padding of {padding} is too large"))?;
        let beyond = padded.checked_sub(kernel);
        let beyond = beyond.ok_or_else(|| format!("a kernel of {kernel} does not fit in {padded} with the padding"))?;
        Ok(Self { size, kernel, stride, padding, out: beyond / stride + 1 })
    }

    /// Planes along this axis; a kernel smaller than the stride reads fewer than there are.
    fn phases(&self) -> usize {
        self.stride.min(self.kernel)
    }

    /// Extent of a plane: no more than the kernel reads.
    fn plane(&self) -> usize {
        self.out + (self.kernel - 1) / self.stride
    }

    /// Where the image lies in the planes of one phase: the first place with a value of it, the index of that value,
    /// and how many places from there on have one.
    fn span(&self, phase: usize) -> (usize, usize, usize) {
        let place = self.padding.saturating_sub(phase).div_ceil(self.stride);
        let value = place * self.stride + phase - self.padding;
        let values = self.size.saturating_sub(value).div_ceil(self.stride);
        (place, value, values.min(self.plane().saturating_sub(place)))
    }
}

/// Both axes, and where each tap of the kernel begins in the planes of a channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Grid {
    pub y: Axis,
    pub x: Axis,
    pub taps: Vec<usize>,
}

/// Some rows of the outputs of one image, or all rows of several.
#[derive(Debug, Clone, Copy)]
pub(super) struct Block {
    pub images: usize,
    pub first_row: usize,
    pub rows: usize,
}

impl Grid {
    pub fn new(y: Axis, x: Axis) -> Self {
        let (height, width) = (y.plane(), x.plane());
        let tap = |ky: usize, kx: usize| {
            let plane = ky % y.stride * x.phases() + kx % x.stride;
            (plane * height + ky / y.stride) * width + kx / x.stride
        };
        let taps = (0..y.kernel).flat_map(|ky| (0..x.kernel).map(move |kx| tap(ky, kx))).collect();
        Self { y, x, taps }
    }

    /// Values in the planes of one channel, if they can be counted.
    pub fn checked_len(y: &Axis, x: &Axis) -> Option<usize> {
        y.plane().checked_mul(x.plane())?.checked_mul(y.phases())?.checked_mul(x.phases())
    }

    /// Values in the planes of one channel.
    pub fn len(&self) -> usize {
        self.y.plane() * self.x.plane() * self.y.phases() * self.x.phases()
    }

    /// Calls `row(y, x, places)` for each row of each plane that holds values of the image: its first value is at
    /// `(y, x)` of the image, the others follow a stride apart, and they lie at `places` of the planes.
    #[inline(always)]
    fn for_each_row(&self, mut row: impl FnMut(usize, usize, Range<usize>)) {
        let (height, width) = (self.y.plane(), self.x.plane());
        for phase_y in 0..self.y.phases() {
            let (place_y, first_y, rows) = self.y.span(phase_y);
            for phase_x in 0..self.x.phases() {
                let (place_x, first_x, values) = self.x.span(phase_x);
                if values == 0 {
                    continue;
                }
                let plane = (phase_y * self.x.phases() + phase_x) * height + place_y;
                for i in 0..rows {
                    let start = (plane + i) * width + place_x;
                    row(first_y + i * self.y.stride, first_x, start..start + values);
                }
            }
        }
    }
}

vectorised! {
    /// Cuts an image, channel after channel, into planes.
    pub(super) fn split(grid: &Grid, image: &[f32], planes: &mut [f32]) {
        planes.fill(0.0);
        let (width, stride) = (grid.x.size, grid.x.stride);
        for (channel, planes) in image.chunks_exact(grid.y.size * width).zip(planes.chunks_exact_mut(grid.len())) {
            grid.for_each_row(|y, x, places| {
                take_every(stride, &channel[y * width + x..(y + 1) * width], &mut planes[places]);
            });
        }
    }
}

vectorised! {
    /// The image whose planes these are, with the bias of each channel added. A value that no output reads is the bias.
    pub(super) fn join(grid: &Grid, planes: &[f32], bias: Option<&[f32]>, image: &mut [f32]) {
        let (width, stride) = (grid.x.size, grid.x.stride);
        for (c, channel) in image.chunks_exact_mut(grid.y.size * width).enumerate() {
            let bias = bias.map_or(0.0, |bias| bias[c]);
            let planes = &planes[c * grid.len()..];
            channel.fill(bias);
            grid.for_each_row(|y, x, places| {
                put_every(stride, &planes[places], bias, &mut channel[y * width + x..(y + 1) * width]);
            });
        }
    }
}

/// `to` becomes every `stride`th value of `from`.
#[inline(always)]
fn take_every(stride: usize, from: &[f32], to: &mut [f32]) {
    match stride {
        1 => to.copy_from_slice(&from[..to.len()]),
        2 => {
            let (pairs, rest) = from.as_chunks::<2>();
            for (to, pair) in to.iter_mut().zip(pairs) {
                *to = pair[0];
            }
            if let (Some(last), [value]) = (to.get_mut(pairs.len()), rest) {
                *last = *value;
            }
        }
        _ => to.iter_mut().zip(from.iter().step_by(stride)).for_each(|(to, value)| *to = *value),
    }
}

/// Every `stride`th value of `to` becomes one of `from` plus `bias`.
#[inline(always)]
fn put_every(stride: usize, from: &[f32], bias: f32, to: &mut [f32]) {
    match stride {
        1 => to.iter_mut().zip(from).for_each(|(to, value)| *to = value + bias),
        2 => {
            let (pairs, rest) = to.as_chunks_mut::<2>();
            let whole = pairs.len();
            for (pair, value) in pairs.iter_mut().zip(from) {
                pair[0] = value + bias;
            }
            if let (Some(value), [last]) = (from.get(whole), rest) {
                *last = value + bias;
            }
        }
        _ => to.iter_mut().step_by(stride).zip(from).for_each(|(to, value)| *to = value + bias),
    }
}

vectorised! {
    /// Writes what the taps of some channels meet at the outputs of a block: one row of `patches` for each channel and
    /// tap, in the order of the weights, with one value an output. Rows begin `stride` values apart.
    pub(super) fn gather_patches(
        grid: &Grid,
        planes: &[f32],
        image_len: usize,
        channels: Range<usize>,
        block: Block,
        patches: &mut [f32],
        stride: usize,
    ) {
        with_run!(grid.x.out, gather_runs(grid, planes, image_len, channels, block, patches, stride));
    }
}

#[inline(always)]
fn gather_runs<const N: usize>(
    grid: &Grid,
    planes: &[f32],
    image_len: usize,
    channels: Range<usize>,
    block: Block,
    patches: &mut [f32],
    stride: usize,
) {
    let (width, run) = (grid.x.plane(), grid.x.out);
    let mut rows = patches.chunks_mut(stride);
    for channel in channels {
        for (&tap, row) in grid.taps.iter().zip(&mut rows) {
            let start = channel * grid.len() + tap + block.first_row * width;
            for image in 0..block.images {
                let from = &planes[image * image_len + start..];
                copy_each::<N>(run, block.rows, from, width, &mut row[image * block.rows * run..], run);
            }
        }
    }
}

vectorised! {
    /// The transpose of [`gather_patches`]: adds every value of `patches` to the place in the planes that it was read
    /// from.
    pub(super) fn add_patches(
        grid: &Grid,
        patches: &[f32],
        stride: usize,
        channels: Range<usize>,
        block: Block,
        planes: &mut [f32],
        image_len: usize,
    ) {
        with_run!(grid.x.out, add_runs(grid, patches, stride, channels, block, planes, image_len));
    }
}

#[inline(always)]
fn add_runs<const N: usize>(
    grid: &Grid,
    patches: &[f32],
    stride: usize,
    channels: Range<usize>,
    block: Block,
    planes: &mut [f32],
    image_len: usize,
) {
    let (width, run) = (grid.x.plane(), grid.x.out);
    let mut rows = patches.chunks(stride);
    for channel in channels {
        for (&tap, row) in grid.taps.iter().zip(&mut rows) {
            let start = channel * grid.len() + tap + block.first_row * width;
            for image in 0..block.images {
                let to = &mut planes[image * image_len + start..];
                add_each::<N>(run, block.rows, &row[image * block.rows * run..], run, to, width);
            }
        }
    }
}

/// Copies `count` runs of `run` values; they begin `from_stride` and `to_stride` values apart.
pub(super) fn copy_runs(run: usize, count: usize, from: &[f32], from_stride: usize, to: &mut [f32], to_stride: usize) {
    with_run!(run, copy_each(run, count, from, from_stride, to, to_stride));
}

/// Runs of `N` values, or of `run` where `N` is zero.
#[inline(always)]
fn copy_each<const N: usize>(
    run: usize,
    count: usize,
    from: &[f32],
    from_stride: usize,
    to: &mut [f32],
    to_stride: usize,
) {
    let run = if N > 0 { N } else { run };
    for i in 0..count {
        to[i * to_stride..][..run].copy_from_slice(&from[i * from_stride..][..run]);
    }
}

/// As [`copy_each`], adding.
#[inline(always)]
fn add_each<const N: usize>(
    run: usize,
    count: usize,
    from: &[f32],
    from_stride: usize,
    to: &mut [f32],
    to_stride: usize,
) {
    let run = if N > 0 { N } else { run };
    for i in 0..count {
        let (from, to) = (&from[i * from_stride..][..run], &mut to[i * to_stride..][..run]);
        for (to, value) in to.iter_mut().zip(from) {
            *to += value;
        }
    }
}
