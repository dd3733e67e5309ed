//! Values by group: a line of dots for each group, with their mean.

use plotters::element::{Circle, PathElement, Rectangle};
use plotters::style::Color;
use plotters::style::text_anchor::{HPos, VPos};

use super::ink::Ink;
use super::svg::UNITS;
use super::text::{self, SIZE, shorten, tick, ticks};
use super::{Figure, Result};

const WIDTH: i32 = 440;
const ROW: i32 = 19;
/// The most characters of a group's name.
const NAME: usize = 24;

/// A group of values.
#[derive(Debug, Clone, PartialEq)]
pub struct Dots {
    /// Its name.
    pub name: String,
    /// Its values, all finite and none negative.
    pub values: Vec<f64>,
}

impl Dots {
    /// The mean of the values.
    pub fn mean(&self) -> f64 {
        self.values.iter().sum::<f64>() / self.values.len().max(1) as f64
    }
}

/// Draws every value of every group.
pub fn dots(name: &str, title: &str, groups: &[Dots]) -> Result<Figure> {
    let names: Vec<String> = groups.iter().map(|group| shorten(&group.name, NAME)).collect();
    let widest = names.iter().map(|name| text::width(name, f64::from(SIZE))).fold(0.0, f64::max) as i32;
    let most = groups.iter().flat_map(|group| &group.values).fold(f64::MIN_POSITIVE, |most, value| most.max(*value));
    let (left, bottom) = (widest + 16, 26);
    let height = groups.len() as i32 * ROW + bottom + 4;
    let room = f64::from((WIDTH - left - 16) * UNITS);
    let x = |value: f64| left * UNITS + (value / most * room) as i32;
    Figure::new(name, title, (WIDTH as u32, height as u32), |area| {
        let floor = (groups.len() as i32 * ROW + 4) * UNITS;
        for value in ticks(most) {
            let line = vec![(x(value), 2 * UNITS), (x(value), floor)];
            area.draw(&PathElement::new(line, Ink::Grid.rgb().stroke_width(UNITS as u32)))?;
            let style = text::style(Ink::Muted, (HPos::Center, VPos::Top));
            area.draw_text(&tick(value), &style, (x(value), floor + 6 * UNITS))?;
        }
        for (i, (group, name)) in groups.iter().zip(&names).enumerate() {
            let y = (2 + i as i32 * ROW + ROW / 2) * UNITS;
            area.draw_text(name, &text::style(Ink::Text, (HPos::Right, VPos::Center)), ((left - 10) * UNITS, y))?;
            for value in &group.values {
                area.draw(&Circle::new((x(*value), y), 30, Ink::Accent.rgb().mix(0.45).filled()))?;
            }
            let mean = x(group.mean());
            let mark = [(mean - 10, y - 7 * UNITS), (mean + 10, y + 7 * UNITS)];
            area.draw(&Rectangle::new(mark, Ink::Second.rgb().filled()))?;
        }
        Ok(())
    })
}
