//! Where a stream of simulated sensors goes, and how fast.

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::{COLUMNS, Reading, Sensors, SensorsSpec};
use crate::error::{Error, Result};
use crate::source::TextFormat;
#[cfg(feature = "mqtt")]
use crate::source::follow::Publisher;
use crate::terminal;

/// How many lines are written at a time where nothing waits for them.
const LINES: usize = 4096;

/// Where the lines go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Delivery {
    /// Files in this directory, each of the lines of so much time. A file is written under another name, which begins with
    /// a dot, and renamed once it is complete.
    Files(PathBuf, Duration),
    /// Standard output.
    Output,
    /// A broker, as `mqtt://host:1883/plant/+/accel`: `+` becomes the name of the sensor. A message has so many lines of a
    /// sensor, or of all of them if there is no `+`.
    Broker(String, usize),
}

/// How fast the lines go, and when they end.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Pace {
    /// How many times faster than the clock; `None` is as fast as they are taken.
    pub speed: Option<f64>,
    /// The end, in seconds of the stream; `None` if that is no end.
    pub seconds: Option<f64>,
    /// The end, in lines.
    pub rows: Option<u64>,
}

/// What was delivered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Delivered {
    /// Lines.
    pub rows: u64,
    /// Files or messages.
    pub parts: u64,
}

/// Delivers the stream of `spec` in `format`, until its end. Blocks.
///
/// # Errors
/// Kind `Config` for a number out of its range, a directory that has files of a stream already, or an address that is
/// none; `Io` if something cannot be written.
pub fn deliver(spec: SensorsSpec, format: TextFormat, to: &Delivery, pace: Pace) -> Result<Delivered> {
    if pace.speed.is_some_and(|speed| !(speed.is_finite() && speed > 0.0)) {
        return Err(Error::config("cannot simulate at this speed: a positive number or max would be accepted"));
    }
    if pace.seconds.is_some_and(|seconds| !(seconds.is_finite() && seconds >= 0.0)) {
        return Err(Error::config("cannot simulate so many seconds: a number that is not negative would be accepted"));
    }
    let mut sensors = Sensors::new(spec)?;
    let ticks = pace.seconds.map(|seconds| (seconds * spec.rate_hz).round() as u64);
    let rows = ticks.map(|ticks| ticks.saturating_mul(spec.sensors as u64));
    let rows = [rows, pace.rows].into_iter().flatten().min().unwrap_or(u64::MAX);
    let mut out = Out::open(to, format, &spec)?;
    let (began, mut left) = (Instant::now(), rows);
    while left > 0 {
        // The lines of one time, or, where nobody waits, of several.
        let per_tick = spec.sensors;
        let ticks = if pace.speed.is_some() { 1 } else { (LINES / per_tick).max(1) };
        let count = ((ticks * per_tick) as u64).min(left);
        let due = (rows - left) as f64 / (per_tick as f64 * spec.rate_hz);
        if let Some(speed) = pace.speed {
            wait(Duration::try_from_secs_f64(due / speed).unwrap_or(Duration::MAX).saturating_sub(began.elapsed()));
        }
        for line in sensors.by_ref().take(usize::try_from(count).unwrap_or(LINES)) {
            out.line(&line)?;
        }
        left -= count;
        if !out.goes_on(pace.speed.is_some())? {
            break;
        }
    }
    let parts = out.finish()?;
    Ok(Delivered { rows: rows - left, parts })
}

#[allow(clippy::disallowed_methods, reason = "a stream at the rate of a clock waits for it")]
fn wait(left: Duration) {
    if !left.is_zero() {
        std::thread::sleep(left);
    }
}

/// An open delivery.
enum Out {
    Files(Files),
    Output(terminal::Output<std::io::BufWriter<std::io::Stdout>>, TextFormat, String),
    #[cfg(feature = "mqtt")]
    Broker(Messages),
}

impl Out {
    fn open(to: &Delivery, format: TextFormat, spec: &SensorsSpec) -> Result<Self> {
        let header = if format == TextFormat::Csv { format!("{}\n", COLUMNS.join(",")) } else { String::new() };
        match to {
            Delivery::Files(directory, every) => {
                let lines = (every.as_secs_f64() * spec.rate_hz * spec.sensors as f64).round().max(1.0) as u64;
                Ok(Self::Files(Files::open(directory.clone(), format, header, lines)?))
            }
            Delivery::Output => Ok(Self::Output(terminal::stdout(), format, header)),
            #[cfg(feature = "mqtt")]
            Delivery::Broker(address, lines) => {
                Ok(Self::Broker(Messages::open(address, format, *lines, spec.sensors)?))
            }
            #[cfg(not(feature = "mqtt"))]
            Delivery::Broker(..) => {
                Err(Error::config("this build does not write to brokers; expected a build with --features mqtt"))
            }
        }
    }

