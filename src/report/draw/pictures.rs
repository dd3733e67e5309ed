//! Vectors that are images.

use std::collections::BTreeMap;

use plotters::element::Rectangle;
use plotters::style::Color;
use plotters::style::text_anchor::{HPos, VPos};

use super::ink::Ink;
use super::svg::UNITS;
use super::text::{self, shorten};
use super::{Figure, Result};

/// Steps of grey.
const STEPS: f64 = 24.0;
/// Space around a picture.
const GAP: i32 = 8;
const CAPTION: i32 = 17;

/// A square image.
#[derive(Debug, Clone, PartialEq)]
pub struct Picture {
    /// Its caption; may be empty.
    pub caption: String,
    /// Its pixels, row by row, from 0 (paper) to 1 (ink).
    pub pixels: Vec<f64>,
}

/// Draws square images of `side` pixels at about `size` pixels, as many per row as there is room for, in multiples of
/// `together`.
pub fn pictures(
    name: &str,
    title: &str,
    images: &[Picture],
    side: usize,
    size: i32,
    together: usize,
) -> Result<Figure> {
    let pixel = (size * UNITS / side.max(1) as i32).max(1);
    let square = pixel * side as i32;
    let caption = if images.iter().any(|image| !image.caption.is_empty()) { CAPTION } else { 0 };
    let (across, down) = (square + GAP * UNITS, square + (GAP + caption) * UNITS);
    let together = together.max(1);
    let columns = ((440 * UNITS / across) as usize / together * together).max(together).min(images.len().max(1));
    let rows = images.len().div_ceil(columns);
    let extent = ((across * columns as i32 / UNITS) as u32, (down * rows as i32 / UNITS) as u32);
    Figure::new(name, title, extent, |area| {
        for (i, image) in images.iter().enumerate() {
            let (left, top) = ((i % columns) as i32 * across + GAP * UNITS / 2, (i / columns) as i32 * down);
            if caption > 0 {
                let most = (square / UNITS / 6).max(4) as usize;
                let style = text::sized(Ink::Muted, 11, (HPos::Left, VPos::Top));
                area.draw_text(&shorten(&image.caption, most), &style, (left, top + 2 * UNITS))?;
            }
            let top = top + caption * UNITS;
            let frame = [(left, top), (left + square, top + square)];
            area.draw(&Rectangle::new(frame, Ink::Grid.rgb().mix(0.5).filled()))?;
            for (step, strips) in strips(&image.pixels, side) {
                let style = Ink::Text.rgb().mix(f64::from(step) / STEPS).filled();
                for (x, y, wide) in strips {
                    let corner = (left + x * pixel, top + y * pixel);
                    area.draw(&Rectangle::new([corner, (corner.0 + wide * pixel, corner.1 + pixel)], style))?;
                }
            }
        }
        Ok(())
    })
}

/// Horizontal runs of pixels of one grey, as (x, y, width), by grey.
fn strips(pixels: &[f64], side: usize) -> BTreeMap<u8, Vec<(i32, i32, i32)>> {
    let grey = |value: f64| (value.clamp(0.0, 1.0) * STEPS).round() as u8;
    let mut strips: BTreeMap<u8, Vec<(i32, i32, i32)>> = BTreeMap::new();
    for (y, row) in pixels.chunks(side.max(1)).enumerate() {
        let mut x = 0;
        for same in row.chunk_by(|a, b| grey(*a) == grey(*b)) {
            if grey(same[0]) > 0 {
                strips.entry(grey(same[0])).or_default().push((x, y as i32, same.len() as i32));
            }
            x += same.len() as i32;
        }
    }
    strips
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pixels_of_one_grey_are_one_strip() {
        let found = strips(&[1.0, 1.0, 0.0, 0.5, 1.0, 0.5, 0.5, f64::NAN, 1.0], 3);
        assert_eq!(found[&24], [(0, 0, 2), (1, 1, 1), (2, 2, 1)]);
        assert_eq!(found[&12], [(0, 1, 1), (2, 1, 1), (0, 2, 1)]);
    }
}
