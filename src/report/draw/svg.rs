//! A plotters backend that writes SVG with CSS classes as colours. Consecutive shapes of one colour become one path, so
//! that a scatter of thousands of points is a few paths with a few bytes per point.

use std::convert::Infallible;
use std::fmt::Write;

use plotters_backend::text_anchor::{HPos, VPos};
use plotters_backend::{BackendColor, BackendStyle, BackendTextStyle, DrawingBackend, DrawingErrorKind, FontTransform};

use super::ink::Ink;
use super::text::width;

/// Units of the drawing area per pixel: plotters uses whole numbers.
pub const UNITS: i32 = 10;

type Coord = (i32, i32);
type Done = Result<(), DrawingErrorKind<Infallible>>;

/// How a path is painted; consecutive shapes with the same paint are one path.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Paint {
    Fill {
        ink: Ink,
        percent: u8,
    },
    Stroke {
        ink: Ink,
        percent: u8,
        width: u32,
    },
    /// Points: lines of length zero with round ends.
    Dots {
        ink: Ink,
        percent: u8,
        width: u32,
    },
}

/// Writes shapes to a string.
pub(super) struct Svg<'a> {
    out: &'a mut String,
    size: (u32, u32),
    path: Option<(Paint, String)>,
}

impl<'a> Svg<'a> {
    /// A drawing of this many pixels, written to `out`.
    pub fn new(out: &'a mut String, (width, height): (u32, u32)) -> Self {
        Self { out, size: (width * UNITS as u32, height * UNITS as u32), path: None }
    }

    /// The path to add to.
    fn path(&mut self, paint: Paint) -> &mut String {
        if self.path.as_ref().is_some_and(|(now, _)| *now != paint) {
            self.end_path();
        }
        &mut self.path.get_or_insert_with(|| (paint, String::new())).1
    }

    fn end_path(&mut self) {
        let Some((paint, path)) = self.path.take() else { return };
        let opacity = |of: &str, percent: u8| match percent {
            100 => String::new(),
            percent => format!(" {of}-opacity=\"{}\"", f64::from(percent) / 100.0),
        };
        let _ = match paint {
            Paint::Fill { ink, percent } => {
                write!(self.out, "<path class=\"f-{}\"{} d=\"{path}\"/>", ink.class(), opacity("fill", percent))
            }
            Paint::Stroke { ink, percent, width } | Paint::Dots { ink, percent, width } => {
                let dots = if matches!(paint, Paint::Dots { .. }) { " dots" } else { "" };
                let (class, opacity) = (ink.class(), opacity("stroke", percent));
                write!(
                    self.out,
                    "<path class=\"s-{class}{dots}\"{opacity} stroke-width=\"{}\" d=\"{path}\"/>",
                    Px(width as i32)
                )
            }
        };
    }

    fn stroke<S: BackendStyle>(&mut self, style: &S) -> &mut String {
        let (ink, percent) = ink_of(style.color());
        self.path(Paint::Stroke { ink, percent, width: style.stroke_width() })
    }

    fn fill<S: BackendStyle>(&mut self, style: &S) -> &mut String {
        let (ink, percent) = ink_of(style.color());
        self.path(Paint::Fill { ink, percent })
    }
}

/// Units as pixels, with at most one decimal.
struct Px(i32);

impl std::fmt::Display for Px {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (whole, tenth) = (self.0 / UNITS, (self.0 % UNITS).abs());
        if self.0 < 0 && whole == 0 && tenth != 0 {
            f.write_str("-")?;
        }
        match tenth {
            0 => write!(f, "{whole}"),
            tenth => write!(f, "{whole}.{tenth}"),
        }
    }
}

fn ink_of(color: BackendColor) -> (Ink, u8) {
    (Ink::of_rgb(color.rgb), (color.alpha * 100.0).round().clamp(0.0, 100.0) as u8)
}

/// `text` escaped for the text and the attributes of HTML and SVG; characters that XML does not allow are replaced.
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            '\n' | '\r' | '\t' => escaped.push(' '),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => escaped.push('\u{fffd}'),
            c => escaped.push(c),
        }
    }
    escaped
}

