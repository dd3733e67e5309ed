//! Rows as points of a plane, coloured by group: single points if there are few, density if there are many.

use std::collections::BTreeMap;

use plotters::chart::ChartBuilder;
use plotters::element::{Circle, Rectangle};
use plotters::style::Color;
use plotters::style::text_anchor::{HPos, VPos};

use super::ink::Ink;
use super::svg::UNITS;
use super::text::{self, SIZE, shorten};
use super::{Figure, Result};

/// The most points that are drawn singly; more are drawn as density.
const MOST_POINTS: usize = 4000;
/// The side of a bin, in pixels.
const BIN: i32 = 5;
/// Steps of density.
const STEPS: usize = 6;
/// Width and height of the plane.
const PLANE: (u32, u32) = (440, 380);
/// The most entries of the legend.
const MOST_ENTRIES: usize = Ink::SERIES;
/// The most characters of a name in the legend.
const NAME: usize = 24;

/// One group of points.
#[derive(Debug, Clone, PartialEq)]
pub struct Group {
    /// Its name, for the legend.
    pub name: String,
    /// Its ink.
    pub ink: Ink,
}

/// What to draw.
#[derive(Debug, Clone, Copy)]
pub struct Scatter<'a> {
    /// The points, all finite.
    pub points: &'a [[f64; 2]],
    /// The group of each point.
    pub group: &'a [usize],
    /// The groups.
    pub groups: &'a [Group],
    /// Write the name of each group over the middle of its points.
    pub names_over_points: bool,
}

/// Draws points by group, with a legend.
pub fn scatter(name: &str, title: &str, of: Scatter<'_>) -> Result<Figure> {
    let legend = Legend::of(&of);
    let height = PLANE.1 + legend.height() as u32;
    Figure::new(name, title, (PLANE.0, height), |area| {
        let (plane, below) = area.split_vertically(PLANE.1 as i32 * UNITS);
        let (x, y) = (range(of.points, 0), range(of.points, 1));
        let mut chart = ChartBuilder::on(&plane).margin(4 * UNITS).build_cartesian_2d(x.clone(), y.clone())?;
        chart
            .configure_mesh()
            .bold_line_style(Ink::Grid.rgb().stroke_width(UNITS as u32))
            .light_line_style(Ink::Paper.rgb().mix(0.0))
            .axis_style(Ink::Grid.rgb().stroke_width(UNITS as u32))
            .x_labels(6)
            .y_labels(6)
            .disable_axes()
            .draw()?;
        let area = chart.plotting_area();
        // Points far outside are drawn at the border.
        let inside = |[px, py]: [f64; 2]| (px.clamp(x.start, x.end), py.clamp(y.start, y.end));
        let at = |point: [f64; 2]| area.map_coordinate(&inside(point));
        let pixels: Vec<(i32, i32)> = of.points.iter().map(|point| at(*point)).collect();
        let whole = area.strip_coord_spec();
        let (left, top) = whole.get_base_pixel();
        let pixels: Vec<(i32, i32)> = pixels.into_iter().map(|(x, y)| (x - left, y - top)).collect();
        match pixels.len() > MOST_POINTS {
            true => {
                for ((group, step), bins) in density(&pixels, of.group) {
                    let alpha = 0.3 + 0.7 * step as f64 / (STEPS - 1) as f64;
                    let style = of.groups[group].ink.rgb().mix(alpha).filled();
                    for (x, y) in bins {
                        let (x, y) = (x * BIN * UNITS, y * BIN * UNITS);
                        whole.draw(&Rectangle::new([(x, y), (x + BIN * UNITS, y + BIN * UNITS)], style))?;
                    }
                }
            }
            false => {
                let radius = match pixels.len() {
                    0..300 => 30,
                    300..1500 => 22,
                    _ => 16,
                };
                // The points of one group are one path; groups are drawn in turns, so that none hides the others.
                for turn in 0..4 {
                    for (index, group) in of.groups.iter().enumerate() {
                        let style = group.ink.rgb().mix(0.75).filled();
                        let mine =
                            pixels.iter().zip(of.group).enumerate().filter(|(i, (_, g))| i % 4 == turn && **g == index);
                        for (_, (&at, _)) in mine {
                            whole.draw(&Circle::new(at, radius, style))?;
                        }
                    }
                }
            }
        }
        if of.names_over_points {
            let size = whole.dim_in_pixel();
            for (at, name) in names(&pixels, &of, (size.0 as i32, size.1 as i32)) {
                whole.draw_text(&name, &text::sized(Ink::Label, SIZE + 1, (HPos::Center, VPos::Center)), at)?;
            }
        }
        for Entry { at: (x, y), name, ink } in legend.entries {
            below.draw(&Circle::new((x + 5 * UNITS, y + 9 * UNITS), 5 * UNITS, ink.rgb().filled()))?;
            below.draw_text(
                &name,
                &text::style(Ink::Text, (HPos::Left, VPos::Center)),
                (x + 15 * UNITS, y + 9 * UNITS),
            )?;
        }
        Ok(())
    })
}

