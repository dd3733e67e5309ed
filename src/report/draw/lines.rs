//! Losses by epoch, and vectors that are not images, as lines.

use plotters::chart::ChartBuilder;
use plotters::element::PathElement;
use plotters::style::Color;
use plotters::style::text_anchor::{HPos, VPos};

use super::ink::Ink;
use super::svg::UNITS;
use super::text::{self, shorten, tick};
use super::{Area, Figure, Result};

/// The most points of a line; of a longer list only every n-th value is drawn, and the last.
const MOST_POINTS: usize = 600;
/// The ratio of the greatest to the least value from which a logarithmic scale is easier to read.
const LOGARITHMIC: f64 = 20.0;

/// One line.
#[derive(Debug, Clone, Copy)]
pub struct Line<'a> {
    /// Its values, in order.
    pub values: &'a [f64],
    /// Its ink.
    pub ink: Ink,
}

/// A small drawing of several lines.
#[derive(Debug, Clone)]
pub struct Panel<'a> {
    /// Its title.
    pub name: String,
    /// The lines, on one scale.
    pub lines: Vec<Line<'a>>,
}

/// Draws `values` over their numbers, from 1; `unit` names what is counted.
pub fn lines(name: &str, title: &str, values: &[f64], unit: &str) -> Result<Figure> {
    let finite: Vec<f64> = values.iter().copied().filter(|value| value.is_finite()).collect();
    let (least, most) = bounds(&finite);
    let powers = least > 0.0 && most / least > LOGARITHMIC;
    let scale = move |value: f64| if powers { value.log10() } else { value };
    let (low, high) = (scale(least), scale(most));
    let room = if high > low { (high - low) * 0.06 } else { 0.5 * low.abs().max(1e-3) };
    Figure::new(name, title, (440, 230), |area| {
        let mut chart = ChartBuilder::on(area)
            .margin(6 * UNITS)
            .margin_top(12 * UNITS)
            .margin_right(14 * UNITS)
            .x_label_area_size(36 * UNITS)
            .y_label_area_size(58 * UNITS)
            .build_cartesian_2d(1.0..(values.len().max(2) as f64), low - room..high + room)?;
        chart
            .configure_mesh()
            .disable_x_mesh()
            .bold_line_style(Ink::Grid.rgb().stroke_width(UNITS as u32))
            .light_line_style(Ink::Paper.rgb().mix(0.0))
            .axis_style(Ink::Grid.rgb().stroke_width(UNITS as u32))
            .x_labels(values.len().min(7))
            .y_labels(5)
            .x_label_formatter(&|x| format!("{x:.0}"))
            .y_label_formatter(&|y| tick(if powers { 10f64.powf(*y) } else { *y }))
            .label_style(text::style(Ink::Muted, (HPos::Left, VPos::Top)))
            .axis_desc_style(text::style(Ink::Muted, (HPos::Left, VPos::Top)))
            .x_desc(unit)
            .set_all_tick_mark_size(5 * UNITS)
            .draw()?;
        for run in runs(values) {
            let points: Vec<(f64, f64)> = run.into_iter().map(|(i, value)| (i as f64 + 1.0, scale(value))).collect();
            let style = Ink::Accent.rgb().stroke_width(2 * UNITS as u32);
            chart.plotting_area().draw(&PathElement::new(points, style))?;
        }
        Ok(())
    })
}

/// Draws panels side by side, two per row.
pub fn panels(name: &str, title: &str, panels: &[Panel<'_>]) -> Result<Figure> {
    const COLUMNS: usize = 2;
    let (width, height, caption) = (220, 96, 18);
    let rows = panels.len().div_ceil(COLUMNS);
    Figure::new(name, title, ((width * COLUMNS as i32) as u32, (rows as i32 * height) as u32), |area| {
        for (i, panel) in panels.iter().enumerate() {
            let (left, top) = ((i % COLUMNS) as i32 * width * UNITS, (i / COLUMNS) as i32 * height * UNITS);
            let style = text::style(Ink::Muted, (HPos::Left, VPos::Top));
            area.draw_text(&shorten(&panel.name, 32), &style, (left + 6 * UNITS, top + 3 * UNITS))?;
            let all: Vec<f64> = panel.lines.iter().flat_map(|line| line.values.iter().copied()).collect();
            let place = (left + 6 * UNITS, top + caption * UNITS);
            let size = ((width - 12) * UNITS, (height - caption - 8) * UNITS);
            for line in &panel.lines {
                curve(area, line, bounds(&all), place, size)?;
            }
        }
        Ok(())
    })
}

fn curve(
    area: &Area<'_>,
    line: &Line<'_>,
    (low, high): (f64, f64),
    (left, top): (i32, i32),
    (width, height): (i32, i32),
) -> Result<()> {
    let span = if high > low { high - low } else { 1.0 };
    let last = (line.values.len().max(2) - 1) as f64;
    for run in runs(line.values) {
        let at = |(i, value): (usize, f64)| {
            let (x, y) = (i as f64 / last, (value - low) / span);
            (left + (x * f64::from(width)) as i32, top + ((1.0 - y) * f64::from(height)) as i32)
        };
        let points: Vec<(i32, i32)> = run.into_iter().map(at).collect();
        area.draw(&PathElement::new(points, line.ink.rgb().mix(0.85).stroke_width(UNITS as u32)))?;
    }
    Ok(())
}

/// The least and the greatest of the finite values.
fn bounds(values: &[f64]) -> (f64, f64) {
    let finite = values.iter().copied().filter(|value| value.is_finite());
    let (low, high) = finite.fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), v| (a.min(v), b.max(v)));
    if low > high { (0.0, 1.0) } else { (low, high) }
}

/// The stretches of finite values, thinned out.
fn runs(values: &[f64]) -> Vec<Vec<(usize, f64)>> {
    let step = values.len().div_ceil(MOST_POINTS).max(1);
    let mut runs = vec![Vec::new()];
    for (i, &value) in values.iter().enumerate() {
        match value.is_finite() {
            true if i % step == 0 || i + 1 == values.len() => runs.last_mut().expect("never empty").push((i, value)),
            true => {}
            false => runs.push(Vec::new()),
        }
    }
    runs.retain(|run| !run.is_empty());
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_that_is_no_number_interrupts_the_line() {
        assert_eq!(runs(&[1.0, f64::NAN, 2.0, 3.0]), [vec![(0, 1.0)], vec![(2, 2.0), (3, 3.0)]]);
        let long = runs(&vec![0.5; 10_000]);
        assert!(long[0].len() <= MOST_POINTS + 1 && long[0].last() == Some(&(9999, 0.5)));
    }

    #[test]
    fn any_list_is_drawn() {
        for values in [vec![1.0, 1.0], vec![0.0, 0.0, 0.0], vec![1e-9, 1e9], vec![-1.0, 2.0], vec![f64::NAN; 3]] {
            let text = lines("loss", "loss", &values, "epoch").unwrap().inline();
            assert!(!text.contains("NaN") && text.contains("epoch"), "{values:?}: {text}");
        }
    }
}
