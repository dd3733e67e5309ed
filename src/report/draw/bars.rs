//! The sizes of clusters: one bar each if there are few, columns over an axis if there are many.

use plotters::chart::ChartBuilder;
use plotters::element::Rectangle;
use plotters::style::Color;
use plotters::style::text_anchor::{HPos, VPos};

use super::ink::Ink;
use super::scatter::Group;
use super::svg::UNITS;
use super::text::{self, SIZE, thousands, tick};
use super::{Figure, Result};

/// The most bars that get a line each.
const MOST_BARS: usize = 24;
const WIDTH: u32 = 440;
const ROW: i32 = 21;

/// Draws the size of each group.
pub fn bars(name: &str, title: &str, groups: &[Group], sizes: &[u64]) -> Result<Figure> {
    match groups.len() <= MOST_BARS {
        true => rows(name, title, groups, sizes),
        false => columns(name, title, groups, sizes),
    }
}

fn rows(name: &str, title: &str, groups: &[Group], sizes: &[u64]) -> Result<Figure> {
    let most = sizes.iter().copied().max().unwrap_or(0).max(1) as f64;
    let total = sizes.iter().sum::<u64>().max(1) as f64;
    let share = |size: u64| format!("{} · {}\u{202f}%", thousands(size), tick(round(100.0 * size as f64 / total)));
    let widest = sizes.iter().map(|size| text::width(&share(*size), f64::from(SIZE))).fold(0.0, f64::max);
    let left = 34;
    let room = f64::from(WIDTH as i32 - left - 16) - widest;
    Figure::new(name, title, (WIDTH, (groups.len() as i32 * ROW + 6) as u32), |area| {
        for (i, (group, &size)) in groups.iter().zip(sizes).enumerate() {
            let top = (3 + i as i32 * ROW) * UNITS;
            let middle = top + ROW * UNITS / 2;
            let wide = ((size as f64 / most * room) as i32).max(i32::from(size > 0));
            let bar = [(left * UNITS, top + 3 * UNITS), ((left + wide) * UNITS, top + (ROW - 3) * UNITS)];
            area.draw_text(
                &group.name,
                &text::style(Ink::Text, (HPos::Right, VPos::Center)),
                ((left - 8) * UNITS, middle),
            )?;
            area.draw(&Rectangle::new(bar, group.ink.rgb().filled()))?;
            let place = ((left + wide + 8) * UNITS, middle);
            area.draw_text(&share(size), &text::style(Ink::Muted, (HPos::Left, VPos::Center)), place)?;
        }
        Ok(())
    })
}

/// Rounded to one decimal.
fn round(percent: f64) -> f64 {
    (percent * 10.0).round() / 10.0
}

fn columns(name: &str, title: &str, groups: &[Group], sizes: &[u64]) -> Result<Figure> {
    let most = sizes.iter().copied().max().unwrap_or(0).max(1) as f64;
    Figure::new(name, title, (WIDTH, 240), |area| {
        let mut chart = ChartBuilder::on(area)
            .margin(6 * UNITS)
            .margin_top(12 * UNITS)
            .x_label_area_size(36 * UNITS)
            .y_label_area_size(54 * UNITS)
            .build_cartesian_2d(-0.5..groups.len() as f64 - 0.5, 0.0..most * 1.04)?;
        chart
            .configure_mesh()
            .disable_x_mesh()
            .bold_line_style(Ink::Grid.rgb().stroke_width(UNITS as u32))
            .light_line_style(Ink::Paper.rgb().mix(0.0))
            .axis_style(Ink::Grid.rgb().stroke_width(UNITS as u32))
            .x_labels(8)
            .y_labels(5)
            .x_label_formatter(&|x| format!("{x:.0}"))
            .y_label_formatter(&|y| thousands(y.max(0.0) as u64))
            .label_style(text::style(Ink::Muted, (HPos::Left, VPos::Top)))
            .axis_desc_style(text::style(Ink::Muted, (HPos::Left, VPos::Top)))
            .x_desc("cluster")
            .set_all_tick_mark_size(5 * UNITS)
            .draw()?;
        for (i, (group, &size)) in groups.iter().zip(sizes).enumerate() {
            let x = i as f64;
            let bar = Rectangle::new([(x - 0.4, 0.0), (x + 0.4, size as f64)], group.ink.rgb().filled());
            chart.plotting_area().draw(&bar)?;
        }
        Ok(())
    })
}