impl DrawingBackend for Svg<'_> {
    type ErrorType = Infallible;

    fn get_size(&self) -> (u32, u32) {
        self.size
    }

    fn ensure_prepared(&mut self) -> Done {
        Ok(())
    }

    fn present(&mut self) -> Done {
        self.end_path();
        Ok(())
    }

    fn draw_pixel(&mut self, (x, y): Coord, color: BackendColor) -> Done {
        let _ = write!(self.fill(&color), "M{} {}h.1v.1h-.1z", Px(x), Px(y));
        Ok(())
    }

    fn draw_line<S: BackendStyle>(&mut self, from: Coord, to: Coord, style: &S) -> Done {
        self.draw_path([from, to], style)
    }

    fn draw_rect<S: BackendStyle>(&mut self, (x0, y0): Coord, (x1, y1): Coord, style: &S, fill: bool) -> Done {
        let path = if fill { self.fill(style) } else { self.stroke(style) };
        let (w, h) = (x1 - x0, y1 - y0);
        let _ = write!(path, "M{} {}h{}v{}h{}z", Px(x0), Px(y0), Px(w), Px(h), Px(-w));
        Ok(())
    }

    fn draw_path<S: BackendStyle, I: IntoIterator<Item = Coord>>(&mut self, points: I, style: &S) -> Done {
        let path = self.stroke(style);
        for (i, (x, y)) in points.into_iter().enumerate() {
            let _ = write!(path, "{}{} {}", if i == 0 { 'M' } else { 'L' }, Px(x), Px(y));
        }
        Ok(())
    }

    fn draw_circle<S: BackendStyle>(&mut self, (x, y): Coord, radius: u32, style: &S, _: bool) -> Done {
        let (ink, percent) = ink_of(style.color());
        let _ = write!(self.path(Paint::Dots { ink, percent, width: 2 * radius }), "M{} {}h0", Px(x), Px(y));
        Ok(())
    }

    fn fill_polygon<S: BackendStyle, I: IntoIterator<Item = Coord>>(&mut self, corners: I, style: &S) -> Done {
        let path = self.fill(style);
        for (i, (x, y)) in corners.into_iter().enumerate() {
            let _ = write!(path, "{}{} {}", if i == 0 { 'M' } else { 'L' }, Px(x), Px(y));
        }
        path.push('z');
        Ok(())
    }

    fn draw_text<S: BackendTextStyle>(&mut self, text: &str, style: &S, (x, y): Coord) -> Done {
        self.end_path();
        let (ink, _) = ink_of(style.color());
        let size = style.size();
        let anchor = match style.anchor().h_pos {
            HPos::Left => "",
            HPos::Center => " text-anchor=\"middle\"",
            HPos::Right => " text-anchor=\"end\"",
        };
        // From the anchor of the text to its baseline: letters are about .72 of the size high.
        let down = match style.anchor().v_pos {
            VPos::Top => 0.74 * size,
            VPos::Center => 0.36 * size,
            VPos::Bottom => -0.04 * size,
        };
        let (degrees, (dx, dy)) = match style.transform() {
            FontTransform::None => (0, (0.0, down)),
            FontTransform::Rotate90 => (90, (-down, 0.0)),
            FontTransform::Rotate180 => (180, (0.0, -down)),
            FontTransform::Rotate270 => (270, (down, 0.0)),
        };
        let (x, y) = (x + dx as i32, y + dy as i32);
        let class = ink.class();
        let turn = match degrees {
            0 => String::new(),
            degrees => format!(" transform=\"rotate({degrees} {} {})\"", Px(x), Px(y)),
        };
        let _ = write!(
            self.out,
            "<text class=\"f-{class}\" x=\"{}\" y=\"{}\" font-size=\"{}\"{anchor}{turn}>{}</text>",
            Px(x),
            Px(y),
            Px(size as i32),
            escape(text)
        );
        Ok(())
    }

    fn estimate_text_size<S: BackendTextStyle>(
        &self,
        text: &str,
        style: &S,
    ) -> Result<(u32, u32), DrawingErrorKind<Infallible>> {
        Ok((width(text, style.size()) as u32, style.size() as u32))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_written_as_pixels() {
        let texts = [0, 10, 15, -5, -15, -10, 1234].map(|units| Px(units).to_string());
        assert_eq!(texts, ["0", "1", "1.5", "-0.5", "-1.5", "-1", "123.4"]);
    }

    #[test]
    fn nothing_escaped_is_markup() {
        let text = escape("<script>alert(\"a\" & 'b')</script>\u{0}\n");
        assert_eq!(text, "&lt;script&gt;alert(&quot;a&quot; &amp; &#39;b&#39;)&lt;/script&gt;\u{fffd} ");
    }
}
