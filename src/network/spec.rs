//! What a layer is before it is made: the rows of a network's plan.

use schemars::JsonSchema;

use super::architecture::Activation;
use super::shape::RowShape;

/// The widest layer, the most channels and the largest kernel that are accepted: wider ones are typing errors more often
/// than wishes.
pub const WIDEST: usize = 65_536;

/// A layer, as a pipeline file and a model have it.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum LayerSpec {
    /// Every output is a weighted sum of all inputs.
    Dense(DenseLayer),
    /// A convolution of an image.
    #[serde(rename = "conv2d")]
    Conv2d(ConvLayer),
    /// The transpose of a convolution, which makes an image larger.
    #[serde(rename = "conv_transpose2d")]
    ConvTranspose2d(ConvTransposeLayer),
    /// Brings each channel of a batch to mean 0 and variance 1, then scales and shifts it.
    BatchNorm(BatchNormLayer),
    /// An activation function alone.
    Activation(ActivationLayer),
    /// Sets a part of the values to 0 in training.
    Dropout(DropoutLayer),
    /// Adds normal noise in training.
    Noise(NoiseLayer),
    /// Sets a part of the values to 0 in training and leaves the others as they are: a corruption that an autoencoder
    /// learns to undo.
    Mask(MaskLayer),
    /// The greatest value of each square of an image.
    #[serde(rename = "max_pool2d")]
    MaxPool2d(PoolLayer),
    /// Repeats each value of an image in a square: the inverse of pooling.
    #[serde(rename = "upsample2d")]
    Upsample2d(PoolLayer),
    /// Gives rows another shape of as many values.
    Reshape(ReshapeLayer),
}

/// Every output is a weighted sum of all inputs.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DenseLayer {
    /// Values that come out.
    #[schemars(range(min = 1, max = 65536))]
    pub outputs: usize,
    /// The activation function. Default "identity".
    #[serde(default)]
    pub activation: Activation,
}

/// A convolution of an image.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ConvLayer {
    /// Channels that come out.
    #[schemars(range(min = 1, max = 65536))]
    pub channels: usize,
    /// Height and width of the kernel.
    #[schemars(range(min = 1, max = 65536))]
    pub kernel: usize,
    /// Pixels from one output to the next. Default 1.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 65536))]
    pub stride: usize,
    /// Rows and columns of zeros around the image. Default 0.
    #[serde(default)]
    #[schemars(range(max = 65536))]
    pub padding: usize,
    /// The activation function. Default "identity".
    #[serde(default)]
    pub activation: Activation,
}

/// The transpose of a convolution, which makes an image larger.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ConvTransposeLayer {
    /// Channels that come out.
    #[schemars(range(min = 1, max = 65536))]
    pub channels: usize,
    /// Height and width of the kernel.
    #[schemars(range(min = 1, max = 65536))]
    pub kernel: usize,
    /// Pixels of the output from one input to the next. Default 1.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 65536))]
    pub stride: usize,
    /// Rows and columns that are cut off around the output. Default 0.
    #[serde(default)]
    #[schemars(range(max = 65536))]
    pub padding: usize,
    /// Rows and columns that are added at the lower and right end of the output; less than the stride. Default 0.
    #[serde(default)]
    #[schemars(range(max = 65536))]
    pub output_padding: usize,
    /// The activation function. Default "identity".
    #[serde(default)]
    pub activation: Activation,
}

/// Brings each channel of a batch to mean 0 and variance 1, then scales and shifts it.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BatchNormLayer {}

/// An activation function alone.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ActivationLayer {
    /// Which.
    pub activation: Activation,
}

/// Sets a part of the values to 0 in training.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DropoutLayer {
    /// The part of the values that become 0: at least 0 and below 1.
    #[schemars(range(min = 0), extend("exclusiveMaximum" = 1))]
    pub rate: f64,
}

/// Adds normal noise in training.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NoiseLayer {
    /// The standard deviation of the noise.
    #[schemars(range(min = 0))]
    pub deviation: f64,
}

/// Sets a part of the values to 0 in training and leaves the others as they are.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MaskLayer {
    /// The part of the values that become 0, from 0 to 1.
    #[schemars(range(min = 0, max = 1))]
    pub fraction: f64,
}

/// Squares of an image.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PoolLayer {
    /// Height and width of a square.
    #[schemars(range(min = 1, max = 65536))]
    pub size: usize,
}

