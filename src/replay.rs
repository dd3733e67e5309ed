//! The replay cache: the rows of the first pass, kept for the passes after it.
//!
//! Rows are kept in memory as far as the reservation allows, the rest in one unnamed temporary file, which the system
//! removes even if the process is killed. Any row can be read at random, so mini-batches are drawn from one global
//! permutation, and a run gives the same bits whatever its memory limit.

use std::cell::RefCell;
use std::fmt::Debug;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::ops::Range;
use std::sync::Arc;

use datafusion::execution::memory_pool::{MemoryConsumer, MemoryPool, MemoryReservation};

use crate::error::{Error, Result};
use crate::kernel::{self, Rows};
use crate::stage::VectorMap;
use crate::store::failed;

/// Bytes of one chunk in memory.
const CHUNK_BYTES: usize = 4 << 20;

/// A floating-point number in a spill file, little-endian.
pub trait Float: Copy + Default + Debug + Send + Sync {
    /// Writes it to `bytes`.
    fn put(self, bytes: &mut [u8]);

    /// Reads what [`put`](Self::put) wrote.
    fn take(bytes: &[u8]) -> Self;
}

impl Float for f32 {
    fn put(self, bytes: &mut [u8]) {
        bytes.copy_from_slice(&self.to_le_bytes());
    }

    fn take(bytes: &[u8]) -> Self {
        f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
    }
}

impl Float for f64 {
    fn put(self, bytes: &mut [u8]) {
        bytes.copy_from_slice(&self.to_le_bytes());
    }

    fn take(bytes: &[u8]) -> Self {
        f64::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3], bytes[4], bytes[5], bytes[6], bytes[7]])
    }
}

/// Rows of `dim` values, in `f32`, or in `f64` for a source in double precision: in memory first and then in a spill
/// file.
#[derive(Debug)]
pub struct RowStore<T = f32> {
    dim: usize,
    len: usize,
    chunk_rows: usize,
    chunks: Vec<Vec<T>>,
    spill: Option<File>,
    /// Held as long as the chunks.
    reservation: MemoryReservation,
}

impl<T> RowStore<T> {
    /// The number of rows in the spill file.
    pub fn spilled_rows(&self) -> usize {
        self.len - self.memory_rows()
    }

    fn memory_rows(&self) -> usize {
        self.len.min(self.chunks.len() * self.chunk_rows)
    }
}

impl<T: Float> RowStore<T> {
    /// Moves all rows to `to`, each block through `map`, and releases memory meanwhile.
    ///
    /// # Errors
    /// Kind `Io` if a spill file cannot be read or written.
    pub fn drain_into<U: Float>(
        mut self,
        mut to: RowStoreBuilder<U>,
        map: impl Fn(&[T], &mut [U]),
    ) -> Result<RowStore<U>> {
        let (dim, in_memory) = (self.dim, self.memory_rows());
        let mut mapped = vec![U::default(); MAPPED_ROWS * dim];
        let mut push = |values: &[T]| {
            values.chunks(MAPPED_ROWS * dim).try_for_each(|values| {
                let mapped = &mut mapped[..values.len()];
                map(values, mapped);
                to.push(mapped)
            })
        };
        for chunk in std::mem::take(&mut self.chunks) {
            push(&chunk)?;
            let held = self.reservation.size();
            self.reservation.shrink(held.min(size_of::<T>() * chunk.capacity()));
        }
        let mut values = vec![T::default(); MAPPED_ROWS * dim];
        for row in (in_memory..self.len).step_by(MAPPED_ROWS) {
            let values = &mut values[..MAPPED_ROWS.min(self.len - row) * dim];
            self.read_spilled(row - in_memory, values)?;
            push(values)?;
        }
        to.finish()
    }

    /// Reads rows of the spill file, from row number `row` of the file on.
    fn read_spilled(&self, row: usize, out: &mut [T]) -> Result<()> {
        let file = self.spill.as_ref().ok_or_else(|| Error::internal("replay cache: no spill file"))?;
        read_floats_at(file, (row * self.dim * size_of::<T>()) as u64, out)
    }
}

impl<T: Float> Rows<T> for RowStore<T> {
    fn len(&self) -> usize {
        self.len
    }

    fn dim(&self) -> usize {
        self.dim
    }

    fn read(&self, range: Range<usize>, out: &mut [T]) -> kernel::Result<()> {
        let in_memory = self.memory_rows();
        let (mut row, mut out) = (range.start, out);
        while row < range.end.min(in_memory) {
            let (chunk, at) = (&self.chunks[row / self.chunk_rows], row % self.chunk_rows);
            let rows = (range.end - row).min(self.chunk_rows - at);
            let (head, tail) = out.split_at_mut(rows * self.dim);
            head.copy_from_slice(&chunk[at * self.dim..(at + rows) * self.dim]);
            (row, out) = (row + rows, tail);
        }
        if row < range.end {
            self.read_spilled(row - in_memory, out)?;
        }
        Ok(())
    }

