//! Networks, in two forms.
//!
//! **Layers** are candle modules, one file each: [`Dense`], [`Conv2d`], [`ConvTranspose2d`], [`BatchNorm`], [`Activate`],
//! [`Dropout`], [`Noise`], [`MaxPool2d`], [`Upsample2d`]. A [`LayerSpec`] says what a layer is, a [`Sequence`] applies some one
//! after the other, a [`Coder`] is an encoder and a decoder. Their arithmetic on the CPU is [`kernel`](crate::kernel)'s, on other
//! devices a [`Formula`] over tensors; their gradients go over candle's tape, and an [`Optimizer`] moves what they learn: so any formula can be minimised.
//!
//! **The fused road** is for dense autoencoders alone ([`Mlp`]). A batch travels as passes of at most [`PASS_ROWS`] rows, each
//! on one thread from the input through the loss to the gradients at every layer; nothing waits between layers. Then the
//! parameters are shared out: each block gets its gradient over all passes, in order, and is moved at once. No gradients
//! are merged, so the result does not depend on the number of threads.

mod activate;
mod architecture;
mod batch_norm;
mod chain;
mod coder;
mod conv2d;
mod conv_transpose2d;
mod decoder;
mod dense;
mod dropout;
mod encoder;
mod formula;
mod image;
mod initialisation;
mod layer;
mod max_pool2d;
mod mlp;
mod moving;
mod noise;
mod optimizer;
mod packed;
mod parameter;
mod sequence;
mod shape;
mod spec;
mod upsample2d;

pub use activate::Activate;
pub use architecture::{Activation, Architecture, DenseSpec, TensorPlace};
pub use batch_norm::BatchNorm;
pub use coder::{Arrays, Coder, CoderSpec};
pub use conv_transpose2d::ConvTranspose2d;
pub use conv2d::Conv2d;
pub use decoder::Decoder;
pub use dense::Dense;
pub use dropout::Dropout;
pub use encoder::Encoder;
pub use formula::Formula;
pub(crate) use formula::activate;
pub use initialisation::initialise;
pub use layer::{Builder, Clock, Layer, Operation};
pub(crate) use layer::{values, with_values};
pub use max_pool2d::MaxPool2d;
pub use mlp::{Mlp, MlpPass};
pub use noise::Noise;
pub use optimizer::{Optimizer, OptimizerSpec};
pub use parameter::{Buffer, Parameter};
pub use sequence::{Initialisation, Sequence};
pub use shape::RowShape;
pub use spec::{
    ActivationLayer, BatchNormLayer, ConvLayer, ConvTransposeLayer, DenseLayer, DropoutLayer, LayerSpec, MaskLayer,
    NoiseLayer, PoolLayer, ReshapeLayer, WIDEST, mirror, shapes,
};
pub use upsample2d::Upsample2d;

use crate::kernel::{Matrix, Pool};

/// Most rows in a pass. It is fixed, because sums over rows are made pass by pass: their order must not depend on the
/// number of threads.
pub const PASS_ROWS: usize = 64;

/// Moves one block of parameters: the parameters, their gradient, and the same parts of two arrays of optimizer state.
pub type UpdateRule<'a> = dyn Fn(&mut [f32], &[f32], [&mut [f32]; 2]) + Sync + 'a;

/// An autoencoder that can learn on the fused road. Its backward takes gradients at the embedding and at the
/// reconstruction.
pub trait Network: Send + Sync {
    /// Its rows under way.
    type Pass: Pass;

    /// Room for a pass of up to [`PASS_ROWS`] rows.
    fn new_pass(&self) -> Self::Pass;

    /// Computes embedding and reconstruction of the pass's input, on the calling thread.
    fn forward(&self, pass: &mut Self::Pass);

    /// Computes the gradients at all layers, on the calling thread, from the gradient at the reconstruction, which
    /// lies in the pass, and the one at the embedding, if a loss has one.
    fn backward(&self, pass: &mut Self::Pass, d_embedding: Option<&Matrix>);

    /// Computes the gradient of all parameters over `passes`, block by block, and moves each block of parameters by
    /// `rule` as soon as it has its gradient, which is then forgotten. `state` are two arrays in the layout of
    /// [`parameters`](Self::parameters) that belong to the rule.
    fn update(&mut self, passes: &[Self::Pass], state: [&mut [f32]; 2], pool: &Pool, rule: &UpdateRule<'_>);

    /// All parameters in one array. Between tensors there may be zeros, whose gradient is zero.
    fn parameters(&self) -> &[f32];

    /// Replaces them. Panics if there are not as many.
    fn set_parameters(&mut self, parameters: &[f32]);
}

/// Rows on their way through a network.
pub trait Pass: Send + Sync {
    /// The rows that go in.
    fn input(&self) -> &Matrix;

    /// The same, to be filled. Its number of rows is that of the pass.
    fn input_mut(&mut self) -> &mut Matrix;

    /// What the encoder made of them.
    fn embedding(&self) -> &Matrix;

    /// The input, what the decoder made of it, and where the loss's gradient at the latter goes.
    fn reconstruction(&mut self) -> (&Matrix, &Matrix, &mut Matrix);
}