/// The range of the middle 99 % of a coordinate with some room around it, or the whole range if that is not much
/// larger.
fn range(points: &[[f64; 2]], axis: usize) -> std::ops::Range<f64> {
    let mut values: Vec<f64> = points.iter().map(|point| point[axis]).collect();
    values.sort_unstable_by(f64::total_cmp);
    let (Some(&least), Some(&most)) = (values.first(), values.last()) else { return -1.0..1.0 };
    let cut = values.len() / 200;
    let (low, high) = (values[cut], values[values.len() - 1 - cut]);
    let (low, high) = match most - least > 2.0 * (high - low) && high > low {
        true => (low - 0.2 * (high - low), high + 0.2 * (high - low)),
        false => (least, most),
    };
    let room = match high - low {
        width if width > 0.0 => 0.04 * width,
        // All points are at one place.
        _ => 1.0_f64.max(low.abs() * 0.1),
    };
    low - room..high + room
}

/// The bins, by the group of most of their points and by the number of points.
type Bins = BTreeMap<(usize, usize), Vec<(i32, i32)>>;

fn density(pixels: &[(i32, i32)], groups: &[usize]) -> Bins {
    let mut counts: BTreeMap<(i32, i32), BTreeMap<usize, u32>> = BTreeMap::new();
    for (&(x, y), &group) in pixels.iter().zip(groups) {
        let bin = (x.div_euclid(BIN * UNITS), y.div_euclid(BIN * UNITS));
        *counts.entry(bin).or_default().entry(group).or_default() += 1;
    }
    let total = |counts: &BTreeMap<usize, u32>| f64::from(counts.values().sum::<u32>());
    let most = counts.values().map(total).fold(1.0, f64::max);
    let mut bins = Bins::new();
    for (bin, counts) in counts {
        // On a tie, the first.
        let group = counts.iter().fold((0, 0), |best, (&group, &n)| if n > best.1 { (group, n) } else { best }).0;
        let share = total(&counts).ln_1p() / most.ln_1p();
        let step = ((share * STEPS as f64) as usize).min(STEPS - 1);
        bins.entry((group, step)).or_default().push(bin);
    }
    bins
}

/// The places of the groups' names: at the medians of their points, the largest groups first, without overlap.
fn names(pixels: &[(i32, i32)], of: &Scatter<'_>, size: (i32, i32)) -> Vec<((i32, i32), String)> {
    let mut points: Vec<(usize, Vec<(i32, i32)>)> = (0..of.groups.len()).map(|group| (group, Vec::new())).collect();
    for (&at, &group) in pixels.iter().zip(of.group) {
        points[group].1.push(at);
    }
    points.retain(|(_, points)| !points.is_empty());
    points.sort_by_key(|(group, points)| (std::cmp::Reverse(points.len()), *group));
    let mut placed: Vec<((i32, i32), String)> = Vec::new();
    for (group, points) in points {
        let median = |axis: fn(&(i32, i32)) -> i32| {
            let mut values: Vec<i32> = points.iter().map(axis).collect();
            values.sort_unstable();
            values[values.len() / 2]
        };
        let border = 12 * UNITS;
        let at = (median(|p| p.0).clamp(border, size.0 - border), median(|p| p.1).clamp(border, size.1 - border));
        let near = |other: &(i32, i32)| (at.0 - other.0).abs() < 20 * UNITS && (at.1 - other.1).abs() < 14 * UNITS;
        if placed.iter().all(|(other, _)| !near(other)) {
            placed.push((at, of.groups[group].name.clone()));
        }
    }
    placed
}

