//! Inner loops allocate nothing once they are warm. The allocator of the test program counts the allocations of each
//! thread; a device with one thread does all its work on the calling thread.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::ops::Range;

use dacpipe::Seed;
use dacpipe::device::{BatchSums, Cpu, Device, StepSettings};
use dacpipe::kernel::{Dense, Matrix, Rows};
use dacpipe::loss::{EmbeddingLoss, L2Penalty, PenaltyForm, WeightedMse};
use dacpipe::network::{Architecture, initialise};

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

struct CountingAllocator;

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

// SAFETY: everything is passed on to the system allocator; the count is a plain thread-local cell, which needs no
// allocation and has nothing to drop.
unsafe impl GlobalAlloc for CountingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: as the caller vouches.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: as the caller vouches.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: as the caller vouches.
        unsafe { System.realloc(block, layout, size) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: as the caller vouches.
        unsafe { System.dealloc(block, layout) }
    }
}

/// The number of allocations of `task` on this thread.
fn allocations(task: impl FnOnce()) -> usize {
    let before = ALLOCATIONS.get();
    task();
    ALLOCATIONS.get() - before
}

/// Rows that are not one slice in memory.
struct Spilled(Vec<f32>, usize);

impl Rows for Spilled {
    fn len(&self) -> usize {
        self.0.len() / self.1
    }

    fn dim(&self) -> usize {
        self.1
    }

    fn read(&self, range: Range<usize>, out: &mut [f32]) -> dacpipe::kernel::Result<()> {
        out.copy_from_slice(&self.0[range.start * self.1..range.end * self.1]);
        Ok(())
    }
}

/// The sum of squares.
#[derive(Debug)]
struct Squares;

impl EmbeddingLoss for Squares {
    fn sum_and_gradient(&self, embedding: &Matrix, rows: &[u32], batch_rows: usize, gradient: &mut Matrix) -> f64 {
        let mut sum = 0.0;
        for i in 0..rows.len() {
            for (g, z) in gradient.row_mut(i).iter_mut().zip(embedding.row(i)) {
                sum += f64::from(z * z);
                *g = 2.0 * z / batch_rows as f32;
            }
        }
        sum
    }
}

fn values(count: usize) -> Vec<f32> {
    (0..count).map(|i| ((i as u32).wrapping_mul(2_654_435_761) >> 8) as f32 / 16_777_216.0).collect()
}

#[test]
fn the_allocator_counts() {
    assert_eq!(allocations(|| drop(std::hint::black_box(vec![1u8; 100]))), 1);
}

#[test]
fn a_training_step_allocates_nothing() {
    let architecture = Architecture::dac(200, &[150, 40, 10], None);
    let (parameters, x) = (initialise(&architecture, Seed(1)), values(500 * 200));
    let (dense, spilled) = (Dense::new(&x, 200), Spilled(x.clone(), 200));
    let device = Cpu::new(1);
    let order: Vec<u32> = (0..500).map(|i| i * 7919 % 500).collect();
    for (rows, embedding) in
        [(&dense as &dyn Rows, None), (&spilled, None), (&dense, Some(&Squares as &dyn EmbeddingLoss))]
    {
        let penalty = L2Penalty { beta: 1e-5, form: PenaltyForm::Norm };
        let settings = StepSettings { learning_rate: 1e-3, penalty, reconstruction: 1.0, embedding };
        let loss = WeightedMse { weights: values(200) };
        let mut trainer = device.trainer(rows, &architecture, &parameters, loss, 200).unwrap();
        trainer.load(&order[..200]).unwrap();
        trainer.step(&order[200..400], &settings).unwrap();
        let count = allocations(|| {
            trainer.step(&order[400..], &settings).unwrap();
            trainer.step(&order[..200], &settings).unwrap();
            trainer.step(&order[200..400], &settings).unwrap();
        });
        assert_eq!(count, 0);
    }
}

/// Narrow rows, wide rows, and wide rows with so many centroids that they are screened.
#[test]
fn a_mini_batch_of_k_means_allocates_nothing() {
    for (dim, k) in [(5, 7), (130, 7), (130, 40)] {
        let x = values(4000 * dim);
        let (rows, device) = (Dense::new(&x, dim), Cpu::new(1));
        let mut points = device.points(&rows).unwrap();
        let (mut centroids, mut sums) = (x[..k * dim].to_vec(), BatchSums::default());
        let batch: Vec<u32> = (0..3000).collect();
        points.batch(&batch, &centroids, &mut sums).unwrap();
        let count = allocations(|| {
            centroids.reverse();
            points.batch(&batch, &centroids, &mut sums).unwrap();
            points.batch(&batch[..1500], &centroids, &mut sums).unwrap();
            points.batch(&batch, &centroids, &mut sums).unwrap();
        });
        assert_eq!(count, 0, "rows of {dim}, {k} clusters");
    }
}

/// An iteration allocates for the centroids, never for rows: ten times as many rows take as many allocations.
#[test]
fn an_iteration_of_k_means_allocates_nothing_for_rows() {
    // Without bounds and with them.
    for (dim, k) in [(5, 7), (20, 40)] {
        let count = |n: usize, spilled: bool| {
            let x = values(n * dim);
            let (dense, spill) = (Dense::new(&x, dim), Spilled(x.clone(), dim));
            let (rows, device) = (if spilled { &spill as &dyn Rows } else { &dense }, Cpu::new(1));
            let points = device.points(rows).unwrap();
            let mut lloyd = points.lloyd(k).unwrap();
            let mut centroids = x[..k * dim].to_vec();
            for _ in 0..3 {
                lloyd.iterate(&centroids).unwrap();
                centroids.iter_mut().for_each(|x| *x += 0.01);
            }
            allocations(|| _ = lloyd.iterate(&centroids).unwrap())
        };
        // The largest first, so that every buffer of this thread reaches its full size.
        let most = count(41_000, true);
        assert_eq!((most, most), (count(4_100, true), count(41_000, false)), "rows of {dim}, {k} clusters");
        assert!(most < 20, "{most}");
    }
}
