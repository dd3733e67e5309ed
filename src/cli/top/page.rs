//! The page: rows a second over time, and below it what the stream does.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Paragraph, Sparkline};

use super::watched::Watched;

/// The least width with two columns.
const WIDE: u16 = 64;

/// Draws the page; in color, if the terminal has any.
pub(super) fn draw(frame: &mut Frame, watched: &Watched, colors: bool) {
    let page = Page { watched, colors };
    let parts = [Constraint::Length(2), Constraint::Length(6), Constraint::Length(7), Constraint::Min(0)];
    let [head, rates, figures, rest] = Layout::vertical(parts).areas(frame.area());
    frame.render_widget(Paragraph::new(page.head()), head);
    page.rates(frame, rates);
    let block = |title: String| Block::bordered().title(title);
    frame.render_widget(Paragraph::new(page.figures()).block(block(" stream ".into())), figures);
    let (left, right) = match rest.width >= WIDE {
        true => {
            let [left, right] = Layout::horizontal([Constraint::Percentage(50); 2]).areas(rest);
            (left, right)
        }
        false => {
            let [left, right] = Layout::vertical([Constraint::Percentage(50); 2]).areas(rest);
            (left, right)
        }
    };
    let clusters = watched.by("dacpipe_cluster_rows_total", "cluster");
    let lines = page.bars(&clusters, left.width.saturating_sub(2), &|value| whole(value));
    frame.render_widget(Paragraph::new(lines).block(block(" rows by cluster ".into())), left);
    let reasons = watched.by("dacpipe_rows_set_aside_total", "reason");
    let set_aside = u16::try_from(reasons.len()).unwrap_or(u16::MAX).saturating_add(2).max(3).min(right.height / 2 + 1);
    let [drift, aside] = Layout::vertical([Constraint::Min(0), Constraint::Length(set_aside)]).areas(right);
    frame.render_widget(Paragraph::new(page.drift()).block(block(page.drift_title())), drift);
    let lines = match reasons.is_empty() {
        true => vec![Line::from("nothing")],
        false => reasons.iter().map(|(reason, rows)| Line::from(format!("{:>8}  {reason}", whole(*rows)))).collect(),
    };
    frame.render_widget(Paragraph::new(lines).block(block(" set aside, by reason ".into())), aside);
}

struct Page<'a> {
    watched: &'a Watched,
    colors: bool,
}