struct Entry {
    at: (i32, i32),
    name: String,
    ink: Ink,
}

/// The legend, in as many columns as fit.
struct Legend {
    entries: Vec<Entry>,
    rows: i32,
}

impl Legend {
    const ROW: i32 = 19;

    fn of(of: &Scatter<'_>) -> Self {
        // If there are more groups than inks, only the names over the points distinguish them.
        if of.groups.len() > MOST_ENTRIES {
            return Self { entries: Vec::new(), rows: 0 };
        }
        let names: Vec<String> = of.groups.iter().map(|group| shorten(&group.name, NAME)).collect();
        let widest = names.iter().map(|name| text::width(name, f64::from(SIZE))).fold(1.0, f64::max);
        let columns = ((f64::from(PLANE.0) - 8.0) / (widest + 30.0)).floor().clamp(1.0, 10.0) as usize;
        let column = (PLANE.0 as i32 - 8) / columns as i32;
        let entries = names.into_iter().zip(of.groups).enumerate().map(|(i, (name, group))| Entry {
            at: ((4 + (i % columns) as i32 * column) * UNITS, (4 + (i / columns) as i32 * Self::ROW) * UNITS),
            name,
            ink: group.ink,
        });
        let entries: Vec<Entry> = entries.collect();
        let rows = entries.len().div_ceil(columns) as i32;
        Self { entries, rows }
    }

    fn height(&self) -> i32 {
        if self.rows == 0 { 0 } else { self.rows * Self::ROW + 8 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn groups(n: usize) -> Vec<Group> {
        (0..n).map(|i| Group { name: i.to_string(), ink: Ink::of_group(i) }).collect()
    }

    fn cloud(n: usize) -> (Vec<[f64; 2]>, Vec<usize>) {
        let points = (0..n).map(|i| {
            let t = i as f64 * 0.618_033_988;
            [t.fract() + (i % 3) as f64, (t * 7.3).fract()]
        });
        (points.collect(), (0..n).map(|i| i % 3).collect())
    }

    #[test]
    fn a_million_points_take_no_more_room_than_a_few_thousand() {
        let groups = groups(3);
        let size = |n| {
            let (points, group) = cloud(n);
            let of = Scatter { points: &points, group: &group, groups: &groups, names_over_points: true };
            scatter("s", "s", of).unwrap().inline().len()
        };
        assert!(size(1_000_000) < 150_000, "{}", size(1_000_000));
        assert!(size(4000) < 80_000, "{}", size(4000));
    }

    #[test]
    fn points_at_one_place_and_no_points_are_drawn() {
        let groups = groups(1);
        for points in [vec![[2.0, -3.0]; 5], vec![]] {
            let group = vec![0; points.len()];
            let of = Scatter { points: &points, group: &group, groups: &groups, names_over_points: true };
            let text = scatter("s", "s", of).unwrap().file();
            assert!(!text.contains("NaN") && !text.contains("inf"), "{text}");
        }
    }

    #[test]
    fn an_outlier_does_not_press_the_rest_together() {
        let mut points: Vec<[f64; 2]> = (0..1000).map(|i| [i as f64 / 1000.0, 0.5]).collect();
        points.push([1e9, 0.5]);
        let x = range(&points, 0);
        assert!(x.end < 2.0, "{x:?}");
    }

    #[test]
    fn bins_are_of_the_group_that_most_points_are_of() {
        let bins = density(&[(1, 1), (2, 2), (3, 3), (1000, 1)], &[1, 0, 1, 0]);
        let found: Vec<_> = bins.iter().map(|((group, _), bins)| (*group, bins.clone())).collect();
        assert_eq!(found, [(0, vec![(20, 0)]), (1, vec![(0, 0)])]);
    }
}
