//! What kernels run on: memory, launches, products of matrices.

use std::fmt::Debug;
use std::marker::PhantomData;
use std::ops::Range;

use super::kernels::Kernel;
use crate::error::Result;

/// A machine that runs kernels, one after the other in the order in which they are asked for.
pub(crate) trait Machine: Debug {
    /// Memory of `bytes` bytes, all zero.
    ///
    /// # Errors
    /// Kind `Compute` where there is no room, saying how much was asked for.
    fn allocate(&self, bytes: usize) -> Result<Box<dyn Memory>>;

    /// Copies `bytes` to the address `to`. They may be changed when this returns.
    ///
    /// # Errors
    /// Kind `Compute` where the machine fails.
    ///
    /// # Safety
    /// There are as many bytes of this machine's memory at `to`.
    unsafe fn write(&self, to: u64, bytes: &[u8]) -> Result<()>;

    /// Waits for what was asked for before, and copies from the address `from` into `bytes`.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    ///
    /// # Safety
    /// As [`write`](Self::write).
    unsafe fn read(&self, from: u64, bytes: &mut [u8]) -> Result<()>;

    /// Starts a kernel with `grid` blocks of `block` threads.
    ///
    /// # Errors
    /// Kind `Compute` where the kernel cannot be compiled or the machine fails.
    ///
    /// # Safety
    /// The arguments are those of the kernel's text, in its order, and the memory at their addresses is as large as the
    /// kernel takes it to be.
    unsafe fn launch(&self, kernel: Kernel, grid: [u32; 2], block: u32, arguments: &[Argument]) -> Result<()>;

    /// Multiplies matrices.
    ///
    /// # Errors
    /// Kind `Compute` where the machine fails.
    ///
    /// # Safety
    /// The memory at the addresses is as large as the product takes it to be.
    unsafe fn multiply(&self, product: &Product) -> Result<()>;

    /// What `task` asks for, recorded instead of done, to be repeated as a whole; nothing where the machine cannot.
    fn record(&self, task: &mut dyn FnMut() -> Result<()>) -> Option<Box<dyn Recorded>>;
}

/// Work that was recorded.
pub(crate) trait Recorded: Debug {
    /// Asks for all of it.
    ///
    /// # Errors
    /// Kind `Compute` where the machine fails.
    fn replay(&self) -> Result<()>;
}

/// A piece of a machine's memory, which is given back when this is dropped.
pub(crate) trait Memory: Debug {
    /// Where it begins.
    fn address(&self) -> u64;
}

/// A row-major product `output = left * right`, `rows x columns`, over `inner` values; for the flags the matrices that are
/// there are the transposed ones.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Product {
    pub rows: usize,
    pub columns: usize,
    pub inner: usize,
    pub left: u64,
    pub left_transposed: bool,
    pub right: u64,
    pub right_transposed: bool,
    pub output: u64,
}

/// The same for cuBLAS, whose matrices are column-major: `c = a * b`, where `a` and `b` are the product's right and left
/// matrices, and what is there is the transpose of what a row-major reader sees.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Blas {
    /// Of `a` and `b`.
    pub transposed: [bool; 2],
    /// Rows and columns of `c`, and values that are added up.
    pub sizes: [usize; 3],
    /// Where `a`, `b` and `c` are, and how far apart their columns.
    pub matrices: [(u64, usize); 3],
}

impl Product {
    /// As cuBLAS takes it.
    pub fn blas(&self) -> Blas {
        let &Self { rows, columns, inner, left, left_transposed, right, right_transposed, output } = self;
        let apart = |transposed: bool, one: usize, other: usize| if transposed { one } else { other };
        Blas {
            transposed: [right_transposed, left_transposed],
            sizes: [columns, rows, inner],
            matrices: [
                (right, apart(right_transposed, inner, columns)),
                (left, apart(left_transposed, rows, inner)),
                (output, columns),
            ],
        }
    }
}

