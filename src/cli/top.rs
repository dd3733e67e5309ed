//! `dacpipe top`: a running stream in the terminal.

mod fetch;
mod page;
mod watched;

use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, Instant};

use clap::Args;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};

use crate::error::{Error, Result};
use crate::live::exposition::Exposition;
use crate::terminal;
use fetch::{Place, fetch};
use watched::Watched;

const EXAMPLES: &str = "\
Examples:
  dacpipe run pipelines/sensor-csv.toml --follow --metrics 127.0.0.1:9464
  dacpipe top
  dacpipe top http://sensors.local:9464/metrics";

/// How often the figures are fetched.
const EVERY: Duration = Duration::from_secs(1);
/// The size of a page that goes to no terminal.
const PLAIN: (u16, u16) = (80, 24);

/// Watch a running stream in the terminal
///
/// Shows rows a second, how far the stream is behind, how long commits take, the sizes of clusters, drift, and what was set
/// aside, from the /metrics of dacpipe run --follow --metrics. The key q ends it. If the stream ends, it says so and tries
/// again. Without a terminal it prints the page once.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct TopArgs {
    /// The address that the stream serves at, or the URL of its metrics
    #[arg(value_name = "URL", default_value = "127.0.0.1:9464")]
    url: String,
}

/// Shows the page until it is ended, or once.
pub fn run(args: &TopArgs) -> Result<()> {
    let place = Place::parse(&args.url)?;
    let mut watched = Watched::new(&place.shown());
    if !terminal::stdout_draws() {
        return print(&place, &mut watched);
    }
    let mut screen = ratatui::try_init().map_err(|e| Error::io("cannot draw in this terminal").with_source(e))?;
    let fetched = fetching(place);
    let shown = watch(&mut screen, &fetched, &mut watched);
    ratatui::restore();
    shown
}

/// The figures, as they come.
fn fetching(place: Place) -> Receiver<Result<Exposition, String>> {
    let (send, fetched) = sync_channel(1);
    // It ends with the process, or once nobody receives.
    std::thread::spawn(move || {
        loop {
            let began = Instant::now();
            if send.send(fetch(&place)).is_err() {
                return;
            }
            pause(EVERY.saturating_sub(began.elapsed()));
        }
    });
    fetched
}

fn watch(
    screen: &mut ratatui::DefaultTerminal,
    fetched: &Receiver<Result<Exposition, String>>,
    watched: &mut Watched,
) -> Result<()> {
    const KEYS: Duration = Duration::from_millis(100);
    let cannot = |e: std::io::Error| Error::io("the terminal").with_source(e);
    let (began, colors) = (Instant::now(), terminal::stdout_has_colors());
    loop {
        while let Ok(figures) = fetched.try_recv() {
            watched.add(began.elapsed().as_secs_f64(), figures);
        }
        screen.draw(|frame| page::draw(frame, watched, colors)).map_err(cannot)?;
        if event::poll(KEYS).map_err(cannot)?
            && let Event::Key(key) = event::read().map_err(cannot)?
            && key.kind != KeyEventKind::Release
        {
            let interrupts = key.modifiers.contains(KeyModifiers::CONTROL) && key.code == KeyCode::Char('c');
            if interrupts || matches!(key.code, KeyCode::Char('q' | 'Q') | KeyCode::Esc) {
                return Ok(());
            }
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "a page of every second waits for the next one")]
fn pause(time: Duration) {
    std::thread::sleep(time);
}

/// Prints the page once, from the figures of a second.
fn print(place: &Place, watched: &mut Watched) -> Result<()> {
    let began = Instant::now();
    let first = fetch(place).map_err(|why| Error::io(format!("{}: {why}", place.shown())))?;
    watched.add(0.0, Ok(first));
    pause(EVERY);
    watched.add(began.elapsed().as_secs_f64(), fetch(place));
    terminal::say(&plain(watched, PLAIN.0, PLAIN.1)?)
}

/// The page as text.
fn plain(watched: &Watched, width: u16, height: u16) -> Result<String> {
    let cannot = |e: std::convert::Infallible| Error::internal(format!("drawing a page as text: {e}"));
    let mut page = Terminal::new(TestBackend::new(width, height)).map_err(cannot)?;
    page.draw(|frame| page::draw(frame, watched, false)).map_err(cannot)?;
    let cells = page.backend().buffer().content();
    let lines = cells.chunks(usize::from(width.max(1)));
    let lines = lines.map(|line| line.iter().map(|cell| cell.symbol()).collect::<String>().trim_end().to_owned());
    Ok(lines.collect::<Vec<_>>().join("\n").trim_end().to_owned())
}

#[cfg(test)]
mod tests;
