//! Progress on stderr: a bar per stage if it is a terminal, else a plain line now and then.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::event::{Event, Observer};
use crate::terminal;

/// How often a stage may print a plain line.
const PLAIN_EVERY: Duration = Duration::from_secs(5);

/// Renders events on stderr.
pub struct Progress {
    state: Mutex<State>,
}

enum State {
    Notes,
    Bar(Option<ProgressBar>),
    Plain { began: Instant, printed: Instant, total: Option<u64>, unit: &'static str },
}

impl Progress {
    /// A bar if stderr is a terminal, plain lines if not.
    pub fn on_stderr() -> Self {
        let now = Instant::now();
        let state = match terminal::stderr_redraws() {
            true => State::Bar(None),
            false => State::Plain { began: now, printed: now, total: None, unit: "" },
        };
        Self { state: Mutex::new(state) }
    }

    /// Only the notes of the run.
    pub fn notes_alone() -> Self {
        Self { state: Mutex::new(State::Notes) }
    }
}

impl Observer for Progress {
    fn event(&self, event: &Event) {
        let mut state = self.state.lock().unwrap_or_else(|e| e.into_inner());
        match &mut *state {
            State::Notes => {
                if let Event::Note { message } = event {
                    terminal::tell(&format!("note: {message}"));
                }
            }
            State::Bar(bar) => show_bar(bar, event),
            State::Plain { began, printed, total, unit } => {
                let now = Instant::now();
                match event {
                    Event::Started { total: n, unit: u, .. } => (*began, *printed, *total, *unit) = (now, now, *n, u),
                    Event::Progress { .. } if now - *printed < PLAIN_EVERY => return,
                    Event::Progress { .. } => *printed = now,
                    _ => {}
                }
                if let Some(line) = plain_line(event, *total, unit, now - *began) {
                    terminal::tell(&line);
                }
            }
        }
    }
}

fn show_bar(bar: &mut Option<ProgressBar>, event: &Event) {
    match event {
        Event::Started { stage, unit, total } => {
            let new = match total {
                Some(n) => ProgressBar::new(*n)
                    .with_style(style("{prefix:>16} {bar:24} {pos}/{len} {unit} {elapsed}, {eta} left  {msg}", unit)),
                None => ProgressBar::new_spinner()
                    .with_style(style("{prefix:>16} {spinner} {human_pos} {unit} {elapsed}  {msg}", unit)),
            };
            new.set_prefix(stage.clone());
            new.enable_steady_tick(Duration::from_millis(200));
            *bar = Some(new);
        }
        Event::Progress { done, loss, rows_per_second, .. } => {
            if let Some(bar) = bar {
                bar.set_position(*done);
                bar.set_message(figures(*loss, *rows_per_second));
            }
        }
        Event::Finished { .. } => {
            if let Some(bar) = bar.take() {
                bar.finish_and_clear();
            }
            if let Some(line) = plain_line(event, None, "", Duration::ZERO) {
                terminal::tell(&line);
            }
        }
        Event::Warning { .. } | Event::Note { .. } => {
            let line = plain_line(event, None, "", Duration::ZERO).unwrap_or_default();
            match bar {
                Some(bar) => bar.suspend(|| terminal::tell(&line)),
                None => terminal::tell(&line),
            }
        }
    }
}

fn style(template: &str, unit: &str) -> ProgressStyle {
    ProgressStyle::with_template(&template.replace("{unit}", unit)).unwrap_or_else(|_| ProgressStyle::default_bar())
}

/// The line for an event, or `None` if plain output shows none.
fn plain_line(event: &Event, total: Option<u64>, unit: &str, elapsed: Duration) -> Option<String> {
    match event {
        Event::Started { .. } => None,
        Event::Progress { stage, done, loss, rows_per_second } => {
            let of = total.map(|n| format!("/{n}")).unwrap_or_default();
            let left = match total {
                Some(n) if *done > 0 && n > *done => {
                    let seconds = elapsed.as_secs_f64() / *done as f64 * (n - done) as f64;
                    format!(", {seconds:.0} s left")
                }
                _ => String::new(),
            };
            let figures = figures(*loss, *rows_per_second);
            Some(format!("{stage}: {done}{of} {unit}{left}  {figures}").trim_end().to_string())
        }
        Event::Finished { stage, seconds, summary } => Some(format!("{stage}: {seconds:.2} s, {summary}")),
        Event::Warning { message } => Some(format!("warning: {message}")),
        Event::Note { message } => Some(format!("note: {message}")),
    }
}

fn figures(loss: Option<f64>, rows_per_second: Option<f64>) -> String {
    let loss = loss.map(|l| format!("loss {l:.6}"));
    let rate = rows_per_second.map(|r| format!("{r:.0} rows/s"));
    loss.into_iter().chain(rate).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_lines_say_what_and_how_long() {
        let event = Event::Progress {
            stage: "autoencoder".into(),
            done: 50,
            loss: Some(0.0123456),
            rows_per_second: Some(9.6e4),
        };
        let line = plain_line(&event, Some(200), "epochs", Duration::from_secs(10)).unwrap();
        assert_eq!(line, "autoencoder: 50/200 epochs, 30 s left  loss 0.012346, 96000 rows/s");
        let event = Event::Progress { stage: "source".into(), done: 4096, loss: None, rows_per_second: None };
        assert_eq!(plain_line(&event, None, "rows", Duration::ZERO).unwrap(), "source: 4096 rows");
        let event = Event::Finished { stage: "kmeans".into(), seconds: 0.5, summary: "inertia 12.5".into() };
        assert_eq!(plain_line(&event, None, "", Duration::ZERO).unwrap(), "kmeans: 0.50 s, inertia 12.5");
    }
}
