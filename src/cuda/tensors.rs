//! The kernels over candle's tensors on a CUDA device.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use candle_core::cuda_backend::cudarc::driver::{DevicePtr, DeviceRepr};
use candle_core::cuda_backend::{CudaDType, DeviceId};
use candle_core::{CudaDevice, DType, Device, Result, Storage, Tensor, WithDType, bail};

use super::gpu::Gpu;
use super::machine::{Plain, View};
use super::ops;

/// The GPU of a device, with the kernels that were loaded.
fn gpu(device: &CudaDevice) -> Rc<Gpu> {
    thread_local! {
        static GPUS: RefCell<HashMap<DeviceId, Rc<Gpu>>> = RefCell::default();
    }
    GPUS.with_borrow_mut(|gpus| Rc::clone(gpus.entry(device.id()).or_insert_with(|| Rc::new(Gpu::of(device)))))
}

fn cuda(tensor: &Tensor) -> Result<&CudaDevice> {
    match tensor.device() {
        Device::Cuda(device) => Ok(device),
        other => bail!("a CUDA kernel is given values on {:?}", other.location()),
    }
}

/// The values of a tensor that lies in one piece.
fn view<T: Plain + WithDType + CudaDType + DeviceRepr>(tensor: &Tensor) -> Result<View<'_, T>> {
    let (storage, layout) = tensor.storage_and_layout();
    let Storage::Cuda(storage) = &*storage else { bail!("a CUDA kernel is given values that are not on the device") };
    let Some((start, end)) = layout.contiguous_offsets() else { bail!("a CUDA kernel needs values in one piece") };
    let slice = storage.as_cuda_slice::<T>()?;
    let address = slice.device_ptr(slice.stream()).0 + (start * size_of::<T>()) as u64;
    // SAFETY: the values of the tensor, which keeps its memory as long as the view is there. Everything goes into one
    // stream, so that they are written before a kernel reads them, and kept until it has.
    Ok(unsafe { View::at(address, end - start) })
}

/// Room that a kernel fills.
fn room(shape: impl Into<candle_core::Shape>, dtype: DType, device: &CudaDevice) -> Result<Tensor> {
    Tensor::zeros(shape, dtype, &Device::Cuda(device.clone()))
}

fn done(result: crate::Result<()>) -> Result<()> {
    result.map_err(candle_core::Error::wrap)
}

/// `activation(sums + bias)`, in the place of `sums`, which nothing else looks at.
pub(crate) fn bias_activation(sums: Tensor, bias: &Tensor, activation: u32) -> Result<Tensor> {
    let gpu = gpu(cuda(&sums)?);
    done(ops::bias_activation(&*gpu, view(&sums)?, view(bias)?, sums.dim(0)?, activation))?;
    Ok(sums)
}

/// The gradient before an activation that gave `outputs`, from the one after it, and its sums over the rows.
pub(crate) fn activation_gradient(outputs: &Tensor, gradient: &Tensor, activation: u32) -> Result<(Tensor, Tensor)> {
    let device = cuda(outputs)?;
    let (rows, width) = outputs.dims2()?;
    let below = room((rows, width), DType::F32, device)?;
    let (sums, part) = (room(width, DType::F32, device)?, room((ops::bias_parts(rows), width), DType::F32, device)?);
    let arrays = [view(gradient)?, view(outputs)?, view(&below)?];
    let sums_and_part = [view(&sums)?, view(&part)?];
    done(ops::activation_gradient(&*gpu(device), arrays, sums_and_part, rows, activation, false))?;
    Ok((below, sums))
}

/// Adam's step over a parameter, its gradient and both moments, in place; numbers as [`ops::adam_told`]'s.
pub(crate) fn adam(arrays: [&Tensor; 4], numbers: [f32; 7]) -> Result<()> {
    let gpu = gpu(cuda(arrays[0])?);
    let [parameters, gradient, first, second] = arrays.map(view);
    done(ops::adam_told(&*gpu, [parameters?, gradient?, first?, second?], numbers))
}

/// The nearest of `centroids` (`k x dim`) to each of `rows` (`n x dim`): labels, squared distances, and those of the second
/// nearest.
pub(crate) fn nearest(rows: &Tensor, centroids: &Tensor) -> Result<[Tensor; 3]> {
    let device = cuda(rows)?;
    let (n, dim) = rows.dims2()?;
    let (labels, squared, second) =
        (room(n, DType::U32, device)?, room(n, DType::F32, device)?, room(n, DType::F32, device)?);
    let distances = [view(&squared)?, view(&second)?];
    done(ops::nearest(&*gpu(device), [view(rows)?, view(centroids)?], view(&labels)?, distances, dim))?;
    Ok([labels, squared, second])
}

/// The sums of the `rows` (`n x dim`) of each label and last of each how many they are, `k x (dim + 1)`, in `f64`. Labels are
/// below `k`.
pub(crate) fn cluster_sums(rows: &Tensor, labels: &Tensor, k: usize) -> Result<Tensor> {
    let device = cuda(rows)?;
    let (n, dim) = rows.dims2()?;
    let sums = room((k, dim + 1), DType::F64, device)?;
    let part = room((ops::cluster_parts(n, k, dim), k, dim + 1), DType::F64, device)?;
    let arrays = [view(&part)?, view(&sums)?];
    done(ops::cluster_sums(&*gpu(device), view(rows)?, view(labels)?, arrays, [k, dim]))?;
    Ok(sums)
}

/// The divergence of the targets `p` (`rows x k`) from the soft assignments of `z` (`rows x dim`) to `centroids` (`k x dim`),
/// summed over the rows and times `scale`, and its gradients at `z` and at the centroids.
pub(crate) fn student(z: &Tensor, centroids: &Tensor, p: &Tensor, scale: f64) -> Result<[Tensor; 3]> {
    let device = cuda(z)?;
    let ((rows, dim), k) = (z.dims2()?, centroids.dim(0)?);
    let (total, d_z) = (room(1, DType::F32, device)?, room((rows, dim), DType::F32, device)?);
    let (d_centroids, pulls) = (room((k, dim), DType::F32, device)?, room((rows, k), DType::F32, device)?);
    let losses = room(rows, DType::F64, device)?;
    let made = [view(&total)?, view(&d_z)?, view(&d_centroids)?, view(&pulls)?];
    let given = [view(z)?, view(centroids)?, view(p)?];
    done(ops::student(&*gpu(device), given, made, view(&losses)?, [k, dim], scale))?;
    Ok([total, d_z, d_centroids])
}