/// Gives rows another shape of as many values.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReshapeLayer {
    /// `[values]` or `[channels, height, width]`.
    #[schemars(length(min = 1, max = 3), inner(range(min = 1)))]
    pub shape: Vec<usize>,
}

fn one() -> usize {
    1
}

impl LayerSpec {
    /// A dense layer.
    pub fn dense(outputs: usize, activation: Activation) -> Self {
        Self::Dense(DenseLayer { outputs, activation })
    }

    /// Its kind, as in a pipeline file.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Dense(_) => "dense",
            Self::Conv2d(_) => "conv2d",
            Self::ConvTranspose2d(_) => "conv_transpose2d",
            Self::BatchNorm(_) => "batch_norm",
            Self::Activation(_) => "activation",
            Self::Dropout(_) => "dropout",
            Self::Noise(_) => "noise",
            Self::Mask(_) => "mask",
            Self::MaxPool2d(_) => "max_pool2d",
            Self::Upsample2d(_) => "upsample2d",
            Self::Reshape(_) => "reshape",
        }
    }

    /// The shape of what comes out for rows of shape `input`.
    ///
    /// ```
    /// use dacpipe::network::{ConvLayer, Activation, LayerSpec, RowShape};
    /// let conv = ConvLayer { channels: 32, kernel: 5, stride: 2, padding: 2, activation: Activation::Relu };
    /// let conv = LayerSpec::Conv2d(conv);
    /// assert_eq!(conv.output(&RowShape::image(1, 28, 28)), Ok(RowShape::image(32, 14, 14)));
    /// assert_eq!(
    ///     conv.output(&RowShape::flat(784)).unwrap_err(),
    ///     "conv2d needs an image [channels, height, width], rows are [784]"
    /// );
    /// ```
    ///
    /// # Errors
    /// What does not fit, with the shapes.
    pub fn output(&self, input: &RowShape) -> Result<RowShape, String> {
        let image = || {
            input
                .as_image()
                .ok_or_else(|| format!("{} needs an image [channels, height, width], rows are {input}", self.kind()))
        };
        let fits = |extents: &[usize]| {
            RowShape::of(extents).ok_or_else(|| format!("{} makes rows of shape {extents:?} of {input}", self.kind()))
        };
        match self {
            Self::Dense(layer) => match input.as_image() {
                Some(_) => Err(format!("dense needs rows without a shape, rows are {input}: put a reshape before it")),
                None => fits(&[layer.outputs]),
            },
            Self::Conv2d(layer) => {
                let [_, height, width] = image()?;
                let extent = |extent: usize| {
                    let padded = extent + 2 * layer.padding;
                    let room = padded.checked_sub(layer.kernel).ok_or_else(|| {
                        let kernel = layer.kernel;
                        format!("a kernel of {kernel} x {kernel} does not fit in rows of shape {input}")
                    })?;
                    Ok::<usize, String>(room / layer.stride.max(1) + 1)
                };
                fits(&[layer.channels, extent(height)?, extent(width)?])
            }
            Self::ConvTranspose2d(layer) => {
                let [_, height, width] = image()?;
                let &ConvTransposeLayer { kernel, stride, padding, output_padding, .. } = layer;
                if output_padding >= stride {
                    return Err(format!("output_padding is {output_padding}, must be below the stride {stride}"));
                }
                let extent = |extent: usize| {
                    let all = (extent - 1) * stride + kernel + output_padding;
                    all.checked_sub(2 * padding).filter(|&left| left > 0).ok_or_else(|| {
                        format!("padding {padding} leaves nothing of the {all} pixels made of rows of shape {input}")
                    })
                };
                fits(&[layer.channels, extent(height)?, extent(width)?])
            }
            Self::MaxPool2d(layer) => {
                let [channels, height, width] = image()?;
                if height < layer.size || width < layer.size {
                    return Err(format!("squares of {0} x {0} do not fit in rows of shape {input}", layer.size));
                }
                fits(&[channels, height / layer.size, width / layer.size])
            }
            Self::Upsample2d(layer) => {
                let [channels, height, width] = image()?;
                fits(&[channels, height.saturating_mul(layer.size), width.saturating_mul(layer.size)])
            }
            Self::Reshape(layer) => {
                let shape = fits(&layer.shape)?;
                match shape.len() == input.len() {
                    true => Ok(shape),
                    false => Err(format!(
                        "reshape to {shape} needs {} values, rows of shape {input} have {}",
                        shape.len(),
                        input.len()
                    )),
                }
            }
            Self::BatchNorm(_) | Self::Activation(_) | Self::Dropout(_) | Self::Noise(_) | Self::Mask(_) => {
                Ok(input.clone())
            }
        }
    }

    /// Weights, biases and other values that it learns, for rows of shape `input`.
    pub fn parameter_count(&self, input: &RowShape) -> usize {
        match self {
            Self::Dense(layer) => (input.len() + 1).saturating_mul(layer.outputs),
            Self::Conv2d(ConvLayer { channels, kernel, .. })
            | Self::ConvTranspose2d(ConvTransposeLayer { channels, kernel, .. }) => {
                let one = input.channels().saturating_mul(kernel.saturating_mul(*kernel));
                channels.saturating_mul(one.saturating_add(1))
            }
            Self::BatchNorm(_) => 2 * input.channels(),
            _ => 0,
        }
    }
}

