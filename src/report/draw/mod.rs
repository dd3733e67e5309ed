//! The figures of a report: plain values in, an SVG out.
//!
//! plotters lays out axes, ticks and shapes; `svg` writes them with CSS classes as colours, so that the same figure is
//! readable on light and on dark paper, in the page and as a file of its own.

mod bars;
mod dots;
mod heat;
mod ink;
mod lines;
mod pictures;
mod scatter;
mod svg;
mod text;

use std::convert::Infallible;

use plotters::coord::Shift;
use plotters::drawing::{DrawingArea, DrawingAreaErrorKind, IntoDrawingArea};

pub use bars::bars;
pub use dots::{Dots, dots};
pub use heat::{Heat, heat};
pub use ink::{INKS, Ink};
pub use lines::{Line, Panel, lines, panels};
pub use pictures::{Picture, pictures};
pub use scatter::{Group, Scatter, scatter};
pub use svg::{UNITS, escape};
pub use text::{shorten, thousands};

use svg::Svg;

/// An error of drawing: a layout that plotters cannot make.
pub type Failed = DrawingAreaErrorKind<Infallible>;
/// A drawing, or why there is none.
pub type Result<T> = std::result::Result<T, Failed>;

/// The drawing area of the functions here.
type Area<'a> = DrawingArea<Svg<'a>, Shift>;

/// A finished figure.
#[derive(Debug, Clone, PartialEq)]
pub struct Figure {
    /// The name of its file, without the ending.
    pub name: String,
    /// A description of what it shows, for screen readers.
    pub title: String,
    /// Its width in pixels, at which its text has the size of the page's.
    pub width: u32,
    /// Its height in pixels.
    pub height: u32,
    shapes: String,
}

impl Figure {
    /// A figure of `width` by `height` pixels, drawn by `draw` in [units](UNITS) of a tenth of a pixel.
    fn new(
        name: &str,
        title: &str,
        (width, height): (u32, u32),
        draw: impl FnOnce(&Area<'_>) -> Result<()>,
    ) -> Result<Self> {
        let mut shapes = String::new();
        {
            let area = Svg::new(&mut shapes, (width, height)).into_drawing_area();
            draw(&area)?;
            area.present()?;
        }
        Ok(Self { name: name.into(), title: title.into(), width, height, shapes })
    }

    /// The figure as an element of a page that has the style sheet of [`styles`].
    pub fn inline(&self) -> String {
        let Self { width, height, shapes, .. } = self;
        let title = escape(&self.title);
        format!(
            "<svg viewBox=\"0 0 {width} {height}\" style=\"max-width:{width}px\" role=\"img\" aria-label=\"{title}\">{shapes}</svg>"
        )
    }

    /// The figure as a file, with its paper and its style sheet.
    pub fn file(&self) -> String {
        let Self { width, height, shapes, .. } = self;
        let title = escape(&self.title);
        let styles = styles();
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" {GENERATOR}>\n\
             <title>{title}</title>\n<style>{styles}</style>\n<rect class=\"f-paper\" width=\"100%\" height=\"100%\"/>\n{shapes}\n</svg>\n"
        )
    }
}

/// The mark of a page and its figures as dacpipe's: other files are never overwritten.
pub const GENERATOR: &str = "data-generator=\"dacpipe\"";

/// The style sheet of the figures: for each ink a CSS class for filling and one for stroking, on light and on dark
/// paper.
pub fn styles() -> String {
    let rules = |value: fn(&Ink) -> &'static str| -> String {
        let rule = |ink: &Ink| {
            let (name, value) = (ink.class(), value(ink));
            format!(".f-{name}{{fill:{value}}}.s-{name}{{stroke:{value};fill:none}}")
        };
        INKS.iter().map(rule).collect()
    };
    let halo = |paper: &str| format!(".f-label{{paint-order:stroke;stroke:{paper};stroke-width:3px;font-weight:600}}");
    let (light, dark) = (rules(Ink::light), rules(Ink::dark));
    format!(
        "svg text{{font-family:system-ui,-apple-system,\"Segoe UI\",Roboto,\"Liberation Sans\",sans-serif}}\
         svg .dots{{stroke-linecap:round}}svg path{{stroke-linejoin:round}}{light}{}\
         @media(prefers-color-scheme:dark){{{dark}{}}}",
        halo(Ink::Paper.light()),
        halo(Ink::Paper.dark()),
    )
}