    fn line(&mut self, line: &Reading) -> Result<()> {
        match self {
            Self::Files(files) => files.line(line),
            Self::Output(_, format, text) => {
                line.write(*format, text);
                Ok(())
            }
            #[cfg(feature = "mqtt")]
            Self::Broker(messages) => messages.line(line),
        }
    }

    /// Passes on what is there. Whether anybody takes more.
    fn goes_on(&mut self, now: bool) -> Result<bool> {
        match self {
            Self::Files(_) => Ok(true),
            Self::Output(out, _, text) => {
                let io = |e: std::io::Error| Error::io(e.to_string());
                out.write_all(text.as_bytes()).map_err(io)?;
                text.clear();
                if now {
                    out.flush().map_err(io)?;
                }
                Ok(!out.closed())
            }
            #[cfg(feature = "mqtt")]
            Self::Broker(_) => Ok(true),
        }
    }

    fn finish(self) -> Result<u64> {
        match self {
            Self::Files(mut files) => {
                files.complete()?;
                Ok(files.written)
            }
            Self::Output(mut out, ..) => {
                out.flush().map_err(|e| Error::io(e.to_string()))?;
                Ok(1)
            }
            #[cfg(feature = "mqtt")]
            Self::Broker(messages) => messages.finish(),
        }
    }
}

/// Files of a directory.
struct Files {
    directory: PathBuf,
    format: TextFormat,
    header: String,
    /// Lines of a file.
    lines: u64,
    text: String,
    count: u64,
    written: u64,
}

impl Files {
    fn open(directory: PathBuf, format: TextFormat, header: String, lines: u64) -> Result<Self> {
        let shown = terminal::shown_name(&directory);
        let io = |e| Error::io(format!("{shown}: cannot be written")).with_source(e);
        fs::create_dir_all(&directory).map_err(io)?;
        if let Some(first) = fs::read_dir(&directory).map_err(io)?.next() {
            let first = terminal::shown_name(first.map_err(io)?.file_name());
            return Err(Error::config(format!("{shown}: {first} is there, expected a directory that is empty or new")));
        }
        Ok(Self { directory, format, header, lines, text: String::new(), count: 0, written: 0 })
    }

    fn line(&mut self, line: &Reading) -> Result<()> {
        if self.count == 0 {
            self.text.push_str(&self.header);
        }
        line.write(self.format, &mut self.text);
        self.count += 1;
        if self.count == self.lines { self.complete() } else { Ok(()) }
    }

    /// Writes the lines that are there as a file.
    fn complete(&mut self) -> Result<()> {
        if self.count == 0 {
            return Ok(());
        }
        let ending = if self.format == TextFormat::Csv { "csv" } else { "ndjson" };
        let name = format!("stream-{:08}.{ending}", self.written + 1);
        let (hidden, path) = (self.directory.join(format!(".{name}.part")), self.directory.join(&name));
        let io = |e| Error::io(format!("{}: cannot be written", terminal::shown_name(&path))).with_source(e);
        fs::write(&hidden, &self.text).map_err(io)?;
        fs::rename(&hidden, &path).map_err(io)?;
        self.text.clear();
        (self.count, self.written) = (0, self.written + 1);
        Ok(())
    }
}

/// Messages to a broker.
#[cfg(feature = "mqtt")]
struct Messages {
    publisher: Publisher,
    format: TextFormat,
    /// Lines of a message.
    lines: usize,
    /// The lines that wait, by sensor; of all in one place if the topic is one.
    waiting: Vec<(String, usize)>,
}

#[cfg(feature = "mqtt")]
impl Messages {
    fn open(address: &str, format: TextFormat, lines: usize, sensors: usize) -> Result<Self> {
        if lines == 0 {
            return Err(Error::config("cannot simulate messages of 0 lines: 1 or more would be accepted"));
        }
        let publisher = Publisher::connect(address)?;
        let places = if publisher.has_wildcard() { sensors } else { 1 };
        Ok(Self { publisher, format, lines, waiting: vec![(String::new(), 0); places] })
    }

    fn line(&mut self, line: &Reading) -> Result<()> {
        let at = if self.waiting.len() == 1 { 0 } else { line.sensor };
        let (text, count) = &mut self.waiting[at];
        line.write(self.format, text);
        *count += 1;
        if *count < self.lines {
            return Ok(());
        }
        *count = 0;
        self.publisher.publish(&line.name(), std::mem::take(text).into_bytes())
    }

    fn finish(mut self) -> Result<u64> {
        for (at, (text, _)) in std::mem::take(&mut self.waiting).into_iter().enumerate() {
            if !text.is_empty() {
                self.publisher.publish(&format!("S{:04}", at + 1), text.into_bytes())?;
            }
        }
        self.publisher.finish()
    }
}
