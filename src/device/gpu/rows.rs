//! The training rows: in the machine's memory where they fit, else sent batch by batch.

use crate::cuda::ops::gather_rows;
use crate::cuda::{Buffer, Machine};
use crate::error::Result;
use crate::kernel::{Rows, fold};

/// Values of a piece in which rows are sent: 16 MiB.
const PIECE: usize = 1 << 22;

/// Rows, and the batch at hand in the machine's memory.
pub(super) struct BatchRows<'a> {
    rows: &'a dyn Rows,
    /// All of them, if they fit.
    resident: Option<Buffer<f32>>,
    /// Those of the batch, and their numbers.
    pub values: Buffer<f32>,
    pub numbers: Buffer<u32>,
    /// The numbers on the host.
    pub batch: Vec<u32>,
    /// Room for rows on their way to the machine.
    buffer: Vec<f32>,
}

impl std::fmt::Debug for BatchRows<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let where_ = if self.resident.is_some() { "on the device" } else { "on the host" };
        write!(f, "{} rows of {} values {where_}", self.rows.len(), self.rows.dim())
    }
}

impl<'a> BatchRows<'a> {
    /// The rows, which are kept on the machine if they are at most `most` bytes and it has room, for batches of up to
    /// `batch` rows.
    pub fn new(machine: &dyn Machine, rows: &'a dyn Rows, most: usize, batch: usize) -> Result<Self> {
        let dim = rows.dim();
        let values = Buffer::zeros(machine, batch * dim)?;
        let numbers = Buffer::zeros(machine, batch)?;
        let fits = rows.len().saturating_mul(dim).saturating_mul(size_of::<f32>()) <= most;
        let resident = if fits { Buffer::zeros(machine, rows.len() * dim).ok() } else { None };
        let mut buffer = Vec::new();
        if let Some(all) = &resident {
            let size = (PIECE / dim).max(1);
            for first in (0..rows.len()).step_by(size) {
                let range = first..(first + size).min(rows.len());
                let to = all.part(range.start * dim..range.end * dim);
                to.write(machine, fold::block(rows, range, &mut buffer)?)?;
            }
        }
        Ok(Self { rows, resident, values, numbers, batch: Vec::new(), buffer })
    }

    /// Makes the rows of these numbers the batch.
    pub fn take(&mut self, machine: &dyn Machine, numbers: &[u32]) -> Result<()> {
        self.batch.clear();
        self.batch.extend_from_slice(numbers);
        if numbers.is_empty() {
            return Ok(());
        }
        let dim = self.rows.dim();
        assert!(numbers.iter().all(|&row| (row as usize) < self.rows.len()), "numbers of training rows");
        self.numbers.all().write(machine, numbers)?;
        let values = self.values.part(0..numbers.len() * dim);
        match &self.resident {
            Some(all) => gather_rows(machine, all.all(), self.numbers.part(0..numbers.len()), values, dim),
            None => {
                self.buffer.resize(numbers.len() * dim, 0.0);
                self.rows.gather(numbers, &mut self.buffer)?;
                values.write(machine, &self.buffer)
            }
        }
    }
}