    fn as_slice(&self) -> Option<&[T]> {
        match (self.chunks.as_slice(), &self.spill) {
            ([only], None) => Some(only),
            _ => None,
        }
    }
}

/// Collects rows into a [`RowStore`].
#[derive(Debug)]
pub struct RowStoreBuilder<T = f32> {
    dim: usize,
    len: usize,
    chunk_rows: usize,
    chunks: Vec<Vec<T>>,
    spill: Option<BufWriter<File>>,
    reservation: MemoryReservation,
}

impl<T: Float> RowStoreBuilder<T> {
    /// A store for rows of `dim` values that takes its memory from `pool`, under the name `consumer`.
    pub fn new(consumer: &str, dim: usize, pool: &Arc<dyn MemoryPool>) -> Self {
        let reservation = MemoryConsumer::new(consumer).with_can_spill(true).register(pool);
        let chunk_rows = (CHUNK_BYTES / (size_of::<T>() * dim.max(1))).max(1);
        Self { dim, len: 0, chunk_rows, chunks: Vec::new(), spill: None, reservation }
    }

    /// The same for `rows` rows in all: in one chunk if the pool grants it, so that learners can read it as one slice.
    pub fn with_rows(mut self, rows: usize) -> Self {
        if rows > 0 && self.reservation.try_grow(size_of::<T>() * rows * self.dim).is_ok() {
            self.chunk_rows = rows;
            self.chunks.push(Vec::with_capacity(rows * self.dim));
        }
        self
    }

    /// Appends `values`, a whole number of rows.
    ///
    /// # Errors
    /// Kind `Io` if the spill file cannot be written.
    pub fn push(&mut self, values: &[T]) -> Result<()> {
        debug_assert!(values.len().is_multiple_of(self.dim));
        self.len += values.len() / self.dim;
        let mut rest = values;
        while !rest.is_empty() {
            let room = self.chunks.last().map_or(0, |chunk| self.chunk_rows * self.dim - chunk.len());
            if self.spill.is_none() && room > 0 {
                let (head, tail) = rest.split_at(room.min(rest.len()));
                self.chunks.last_mut().expect("has room").extend_from_slice(head);
                rest = tail;
            } else if self.spill.is_none()
                && self.reservation.try_grow(size_of::<T>() * self.chunk_rows * self.dim).is_ok()
            {
                self.chunks.push(Vec::with_capacity(self.chunk_rows * self.dim));
            } else {
                self.spill(rest)?;
                rest = &[];
            }
        }
        Ok(())
    }

    fn spill(&mut self, values: &[T]) -> Result<()> {
        let file = match &mut self.spill {
            Some(file) => file,
            none => none.insert(BufWriter::with_capacity(1 << 20, tempfile::tempfile().map_err(spill_error)?)),
        };
        let (mut bytes, size) = ([0; 4096], size_of::<T>());
        for part in values.chunks(bytes.len() / size) {
            for (to, v) in bytes.chunks_exact_mut(size).zip(part) {
                v.put(to);
            }
            file.write_all(&bytes[..size * part.len()]).map_err(spill_error)?;
        }
        Ok(())
    }

    /// The finished store.
    ///
    /// # Errors
    /// Kind `Io` if the spill file cannot be written.
    pub fn finish(mut self) -> Result<RowStore<T>> {
        let spill = match self.spill {
            Some(file) => Some(file.into_inner().map_err(|e| spill_error(e.into_error()))?),
            None => {
                // The last chunk was reserved completely; release what it does not use.
                let (used, held) = (self.len * self.dim * size_of::<T>(), self.reservation.size());
                if let Some(last) = self.chunks.last_mut() {
                    last.shrink_to_fit();
                    self.reservation.shrink(held.saturating_sub(used));
                }
                None
            }
        };
        Ok(RowStore {
            dim: self.dim,
            len: self.len,
            chunk_rows: self.chunk_rows,
            chunks: self.chunks,
            spill,
            reservation: self.reservation,
        })
    }
}

fn spill_error(e: std::io::Error) -> Error {
    let dir = std::env::temp_dir();
    failed("writing", &format!("the replay cache's spill file in {} (TMPDIR names another place)", dir.display()), e)
}

fn read_floats_at<T: Float>(file: &File, offset: u64, out: &mut [T]) -> Result<()> {
    let (mut bytes, size) = ([0; 8192], size_of::<T>());
    let mut offset = offset;
    for part in out.chunks_mut(bytes.len() / size) {
        let bytes = &mut bytes[..size * part.len()];
        read_exact_at(file, bytes, offset).map_err(|e| failed("reading", "the replay cache's spill file", e))?;
        for (v, from) in part.iter_mut().zip(bytes.chunks_exact(size)) {
            *v = T::take(from);
        }
        offset += bytes.len() as u64;
    }
    Ok(())
}