/// An argument of a kernel.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Argument {
    /// A pointer or a `u64`.
    Wide(u64),
    /// A `u32`.
    Word(u32),
    /// A `float`.
    Single(f32),
    /// A `double`.
    Double(f64),
}

/// A type of which every pattern of bits is a value, and which has no gaps.
///
/// # Safety
/// As it says.
pub(crate) unsafe trait Plain: Copy + Default + 'static {}

// SAFETY: numbers are.
unsafe impl Plain for f32 {}
// SAFETY: numbers are.
unsafe impl Plain for f64 {}
// SAFETY: numbers are.
unsafe impl Plain for u32 {}

/// An array in a machine's memory.
#[derive(Debug)]
pub(crate) struct Buffer<T> {
    memory: Box<dyn Memory>,
    len: usize,
    of: PhantomData<T>,
}

impl<T: Plain> Buffer<T> {
    /// `len` zeros.
    ///
    /// # Errors
    /// As [`Machine::allocate`].
    pub fn zeros(machine: &dyn Machine, len: usize) -> Result<Self> {
        Ok(Self { memory: machine.allocate(len.max(1) * size_of::<T>())?, len, of: PhantomData })
    }

    /// These values.
    ///
    /// # Errors
    /// As [`Machine::allocate`] and [`Machine::write`].
    pub fn of(machine: &dyn Machine, values: &[T]) -> Result<Self> {
        let buffer = Self::zeros(machine, values.len())?;
        buffer.all().write(machine, values)?;
        Ok(buffer)
    }

    /// All of it.
    pub fn all(&self) -> View<'_, T> {
        View { address: self.memory.address(), len: self.len, of: PhantomData }
    }

    /// A part of it.
    pub fn part(&self, range: Range<usize>) -> View<'_, T> {
        self.all().part(range)
    }
}

/// Some values in a machine's memory. Kernels may write to them: the machine does one thing after the other, so nothing sees
/// a value that is half written.
#[derive(Debug, Clone, Copy)]
pub(crate) struct View<'a, T> {
    address: u64,
    len: usize,
    of: PhantomData<&'a T>,
}

impl<'a, T: Plain> View<'a, T> {
    /// `len` values at `address`.
    ///
    /// # Safety
    /// They are there, in the memory of the machine that this view is used with, as long as the view is.
    #[cfg(feature = "cuda")]
    pub unsafe fn at(address: u64, len: usize) -> View<'a, T> {
        View { address, len, of: PhantomData }
    }

    /// Number of values.
    pub fn len(self) -> usize {
        self.len
    }

    /// Some of them. Panics if they are not all there.
    pub fn part(self, range: Range<usize>) -> View<'a, T> {
        assert!(range.start <= range.end && range.end <= self.len, "{range:?} of {} values", self.len);
        View { address: self.address + (range.start * size_of::<T>()) as u64, len: range.len(), of: PhantomData }
    }

    /// Where they are, as an argument.
    pub fn argument(self) -> Argument {
        Argument::Wide(self.address)
    }

    /// Where they are.
    pub fn address(self) -> u64 {
        self.address
    }

    /// Overwrites the first of them.
    ///
    /// # Errors
    /// As [`Machine::write`].
    pub fn write(self, machine: &dyn Machine, values: &[T]) -> Result<()> {
        assert!(values.len() <= self.len, "{} values for {}", values.len(), self.len);
        // SAFETY: plain values are their bytes; the length was checked.
        unsafe {
            let bytes = std::slice::from_raw_parts(values.as_ptr().cast(), size_of_val(values));
            machine.write(self.address, bytes)
        }
    }

    /// A copy of them.
    ///
    /// # Errors
    /// As [`Machine::read`].
    pub fn read(self, machine: &dyn Machine) -> Result<Vec<T>> {
        let mut values = vec![T::default(); self.len];
        // SAFETY: any bytes are plain values; there are as many.
        unsafe {
            let bytes = std::slice::from_raw_parts_mut(values.as_mut_ptr().cast(), size_of_val(&values[..]));
            machine.read(self.address, bytes)?;
        }
        Ok(values)
    }
}
