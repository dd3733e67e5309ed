//! A table of counts as a heat map.

use plotters::element::Rectangle;
use plotters::style::Color;
use plotters::style::text_anchor::{HPos, VPos};

use super::ink::Ink;
use super::svg::UNITS;
use super::text::{self, SIZE, shorten};
use super::{Figure, Result};

/// The most characters of a name.
const NAME: usize = 22;
/// Steps of the scale.
const STEPS: f64 = 20.0;

/// Counts by row and column.
#[derive(Debug, Clone, Copy)]
pub struct Heat<'a> {
    /// The names of the rows.
    pub rows: &'a [String],
    /// The names of the columns.
    pub columns: &'a [String],
    /// The counts, row by row.
    pub counts: &'a [u64],
}

/// Draws the table: the strength of a cell and the number in it give its share of its row, in per cent.
pub fn heat(name: &str, title: &str, of: Heat<'_>) -> Result<Figure> {
    let columns: Vec<String> = of.columns.iter().map(|name| shorten(name, NAME)).collect();
    let rows: Vec<String> = of.rows.iter().map(|name| shorten(name, NAME)).collect();
    let widest =
        |names: &[String]| names.iter().map(|name| text::width(name, f64::from(SIZE))).fold(0.0, f64::max) as i32;
    let (left, top) = (widest(&rows) + 14, widest(&columns) + 12);
    let cell_width = ((440 - left) / columns.len().max(1) as i32).clamp(16, 64);
    let cell_height = if rows.len() > 40 { 14 } else { 22 };
    let width = left + cell_width * columns.len() as i32 + 6;
    let height = top + cell_height * rows.len() as i32 + 6;
    // Percentages fit into cells, counts may not.
    let small = 10;
    let numbered = cell_width >= 22 && cell_height >= 18;
    Figure::new(name, title, (width as u32, height as u32), |area| {
        for (i, column) in columns.iter().enumerate() {
            let x = left + i as i32 * cell_width + cell_width / 2;
            area.draw_text(
                column,
                &text::upward(Ink::Text, (HPos::Left, VPos::Center)),
                (x * UNITS, (top - 6) * UNITS),
            )?;
        }
        for (r, row) in rows.iter().enumerate() {
            let y = top + r as i32 * cell_height;
            let middle = (y + cell_height / 2) * UNITS;
            area.draw_text(row, &text::style(Ink::Text, (HPos::Right, VPos::Center)), ((left - 8) * UNITS, middle))?;
            let counts = &of.counts[r * columns.len()..][..columns.len()];
            let total = counts.iter().sum::<u64>().max(1) as f64;
            for (c, &count) in counts.iter().enumerate() {
                let x = left + c as i32 * cell_width;
                let share = count as f64 / total;
                let cell =
                    [(x * UNITS + 5, y * UNITS + 5), ((x + cell_width) * UNITS - 5, (y + cell_height) * UNITS - 5)];
                let (ink, alpha) = match count {
                    0 => (Ink::Grid, 0.45),
                    _ => (Ink::Accent, 0.08 + 0.92 * (share * STEPS).ceil() / STEPS),
                };
                area.draw(&Rectangle::new(cell, ink.rgb().mix(alpha).filled()))?;
                let percent = (100.0 * share).round() as u32;
                if numbered && percent > 0 {
                    let ink = if alpha > 0.55 { Ink::OnAccent } else { Ink::Text };
                    let style = text::sized(ink, small, (HPos::Center, VPos::Center));
                    area.draw_text(&percent.to_string(), &style, ((2 * x + cell_width) * UNITS / 2, middle))?;
                }
            }
        }
        Ok(())
    })
}