/// Fills `bytes` with those of `file` from `offset` on.
#[cfg(unix)]
pub(crate) fn read_exact_at(file: &File, bytes: &mut [u8], offset: u64) -> std::io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, bytes, offset)
}

/// Fills `bytes` with those of `file` from `offset` on.
#[cfg(windows)]
pub(crate) fn read_exact_at(file: &File, mut bytes: &mut [u8], mut offset: u64) -> std::io::Result<()> {
    while !bytes.is_empty() {
        match std::os::windows::fs::FileExt::seek_read(file, bytes, offset)? {
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            n => (bytes, offset) = (&mut bytes[n..], offset + n as u64),
        }
    }
    Ok(())
}

/// Rows that are mapped at a time. Each thread keeps buffers for this many.
const MAPPED_ROWS: usize = 256;

/// Rows seen through the fitted stages before the one that learns, mapped as they are read.
pub struct Mapped<'a> {
    rows: &'a dyn Rows,
    maps: Vec<&'a dyn VectorMap>,
}

impl<'a> Mapped<'a> {
    /// `rows` through `maps`, first to last.
    pub fn new(rows: &'a dyn Rows, maps: Vec<&'a dyn VectorMap>) -> Self {
        debug_assert!(maps.first().is_none_or(|m| m.dim_in() == rows.dim()));
        debug_assert!(maps.windows(2).all(|w| w[0].dim_out() == w[1].dim_in()));
        Self { rows, maps }
    }

    /// Fills `out` with `count` rows that `fetch` provides, mapped.
    fn through(
        &self,
        count: usize,
        out: &mut [f32],
        fetch: impl FnOnce(&mut [f32]) -> kernel::Result<()>,
    ) -> kernel::Result<()> {
        thread_local! {
            static SCRATCH: RefCell<[Vec<f32>; 2]> = const { RefCell::new([Vec::new(), Vec::new()]) };
        }
        let Some((last, before)) = self.maps.split_last() else {
            return fetch(out);
        };
        let [mut from, mut to] = SCRATCH.take();
        from.resize(count * self.rows.dim(), 0.0);
        let mut mapped = fetch(&mut from);
        for map in before {
            mapped = mapped.and_then(|()| {
                to.resize(count * map.dim_out(), 0.0);
                Ok(map.map(&from, &mut to)?)
            });
            std::mem::swap(&mut from, &mut to);
        }
        mapped = mapped.and_then(|()| Ok(last.map(&from, out)?));
        SCRATCH.set([from, to]);
        mapped
    }
}