/// The shapes between `layers`, the input's first.
///
/// # Errors
/// Number and problem of the first layer that does not fit.
pub fn shapes(input: &RowShape, layers: &[LayerSpec]) -> Result<Vec<RowShape>, (usize, String)> {
    let mut shapes = vec![input.clone()];
    for (i, layer) in layers.iter().enumerate() {
        let next = layer.output(&shapes[i]).map_err(|problem| (i, problem))?;
        shapes.push(next);
    }
    Ok(shapes)
}

/// The layers that lead back from what `encoder` makes of rows of shape `input` to rows of that shape: each layer's
/// inverse, in reverse order. What a layer with weights was given had gone through batch norm and an activation; its mirror,
/// which gives that back, goes through the same, and through `last` at the end. Dropout and noise have no mirror.
///
/// # Errors
/// Number and problem of the first layer that does not fit.
pub fn mirror(input: &RowShape, encoder: &[LayerSpec], last: Activation) -> Result<Vec<LayerSpec>, (usize, String)> {
    let shapes = shapes(input, encoder)?;
    let mut decoder: Vec<LayerSpec> = Vec::new();
    // What the values that layer number i is given have gone through since the last weights: batch norm, and which activation.
    let before = |i: usize| {
        let (mut norm, mut own) = (false, None);
        for layer in encoder[..i].iter().rev() {
            match layer {
                LayerSpec::Dense(DenseLayer { activation, .. }) | LayerSpec::Conv2d(ConvLayer { activation, .. }) => {
                    return (norm, Some(own.unwrap_or(*activation)));
                }
                LayerSpec::Activation(ActivationLayer { activation }) => own = own.or(Some(*activation)),
                LayerSpec::BatchNorm(_) => norm = true,
                _ => {}
            }
        }
        (false, own)
    };
    for (i, layer) in encoder.iter().enumerate().rev() {
        let (into, (norm, after)) = (&shapes[i], before(i));
        let after = after.unwrap_or(last);
        // Batch norm stands between the weights and the activation.
        let activation = if norm { Activation::Identity } else { after };
        let finish = |decoder: &mut Vec<LayerSpec>| {
            if norm {
                decoder.push(LayerSpec::BatchNorm(BatchNormLayer {}));
                decoder.push(LayerSpec::Activation(ActivationLayer { activation: after }));
            }
        };
        match layer {
            LayerSpec::Dense(_) => {
                decoder.push(LayerSpec::dense(into.len(), activation));
                finish(&mut decoder);
            }
            LayerSpec::Conv2d(ConvLayer { kernel, stride, padding, .. }) => {
                let ([channels, height, _], Some([_, small, _])) =
                    (into.as_image().unwrap_or([0; 3]), shapes[i + 1].as_image())
                else {
                    continue;
                };
                let output_padding = (height + 2 * padding).saturating_sub((small - 1) * stride + kernel);
                decoder.push(LayerSpec::ConvTranspose2d(ConvTransposeLayer {
                    channels,
                    kernel: *kernel,
                    stride: *stride,
                    padding: *padding,
                    output_padding,
                    activation,
                }));
                finish(&mut decoder);
            }
            LayerSpec::MaxPool2d(pool) => decoder.push(LayerSpec::Upsample2d(pool.clone())),
            LayerSpec::Reshape(_) => {
                decoder.push(LayerSpec::Reshape(ReshapeLayer { shape: into.extents().to_vec() }));
            }
            LayerSpec::ConvTranspose2d(_) | LayerSpec::Upsample2d(_) => {
                return Err((i, format!("{} has no mirror; name the decoder's layers", layer.kind())));
            }
            LayerSpec::BatchNorm(_)
            | LayerSpec::Activation(_)
            | LayerSpec::Dropout(_)
            | LayerSpec::Noise(_)
            | LayerSpec::Mask(_) => {}
        }
    }
    Ok(decoder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mirror_leads_back_to_the_shape_it_came_from() {
        let conv = |channels, kernel, stride, padding| {
            LayerSpec::Conv2d(ConvLayer { channels, kernel, stride, padding, activation: Activation::Relu })
        };
        let flat = |shape: &[usize]| LayerSpec::Reshape(ReshapeLayer { shape: shape.to_vec() });
        let encoder = [
            conv(32, 5, 2, 2),
            conv(64, 5, 2, 2),
            conv(128, 3, 2, 0),
            flat(&[1152]),
            LayerSpec::dense(10, Activation::Identity),
        ];
        let input = RowShape::image(1, 28, 28);
        let code = shapes(&input, &encoder).unwrap().pop().unwrap();
        let decoder = mirror(&input, &encoder, Activation::Sigmoid).unwrap();
        assert_eq!(shapes(&code, &decoder).unwrap().pop().unwrap(), input);
        assert!(matches!(&decoder[4], LayerSpec::ConvTranspose2d(l) if l.activation == Activation::Sigmoid));
        assert!(matches!(&decoder[0], LayerSpec::Dense(l) if l.activation == Activation::Relu));
        let pool = LayerSpec::MaxPool2d(PoolLayer { size: 2 });
        let pooled = [conv(50, 5, 1, 0), pool.clone(), conv(50, 5, 1, 0), pool, conv(120, 4, 1, 0)];
        let code = shapes(&input, &pooled).unwrap().pop().unwrap();
        assert_eq!(code, RowShape::image(120, 1, 1));
        let back = mirror(&input, &pooled, Activation::Identity).unwrap();
        assert_eq!(shapes(&code, &back).unwrap().pop().unwrap(), input);
        // An odd image, of whose last row and column no output is made.
        let odd = RowShape::image(3, 9, 9);
        let layers = [conv(4, 3, 2, 0), conv(4, 2, 2, 0)];
        let code = shapes(&odd, &layers).unwrap().pop().unwrap();
        let back = mirror(&odd, &layers, Activation::Identity).unwrap();
        assert_eq!(shapes(&code, &back).unwrap().pop().unwrap(), odd);
    }

    #[test]
    fn batch_norm_is_mirrored_between_weights_and_activation() {
        let norm = || LayerSpec::BatchNorm(BatchNormLayer {});
        let elu = || LayerSpec::Activation(ActivationLayer { activation: Activation::Elu });
        let dense = |n| LayerSpec::dense(n, Activation::Identity);
        let encoder = [dense(5), norm(), elu(), dense(4), norm(), elu(), dense(2)];
        let decoder = mirror(&RowShape::flat(7), &encoder, Activation::Sigmoid).unwrap();
        let sigmoid = LayerSpec::dense(7, Activation::Sigmoid);
        assert_eq!(decoder, [dense(4), norm(), elu(), dense(5), norm(), elu(), sigmoid]);
    }

    #[test]
    fn what_does_not_fit_is_named_with_its_shapes() {
        let dense = LayerSpec::dense(3, Activation::Relu);
        let image = RowShape::image(2, 4, 4);
        assert!(dense.output(&image).unwrap_err().contains("rows are [2, 4, 4]"));
        let pool = LayerSpec::MaxPool2d(PoolLayer { size: 5 });
        assert!(pool.output(&image).unwrap_err().contains("5 x 5 do not fit in rows of shape [2, 4, 4]"));
        let reshape = LayerSpec::Reshape(ReshapeLayer { shape: vec![33] });
        assert!(reshape.output(&image).unwrap_err().contains("needs 33 values, rows of shape [2, 4, 4] have 32"));
        let (at, problem) = shapes(&RowShape::flat(7), &[dense.clone(), pool]).unwrap_err();
        assert!(at == 1 && problem.contains("needs an image"), "{problem}");
    }
}
