//! An NVIDIA GPU.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt::Display;
use std::sync::{Arc, Mutex, PoisonError};

use bytesize::ByteSize;
use candle_core::cuda_backend::cudarc::cublas::{CudaBlas, result as blas, sys as blas_sys};
use candle_core::cuda_backend::cudarc::driver::{
    CudaEvent, CudaFunction, CudaModule, CudaSlice, CudaStream, DevicePtr, DriverError, LaunchConfig, PinnedHostSlice,
    PushKernelArg, result, sys,
};
use candle_core::cuda_backend::cudarc::nvrtc::Ptx;
use candle_core::{CudaDevice, Device};

use super::compile::ptx;
use super::kernels::{Family, Kernel};
use super::machine::{Argument, Blas, Machine, Memory, Product, Recorded};
use crate::error::{Error, Result};

/// What cuBLAS may use for itself while a step is recorded: what NVIDIA recommends for Hopper.
const WORKSPACE: usize = 32 << 20;

/// A GPU with the stream that everything goes into.
#[derive(Debug)]
pub(crate) struct Gpu {
    stream: Arc<CudaStream>,
    blas: Arc<CudaBlas>,
    /// What cuBLAS works in; it is given back after the handle.
    _workspace: Option<CudaSlice<u8>>,
    functions: Mutex<HashMap<Kernel, CudaFunction>>,
    modules: Mutex<HashMap<Family, Arc<CudaModule>>>,
    pinned: RefCell<Pinned>,
}

/// Two pieces of pinned memory that writes go through in turn, so that one is filled while the other is sent.
#[derive(Debug, Default)]
struct Pinned {
    pieces: [Option<(PinnedHostSlice<u8>, CudaEvent)>; 2],
    next: usize,
}

impl Gpu {
    /// A stream of its own on a device, which nothing else puts work into, so that it can be recorded.
    ///
    /// # Errors
    /// Kind `Compute` where the GPU fails.
    pub fn apart(device: &CudaDevice) -> Result<Self> {
        let stream = device.cuda_stream().context().new_stream().map_err(failed)?;
        let handle = CudaBlas::new(Arc::clone(&stream)).map_err(failed)?;
        let workspace = stream.alloc_zeros::<u8>(WORKSPACE).map_err(|e| no_room(WORKSPACE, &stream, e))?;
        let address = workspace.device_ptr(&stream).0;
        // SAFETY: the workspace is as large, and lives as long as the handle.
        unsafe { blas_sys::cublasSetWorkspace_v2(*handle.handle(), address as *mut _, WORKSPACE) }
            .result()
            .map_err(failed)?;
        Ok(Self::new(stream, Arc::new(handle), Some(workspace)))
    }

    /// The stream of a device, for what works on its tensors.
    pub fn of(device: &CudaDevice) -> Self {
        Self::new(device.cuda_stream(), device.cublas_handle(), None)
    }

    fn new(stream: Arc<CudaStream>, blas: Arc<CudaBlas>, workspace: Option<CudaSlice<u8>>) -> Self {
        Self {
            stream,
            blas,
            _workspace: workspace,
            functions: Mutex::default(),
            modules: Mutex::default(),
            pinned: RefCell::default(),
        }
    }

    /// The kernel, compiled and loaded.
    fn function(&self, kernel: Kernel) -> Result<CudaFunction> {
        let mut functions = self.functions.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(function) = functions.get(&kernel) {
            return Ok(function.clone());
        }
        let mut modules = self.modules.lock().unwrap_or_else(PoisonError::into_inner);
        let module = match modules.get(&kernel.family) {
            Some(module) => Arc::clone(module),
            None => {
                let context = self.stream.context();
                let text = ptx(kernel.family, context.compute_capability().map_err(failed)?)?;
                let module = context.load_module(Ptx::from_src(text)).map_err(failed)?;
                modules.insert(kernel.family, Arc::clone(&module));
                module
            }
        };
        let function = module.load_function(kernel.name).map_err(failed)?;
        functions.insert(kernel, function.clone());
        Ok(function)
    }

    fn bind(&self) -> Result<()> {
        self.stream.context().bind_to_thread().map_err(failed)
    }
}

