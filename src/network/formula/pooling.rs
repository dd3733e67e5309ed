//! Max pooling and upsampling over tensors.

use candle_core::{D, DType, Result, Tensor};

use super::Formula;

/// Max pooling of squares.
pub(in super::super) struct MaxPool2d {
    pub size: usize,
}

impl MaxPool2d {
    /// The values of each square in a row, `[images, squares, values]`; what is left over is in none.
    fn squares(&self, x: &Tensor) -> Result<Tensor> {
        let (rows, channels, height, width) = x.dims4()?;
        let size = self.size;
        let (down, right) = (height / size, width / size);
        x.narrow(2, 0, down * size)?
            .narrow(3, 0, right * size)?
            .contiguous()?
            .reshape((rows * channels, down, size, right, size))?
            .transpose(2, 3)?
            .contiguous()?
            .reshape((rows * channels, down * right, size * size))
    }
}

impl Formula for MaxPool2d {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (rows, channels, height, width) = x.dims4()?;
        self.squares(x)?.max(D::Minus1)?.reshape((rows, channels, height / self.size, width / self.size))
    }

    fn backward(&self, x: &Tensor, result: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let (rows, channels, height, width) = x.dims4()?;
        let size = self.size;
        let (down, right) = (height / size, width / size);
        let squares = self.squares(x)?;
        let one = |values: &Tensor| values.reshape((rows * channels, down * right, 1));
        // The first of equal values; which of them `argmax` names is left open on a GPU.
        let none = Tensor::full((size * size) as u32, squares.shape(), x.device())?;
        let numbers = Tensor::arange(0, (size * size) as u32, x.device())?.broadcast_as(squares.shape())?;
        let first = squares.broadcast_eq(&one(result)?)?.where_cond(&numbers, &none)?.min_keepdim(D::Minus1)?;
        let chosen = numbers.broadcast_eq(&first)?.to_dtype(DType::F32)?;
        chosen
            .broadcast_mul(&one(&gradient.contiguous()?)?)?
            .reshape((rows * channels, down, right, size, size))?
            .transpose(2, 3)?
            .contiguous()?
            .reshape((rows, channels, down * size, right * size))?
            .pad_with_zeros(2, 0, height - down * size)?
            .pad_with_zeros(3, 0, width - right * size)
            .map(Some)
    }
}

/// Nearest-neighbour upsampling.
pub(in super::super) struct Upsample2d {
    pub size: usize,
}

impl Formula for Upsample2d {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let ((rows, channels, height, width), size) = (x.dims4()?, self.size);
        x.reshape((rows * channels, height, 1, width, 1))?
            .broadcast_as((rows * channels, height, size, width, size))?
            .contiguous()?
            .reshape((rows, channels, height * size, width * size))
    }

    fn backward(&self, x: &Tensor, _: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let ((rows, channels, height, width), size) = (x.dims4()?, self.size);
        let squares = gradient.contiguous()?.reshape((rows * channels, height, size, width, size))?;
        squares.sum((2, 4))?.reshape((rows, channels, height, width)).map(Some)
    }
}