impl Page<'_> {
    fn style(&self, color: Color) -> Style {
        if self.colors { Style::new().fg(color) } else { Style::new() }
    }

    fn head(&self) -> Vec<Line<'static>> {
        let of = |name: &str, key: &str| self.watched.by(name, key).into_iter().next().map(|(label, _)| label);
        let pipeline = of("dacpipe_build_info", "pipeline").unwrap_or_else(|| "a stream".into());
        let model = of("dacpipe_model_active", "model").unwrap_or_default();
        let model: String = model.chars().take(16).collect();
        let name = Span::styled(pipeline, Style::new().add_modifier(Modifier::BOLD));
        let place = format!(" at {}   q ends", self.watched.place);
        let second = match &self.watched.problem {
            Some((why, since)) => {
                let seconds = (self.watched.clock - since).max(0.0);
                let when = if self.watched.now.is_some() { "gone" } else { "not there" };
                let said = format!("{when} for {seconds:.0} s: {why}; trying again");
                Line::from(Span::styled(said, self.style(Color::Red)))
            }
            None if self.watched.now.is_none() => Line::from("connecting"),
            None => {
                let version = self.watched.value("dacpipe_table_version").unwrap_or_default();
                Line::from(format!("model {model}   version {}", whole(version)))
            }
        };
        vec![Line::from(vec![name, Span::from(place)]), second]
    }

    fn rates(&self, frame: &mut Frame, area: Rect) {
        let rates = &self.watched.rates;
        let width = usize::from(area.width.saturating_sub(2));
        let shown: Vec<u64> =
            rates.iter().skip(rates.len().saturating_sub(width)).map(|rate| rate.round() as u64).collect();
        let title = match rates.back() {
            Some(now) => {
                let most = shown.iter().copied().max().unwrap_or_default();
                format!(" rows/s: {}, at most {} ", whole(*now), whole(most as f64))
            }
            None => " rows/s ".to_owned(),
        };
        let line = Sparkline::default().data(shown).style(self.style(Color::Cyan));
        frame.render_widget(line.block(Block::bordered().title(title)), area);
    }

    fn figures(&self) -> Vec<Line<'static>> {
        let count = |name: &str| whole(self.watched.value(name).unwrap_or_default());
        let histogram = |name: &str| match self.watched.seconds(name) {
            Some((mean, below)) if below.is_infinite() => format!("{} (1 % above 65 s)", seconds(mean)),
            Some((mean, below)) => format!("{} (99 % below {})", seconds(mean), seconds(below)),
            None => "-".to_owned(),
        };
        let set_aside: f64 =
            self.watched.by("dacpipe_rows_set_aside_total", "reason").iter().map(|(_, rows)| rows).sum();
        let lag = seconds(self.watched.value("dacpipe_lag_seconds").unwrap_or_default());
        let memory = self
            .watched
            .value("process_resident_memory_bytes")
            .map_or("-".to_owned(), |bytes| bytesize::ByteSize::b(bytes as u64).display().si().to_string());
        vec![
            Line::from(format!(
                "rows     {} labelled of {} read",
                count("dacpipe_rows_labelled_total"),
                count("dacpipe_rows_read_total")
            )),
            Line::from(format!("         {} set aside   memory {memory}", whole(set_aside))),
            Line::from(format!("lag      {lag}, {} rows", count("dacpipe_lag_rows"))),
            Line::from(format!("batch    {}", histogram("dacpipe_batch_seconds"))),
            Line::from(format!(
                "commit   {}   {} commits",
                histogram("dacpipe_commit_seconds"),
                count("dacpipe_commits_total")
            )),
        ]
    }

    /// A line with a bar for each.
    fn bars(&self, of: &[(String, f64)], width: u16, shown: &dyn Fn(f64) -> String) -> Vec<Line<'static>> {
        let names = of.iter().map(|(name, _)| name.chars().count()).max().unwrap_or_default().min(24);
        let values = of.iter().map(|(_, value)| shown(*value).len()).max().unwrap_or_default();
        let most = of.iter().map(|(_, value)| *value).fold(0.0, f64::max);
        let room = usize::from(width).saturating_sub(names + values + 2);
        let line = |(name, value): &(String, f64)| {
            let name: String = name.chars().take(names).collect();
            let full = if most > 0.0 { (value / most * room as f64).round() as usize } else { 0 };
            let bar = format!("{}{}", "█".repeat(full.min(room)), " ".repeat(room - full.min(room)));
            Line::from(vec![
                Span::from(format!("{name:>names$} ")),
                Span::styled(bar, self.style(Color::Green)),
                Span::from(format!(" {:>values$}", shown(*value))),
            ])
        };
        of.iter().map(line).collect()
    }

    fn thresholds(&self) -> Option<(f64, f64)> {
        let now = self.watched.now.as_ref()?;
        let of = |level| now.value("dacpipe_drift_threshold", &[("level", level)]);
        Some((of("watch")?, of("act")?))
    }

    fn drift_title(&self) -> String {
        match self.thresholds() {
            Some((watch, act)) => format!(" drift (watch {watch}, act {act}) "),
            None => " drift ".to_owned(),
        }
    }

    fn drift(&self) -> Vec<Line<'static>> {
        let Some((watch, act)) = self.thresholds() else { return vec![Line::from("not measured yet")] };
        let line = |(name, psi): (String, f64), indent: &str| {
            let (said, color) = match psi {
                psi if psi >= act => ("act", Color::Red),
                psi if psi >= watch => ("watch", Color::Yellow),
                _ => ("", Color::Reset),
            };
            let name: String = format!("{indent}{name}").chars().take(22).collect();
            Line::from(Span::styled(format!("{name:<22} {psi:>7.3} {said}"), self.style(color)))
        };
        let mut lines: Vec<Line> =
            self.watched.by("dacpipe_drift_psi", "measure").into_iter().map(|of| line(of, "")).collect();
        lines.extend(self.watched.by("dacpipe_drift_feature_psi", "feature").into_iter().map(|of| line(of, "  ")));
        lines
    }
}

/// A number with a space between its thousands.
fn whole(value: f64) -> String {
    // Not a zero with a sign, as the sum of nothing is.
    let digits = format!("{:.0}", value.abs());
    let first = digits.len() % 3;
    let (head, tail) = digits.split_at(first);
    let mut groups: Vec<&str> = if head.is_empty() { Vec::new() } else { vec![head] };
    groups.extend((0..tail.len()).step_by(3).map(|at| &tail[at..at + 3]));
    groups.join(" ")
}

/// Seconds in a unit that fits.
fn seconds(value: f64) -> String {
    match value {
        v if v < 1.0 => format!("{:.0} ms", v * 1e3),
        v if v < 120.0 => format!("{v:.1} s"),
        v if v < 7200.0 => format!("{:.0} min", v / 60.0),
        v if v < 172_800.0 => format!("{:.0} h", v / 3600.0),
        v => format!("{:.0} days", v / 86_400.0),
    }
}