/// The GPU of this number for candle, with one stream that everything goes into.
///
/// # Errors
/// Candle's.
pub(crate) fn open(number: usize) -> candle_core::Result<Device> {
    let device = CudaDevice::new_with_stream(number)?;
    // SAFETY: all tensors of the device are made, used and given back in its one stream, in the order in which it is asked
    // for, so that no event has to say when one may be used. A `Gpu` that is apart shares no memory with them.
    unsafe { device.disable_event_tracking() };
    Ok(Device::Cuda(device))
}

/// Bytes that a device has left.
pub(crate) fn free_bytes(device: &CudaDevice) -> Result<usize> {
    let stream = device.cuda_stream();
    stream.context().bind_to_thread().map_err(failed)?;
    stream.context().mem_get_info().map(|(free, _)| free).map_err(failed)
}

/// The GPU's own words.
fn failed(e: impl Display) -> Error {
    Error::compute(format!("the GPU failed: {e}"))
}

fn no_room(bytes: usize, stream: &CudaStream, e: impl Display) -> Error {
    let size = |bytes: usize| ByteSize::b(bytes as u64).display().si().to_string();
    let left = stream.context().mem_get_info().map_or_else(|_| "an unknown amount".into(), |(free, _)| size(free));
    Error::compute(format!("the GPU has no room for {} more, {left} are free: {e}", size(bytes)))
}

impl Machine for Gpu {
    fn allocate(&self, bytes: usize) -> Result<Box<dyn Memory>> {
        let slice = self.stream.alloc_zeros::<u8>(bytes).map_err(|e| no_room(bytes, &self.stream, e))?;
        let address = slice.device_ptr(&self.stream).0;
        Ok(Box::new(OnGpu { _slice: slice, address }))
    }

    unsafe fn write(&self, to: u64, bytes: &[u8]) -> Result<()> {
        self.bind()?;
        let mut pinned = self.pinned.borrow_mut();
        let Pinned { pieces, next } = &mut *pinned;
        let piece = &mut pieces[*next];
        *next = 1 - *next;
        let context = self.stream.context();
        // Until what it held before was sent.
        if let Some((_, sent)) = piece {
            sent.synchronize().map_err(failed)?;
        }
        if piece.as_ref().is_none_or(|(slice, _)| slice.len() < bytes.len()) {
            // SAFETY: it is written before it is read.
            let slice = unsafe { context.alloc_pinned::<u8>(bytes.len().next_power_of_two()) }.map_err(failed)?;
            *piece = Some((slice, context.new_event(None).map_err(failed)?));
        }
        let Some((slice, sent)) = piece else { return Ok(()) };
        let slice = slice.as_mut_slice().map_err(failed)?;
        slice[..bytes.len()].copy_from_slice(bytes);
        // SAFETY: as the caller promises for `to`; the pinned piece stays as it is until `sent` has happened.
        unsafe { result::memcpy_htod_async(to, &slice[..bytes.len()], self.stream.cu_stream()) }.map_err(failed)?;
        sent.record(&self.stream).map_err(failed)
    }

    unsafe fn read(&self, from: u64, bytes: &mut [u8]) -> Result<()> {
        self.bind()?;
        // SAFETY: as the caller promises; the copy is over when this returns.
        unsafe { result::memcpy_dtoh_async(bytes, from, self.stream.cu_stream()) }.map_err(failed)?;
        self.stream.synchronize().map_err(failed)
    }

    unsafe fn launch(&self, kernel: Kernel, grid: [u32; 2], block: u32, arguments: &[Argument]) -> Result<()> {
        let function = self.function(kernel)?;
        let mut launch = self.stream.launch_builder(&function);
        for argument in arguments {
            match argument {
                Argument::Wide(value) => launch.arg(value),
                Argument::Word(value) => launch.arg(value),
                Argument::Single(value) => launch.arg(value),
                Argument::Double(value) => launch.arg(value),
            };
        }
        let grid_dim = (grid[0], grid[1], 1);
        // SAFETY: as the caller promises.
        unsafe { launch.launch(LaunchConfig { grid_dim, block_dim: (block, 1, 1), shared_mem_bytes: 0 }) }
            .map(drop)
            .map_err(failed)
    }

