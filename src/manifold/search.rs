//! Finds the nearest of some rows for others, by matrix products of blocks.

use std::ops::Range;

use super::metric::Prepared;
use crate::error::Result;
use crate::event::Control;
use crate::kernel::gemm::{Left, Panels, Start, gemm, pack_transposed, right_of_panels};
use crate::kernel::nearest::{Candidate, keep_best, squared_norms};
use crate::kernel::{Pool, Rows};

/// Rows in a tile, which are searched for together.
pub(super) const TILE: usize = 64;
/// Columns of the right operand in a panel.
const PANEL: usize = 16;
/// Columns that a tile is compared with at a time: their scores stay in the L2 cache.
const COLUMNS: usize = 512;
/// Bytes of packed rows at a time.
const PACKED_BYTES: usize = 16 << 20;

/// The rows that are searched, cut into groups.
pub(super) struct Groups {
    /// Row numbers, group after group.
    pub order: Vec<u32>,
    /// The range of each group in `order`.
    pub ranges: Vec<Range<usize>>,
}

/// Rows whose neighbours are searched in the same groups.
pub(super) struct Tile {
    /// At most [`TILE`].
    pub rows: Vec<u32>,
    /// The groups, ascending.
    pub groups: Vec<u32>,
}

/// The `keep` best candidates of every row of every tile, tile after tile, sorted by descending score: half the squared
/// norm of the row minus half the squared distance.
///
/// `progress` is called with the fraction of the work that is done.
pub(super) fn search(
    rows: &Prepared<'_>,
    groups: &Groups,
    tiles: &[Tile],
    keep: usize,
    pool: &Pool,
    control: &Control,
    progress: &mut dyn FnMut(f64),
) -> Result<Vec<Candidate>> {
    let dim = rows.dim();
    let starts: Vec<usize> =
        tiles.iter().scan(0, |end, tile| Some(std::mem::replace(end, *end + tile.rows.len()))).collect();
    let total = tiles.iter().map(|tile| tile.rows.len()).sum::<usize>();
    let mut best = vec![Candidate::NONE; total * keep];
    let bounds: Vec<[usize; 1]> = starts.iter().chain([&total]).map(|start| [start * keep]).collect();
    let most = (PACKED_BYTES / (4 * dim)).max(PANEL);
    let mut first = 0;
    while first < groups.ranges.len() {
        control.check()?;
        let block = Block::new(rows, groups, first, most, pool)?;
        pool.try_for_each_part_mut([&mut best], &bounds, |t, [best]| {
            let tile = &tiles[t];
            let there = tile.groups.partition_point(|&g| (g as usize) < first);
            let probed = tile.groups[there..].iter().map(|&g| g as usize).take_while(|&g| g < block.groups.end);
            block.meet(rows, &tile.rows, probed, keep, best)
        })?;
        first = block.groups.end;
        progress(first as f64 / groups.ranges.len() as f64);
    }
    Ok(best)
}

/// Some groups, packed for the matrix product; each begins with a panel of its own.
struct Block<'a> {
    groups: Range<usize>,
    order: &'a [u32],
    ranges: &'a [Range<usize>],
    /// The first column of each group's panels.
    columns: Vec<usize>,
    panels: Vec<f32>,
    /// Minus half the squared norm of each column's row.
    offsets: Vec<f32>,
}

impl<'a> Block<'a> {
    /// Packs as many groups from `first` on as fit into `most` columns, at least one.
    fn new(rows: &Prepared<'_>, groups: &'a Groups, first: usize, most: usize, pool: &Pool) -> Result<Self> {
        let dim = rows.dim();
        let (mut columns, mut end, mut last) = (vec![0], 0, first);
        while last < groups.ranges.len() {
            let wide = groups.ranges[last].len().next_multiple_of(PANEL);
            if last > first && end + wide > most {
                break;
            }
            end += wide;
            columns.push(end);
            last += 1;
        }
        let mut panels = vec![0.0; Panels::len(dim, end)];
        let mut offsets = vec![0.0; end];
        // A task packs one panel: the row numbers of its columns.
        let numbers: Vec<&[u32]> =
            groups.ranges[first..last].iter().flat_map(|range| groups.order[range.clone()].chunks(PANEL)).collect();
        let bounds: Vec<[usize; 2]> = (0..=numbers.len()).map(|p| [p * PANEL * dim, p * PANEL]).collect();
        pool.try_for_each_part_mut([&mut panels, &mut offsets], &bounds, |p, [panel, offsets]| -> Result<()> {
            let numbers = numbers[p];
            let mut values = vec![0.0; numbers.len() * dim];
            rows.gather(numbers, &mut values)?;
            pack_transposed(&values, dim, numbers.len(), panel);
            squared_norms(&values, dim, &mut offsets[..numbers.len()]);
            offsets.iter_mut().for_each(|norm| *norm *= -0.5);
            Ok(())
        })?;
        Ok(Self { groups: first..last, order: &groups.order, ranges: &groups.ranges, columns, panels, offsets })
    }

    /// Merges the rows of the groups `probed` into the candidates of `tile`.
    fn meet(
        &self,
        rows: &Prepared<'_>,
        tile: &[u32],
        probed: impl Iterator<Item = usize>,
        keep: usize,
        best: &mut [Candidate],
    ) -> Result<()> {
        let dim = rows.dim();
        let mut probed = probed.peekable();
        if probed.peek().is_none() {
            return Ok(());
        }
        let mut values = vec![0.0; tile.len() * dim];
        rows.gather(tile, &mut values)?;
        let mut scores = vec![0.0; tile.len() * COLUMNS];
        for group in probed {
            let (range, from) = (self.ranges[group].clone(), self.columns[group - self.groups.start]);
            for start in (0..range.len()).step_by(COLUMNS) {
                let wide = COLUMNS.min(range.len() - start);
                let column = from + start;
                let panels = &self.panels[column * dim..][..Panels::len(dim, wide)];
                let offsets = &self.offsets[column..column + wide];
                let left = Left::rows(&values, dim);
                gemm(tile.len(), left, right_of_panels(panels, dim, wide), Start::Row(offsets), &mut scores, COLUMNS);
                let numbers = &self.order[range.start + start..][..wide];
                for ((&own, scores), best) in tile.iter().zip(scores.chunks(COLUMNS)).zip(best.chunks_mut(keep)) {
                    keep_best(&scores[..wide], numbers, own, best);
                }
            }
        }
        Ok(())
    }
}
