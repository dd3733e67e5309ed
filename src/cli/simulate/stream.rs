//! `dacpipe simulate stream`: delivers a stream of simulated sensors.

use std::str::FromStr;
use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::error::Result;
use crate::seed::Seed;
use crate::simulate::{Delivered, Delivery, Pace, SensorsSpec, deliver};
use crate::source::follow::{STANDARD_INPUT, is_broker};
use crate::source::{Span, TextFormat};
use crate::terminal;

const EXAMPLES: &str = "\
Examples:
  dacpipe simulate stream --out data/incoming --sensors 8 --every '5 s'
  dacpipe simulate stream --out - --speed max --rows 1000000 --format ndjson
  dacpipe simulate stream --out mqtt://localhost:1883/plant/+/accel --rate 100 --drift '1 min'
The columns are sensor, time_us, x, y, z and state. The same seed gives the same lines, at any speed.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct StreamArgs {
    /// A directory for files, which must be empty or not exist; - for standard output; or the address of a broker, such as
    /// mqtt://host:1883/plant/+/accel, where + becomes the name of the sensor
    #[arg(long, value_name = "PLACE")]
    out: String,
    /// Number of sensors
    #[arg(long, value_name = "NUMBER", default_value_t = SensorsSpec::default().sensors)]
    sensors: usize,
    /// Lines of each sensor a second
    #[arg(long, value_name = "HZ", default_value_t = SensorsSpec::default().rate_hz)]
    rate: f64,
    /// How many times faster than the clock, or max for as fast as possible
    #[arg(long, value_name = "TIMES", default_value = "1")]
    speed: Speed,
    /// Ends after so many seconds of the stream; without it and --rows it does not end
    #[arg(long, value_name = "NUMBER")]
    seconds: Option<f64>,
    /// Ends after so many lines
    #[arg(long, value_name = "NUMBER")]
    rows: Option<u64>,
    /// The same seed gives the same lines
    #[arg(long, default_value_t = SensorsSpec::default().seed.0)]
    seed: u64,
    /// From this time of the stream on, such as "10 min", all axes are shifted
    #[arg(long, value_name = "TIME")]
    drift: Option<Span>,
    /// By how much, in g
    #[arg(long, value_name = "NUMBER", default_value_t = 0.5, requires = "drift", allow_negative_numbers = true)]
    drift_by: f64,
    /// How a line is written
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// The time of the stream that a file holds
    #[arg(long, value_name = "TIME", default_value = "1 s")]
    every: Span,
    /// Lines of a message to a broker
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    lines: usize,
}

/// How many times faster than the clock.
#[derive(Debug, Clone, Copy)]
struct Speed(Option<f64>);

impl FromStr for Speed {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match (text, text.parse::<f64>()) {
            ("max", _) => Ok(Self(None)),
            (_, Ok(times)) if times.is_finite() && times > 0.0 => Ok(Self(Some(times))),
            _ => Err("expected a positive number, or max".into()),
        }
    }
}

// No doc comments at the values: the names say it.
#[derive(Debug, Clone, Copy, Default, ValueEnum)]
enum Format {
    #[default]
    Csv,
    Ndjson,
}

/// Delivers the stream and says how much it was.
///
/// # Errors
/// Those of [`deliver`].
pub(super) fn run(args: StreamArgs) -> Result<()> {
    let StreamArgs { out, sensors, rate, speed, seconds, rows, seed, drift, drift_by, format, every, lines } = args;
    let seconds_of = |span: Span| span.nanoseconds() as f64 / 1e9;
    let drift = drift.map(|from| (seconds_of(from), drift_by));
    let spec = SensorsSpec { sensors, rate_hz: rate, drift, seed: Seed(seed) };
    let to = match &*out {
        STANDARD_INPUT => Delivery::Output,
        broker if is_broker(broker) => Delivery::Broker(out.clone(), lines),
        directory => Delivery::Files(directory.into(), Duration::from_nanos(every.nanoseconds().unsigned_abs())),
    };
    let format = match format {
        Format::Csv => TextFormat::Csv,
        Format::Ndjson => TextFormat::Ndjson,
    };
    let Delivered { rows, parts } = deliver(spec, format, &to, Pace { speed: speed.0, seconds, rows })?;
    let what = match to {
        Delivery::Files(..) => "files",
        Delivery::Broker(..) => "messages",
        Delivery::Output => return Ok(()),
    };
    terminal::say(&format!("{out}: {rows} simulated lines of {sensors} sensors in {parts} {what}"))
}