    unsafe fn multiply(&self, product: &Product) -> Result<()> {
        self.bind()?;
        let Blas { transposed, sizes, matrices: [a, b, c] } = product.blas();
        let op = |transposed: bool| match transposed {
            true => blas_sys::cublasOperation_t::CUBLAS_OP_T,
            false => blas_sys::cublasOperation_t::CUBLAS_OP_N,
        };
        let int = |number: usize| i32::try_from(number).map_err(|_| failed("a matrix is too large for cuBLAS"));
        let [m, n, k] = [int(sizes[0])?, int(sizes[1])?, int(sizes[2])?];
        let [lda, ldb, ldc] = [int(a.1)?, int(b.1)?, int(c.1)?];
        let (one, zero) = (1.0, 0.0);
        // SAFETY: as the caller promises for the matrices; cuBLAS reads both factors before it returns.
        unsafe {
            blas::sgemm(
                *self.blas.handle(),
                op(transposed[0]),
                op(transposed[1]),
                m,
                n,
                k,
                &one,
                a.0 as *const f32,
                lda,
                b.0 as *const f32,
                ldb,
                &zero,
                c.0 as *mut f32,
                ldc,
            )
        }
        .map_err(failed)
    }

    fn record(&self, task: &mut dyn FnMut() -> Result<()>) -> Option<Box<dyn Recorded>> {
        self.stream.begin_capture(sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL).ok()?;
        let done = task();
        // The recording ends in any case.
        // SAFETY: the stream is there, and records.
        let graph = unsafe { result::stream::end_capture(self.stream.cu_stream()) };
        match (done, graph.and_then(|graph| Graph::of(graph, &self.stream))) {
            (Ok(()), Ok(graph)) => Some(Box::new(graph)),
            (done, graph) => {
                let (done, graph) = (done.err().map(|e| e.to_string()), graph.err().map(|e| e.to_string()));
                tracing::debug!(?done, ?graph, "a step is not recorded as a CUDA graph");
                None
            }
        }
    }
}

/// Memory of a GPU.
#[derive(Debug)]
struct OnGpu {
    _slice: CudaSlice<u8>,
    address: u64,
}

impl Memory for OnGpu {
    fn address(&self) -> u64 {
        self.address
    }
}

/// A recorded step, which is launched into its stream.
struct Graph {
    graph: sys::CUgraph,
    launchable: sys::CUgraphExec,
    stream: Arc<CudaStream>,
}

impl Graph {
    /// What was recorded, ready to be launched. (cudarc's own way calls an entry point of the driver by a name that its
    /// header only has as a macro, which stubs of the driver lack.)
    fn of(graph: sys::CUgraph, stream: &Arc<CudaStream>) -> Result<Self, DriverError> {
        let mut made = Self { graph, launchable: std::ptr::null_mut(), stream: Arc::clone(stream) };
        let mut parameters = sys::CUDA_GRAPH_INSTANTIATE_PARAMS {
            flags: 0,
            hUploadStream: std::ptr::null_mut(),
            hErrNode_out: std::ptr::null_mut(),
            result_out: sys::CUgraphInstantiateResult::CUDA_GRAPH_INSTANTIATE_SUCCESS,
        };
        // SAFETY: the graph is the one that was just recorded, or null, which the driver refuses; both places are there.
        unsafe { sys::cuGraphInstantiateWithParams(&mut made.launchable, graph, &mut parameters) }.result()?;
        Ok(made)
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        let context = self.stream.context();
        context.record_err(context.bind_to_thread());
        // SAFETY: both are this graph's own, and nothing launches it any more; the driver keeps what is under way.
        unsafe {
            if !self.launchable.is_null() {
                context.record_err(result::graph::exec_destroy(self.launchable));
            }
            if !self.graph.is_null() {
                context.record_err(result::graph::destroy(self.graph));
            }
        }
    }
}

impl std::fmt::Debug for Graph {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a CUDA graph")
    }
}

impl Recorded for Graph {
    fn replay(&self) -> Result<()> {
        self.stream.context().bind_to_thread().map_err(failed)?;
        // SAFETY: graph and stream are there; the memory that it works on is its trainer's, which has it too.
        unsafe { result::graph::launch(self.launchable, self.stream.cu_stream()) }.map_err(failed)
    }
}