impl Rows for Mapped<'_> {
    fn len(&self) -> usize {
        self.rows.len()
    }

    fn dim(&self) -> usize {
        self.maps.last().map_or(self.rows.dim(), |m| m.dim_out())
    }

    fn read(&self, range: Range<usize>, out: &mut [f32]) -> kernel::Result<()> {
        let starts = range.clone().step_by(MAPPED_ROWS);
        for (start, out) in starts.zip(out.chunks_mut(MAPPED_ROWS * self.dim())) {
            let rows = start..(start + MAPPED_ROWS).min(range.end);
            self.through(rows.len(), out, |buffer| self.rows.read(rows, buffer))?;
        }
        Ok(())
    }

    fn gather(&self, indices: &[u32], out: &mut [f32]) -> kernel::Result<()> {
        for (indices, out) in indices.chunks(MAPPED_ROWS).zip(out.chunks_mut(MAPPED_ROWS * self.dim())) {
            self.through(indices.len(), out, |buffer| self.rows.gather(indices, buffer))?;
        }
        Ok(())
    }

    fn as_slice(&self) -> Option<&[f32]> {
        self.maps.is_empty().then(|| self.rows.as_slice()).flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::execution::memory_pool::GreedyMemoryPool;
    use proptest::prelude::*;

    fn store(limit: usize, rows: usize, dim: usize, batch: usize, known: bool) -> RowStore {
        let pool: Arc<dyn MemoryPool> = Arc::new(GreedyMemoryPool::new(limit));
        let mut builder = RowStoreBuilder::new("test", dim, &pool);
        if known {
            builder = builder.with_rows(rows);
        }
        let values: Vec<f32> = (0..rows * dim).map(|i| i as f32).collect();
        for part in values.chunks(batch * dim) {
            builder.push(part).unwrap();
        }
        builder.finish().unwrap()
    }

    proptest! {
        /// The memory limit and the batch size change where rows lie and nothing else.
        #[test]
        fn any_limit_gives_the_same_rows(
            limit_chunks in 0usize..4, batch in 1usize..700, known: bool, start in 0usize..3000, take in 0usize..300,
        ) {
            let (rows, dim) = (3300, 700);
            let store = store(limit_chunks * CHUNK_BYTES, rows, dim, batch, known);
            prop_assert_eq!(store.len(), rows);
            let mut out = vec![0.0; take * dim];
            store.read(start..start + take, &mut out).unwrap();
            prop_assert!(out.iter().enumerate().all(|(i, &v)| v == (start * dim + i) as f32));
            let pick = [3299, start as u32, 0];
            let mut out = vec![0.0; 3 * dim];
            store.gather(&pick, &mut out).unwrap();
            for (row, &i) in out.chunks(dim).zip(&pick) {
                prop_assert_eq!(row[0], (i as usize * dim) as f32);
                prop_assert_eq!(row[dim - 1], (i as usize * dim + dim - 1) as f32);
            }
        }
    }

    /// Doubles come back as they were, from memory and from disk, and move to single precision block by block.
    #[test]
    fn rows_in_double_precision_keep_it_until_they_are_drained() {
        let (rows, dim) = (2500, 700);
        for limit in [64 << 20, CHUNK_BYTES] {
            let pool: Arc<dyn MemoryPool> = Arc::new(GreedyMemoryPool::new(limit));
            let mut builder = RowStoreBuilder::<f64>::new("test", dim, &pool);
            let value = |i: usize| 1.7e12 + i as f64;
            (0..rows).for_each(|row| {
                let row: Vec<f64> = (row * dim..(row + 1) * dim).map(value).collect();
                builder.push(&row).unwrap();
            });
            let store = builder.finish().unwrap();
            assert_eq!(store.spilled_rows() > 0, limit == CHUNK_BYTES);
            let mut out = vec![0.0; 2 * dim];
            store.gather(&[2499, 0], &mut out).unwrap();
            assert_eq!((out[0], out[dim]), (value(2499 * dim), value(0)));
            let single = store
                .drain_into(RowStoreBuilder::<f32>::new("test", dim, &pool), |values, out| {
                    out.iter_mut().zip(values).for_each(|(out, value)| *out = (value - 1.7e12) as f32);
                })
                .unwrap();
            assert_eq!(single.len(), rows);
            let mut out = vec![0.0; rows * dim];
            single.read(0..rows, &mut out).unwrap();
            assert!(out.iter().enumerate().all(|(i, &x)| x == i as f32));
            drop(single);
            assert_eq!(pool.reserved(), 0);
        }
    }

    #[test]
    fn spills_beyond_its_limit_only() {
        assert_eq!(store(64 << 20, 3300, 700, 64, false).spilled_rows(), 0);
        let small = store(CHUNK_BYTES, 3300, 700, 64, false);
        assert!(small.spilled_rows() > 1000 && small.spilled_rows() < 3300, "{}", small.spilled_rows());
        assert!(store(64 << 20, 3300, 700, 64, true).as_slice().is_some());
        assert!(small.as_slice().is_none());
    }

    #[test]
    fn a_full_disk_reads_as_everywhere() {
        let e = spill_error(std::io::ErrorKind::StorageFull.into());
        assert_eq!(e.kind(), crate::Kind::Io);
        assert!(e.to_string().starts_with("disk is full while writing the replay cache's spill file in "), "{e}");
        assert!(e.to_string().contains("TMPDIR"), "{e}");
    }

    #[test]
    fn memory_returns_to_the_pool() {
        let pool: Arc<dyn MemoryPool> = Arc::new(GreedyMemoryPool::new(64 << 20));
        let mut builder = RowStoreBuilder::new("test", 4, &pool);
        builder.push(&[1.0f32; 40]).unwrap();
        let store = builder.finish().unwrap();
        assert_eq!(pool.reserved(), 160);
        drop(store);
        assert_eq!(pool.reserved(), 0);
    }

    struct Double(usize);
    impl VectorMap for Double {
        fn dim_in(&self) -> usize {
            self.0
        }
        fn dim_out(&self) -> usize {
            self.0
        }
        fn map(&self, input: &[f32], output: &mut [f32]) -> Result<()> {
            for (o, i) in output.iter_mut().zip(input) {
                *o = 2.0 * i;
            }
            Ok(())
        }
    }

    #[test]
    fn maps_as_it_reads() {
        let store = store(64 << 20, 10, 3, 4, false);
        let double = Double(3);
        let mapped = Mapped::new(&store, vec![&double, &double]);
        let mut out = [0.0; 6];
        mapped.gather(&[9, 1], &mut out).unwrap();
        assert_eq!(out, [108.0, 112.0, 116.0, 12.0, 16.0, 20.0]);
        assert!(mapped.as_slice().is_none());
    }
}
