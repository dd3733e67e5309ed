//! An endless stream of simulated vibration sensors, for machines without real ones.
//!
//! Each sensor sits on a machine that idles, runs or rubs for seconds at a time. Its three axes read a sine at the
//! machine's speed with a harmonic, as loud as the state says, with white noise; a machine that rubs knocks, too. A drift
//! shifts all axes from a time on. The sensors take turns: a line of each at every time. Times count from the beginning of
//! 2026, so that the bytes depend on the specification alone.
//!
//! ```
//! use dacpipe::simulate::{Sensors, SensorsSpec};
//! let spec = SensorsSpec { sensors: 2, rate_hz: 100.0, ..SensorsSpec::default() };
//! let lines: Vec<_> = Sensors::new(spec)?.take(4).collect();
//! assert_eq!(lines.iter().map(|line| line.sensor).collect::<Vec<_>>(), [0, 1, 0, 1]);
//! assert_eq!(lines[2].time_us - lines[0].time_us, 10_000);
//! # Ok::<(), dacpipe::Error>(())
//! ```

mod deliver;

use std::f64::consts::TAU;
use std::fmt::Write;

use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::{around, normal};
use crate::error::{Error, Result};
use crate::seed::Seed;
use crate::source::TextFormat;

pub use deliver::{Delivered, Delivery, Pace, deliver};

/// The columns of a line.
pub const COLUMNS: [&str; 6] = ["sensor", "time_us", "x", "y", "z", "state"];
/// The beginning of 2026, in microseconds since 1970.
const BEGINNING_US: i64 = 1_767_225_600_000_000;
/// What a machine does.
const STATES: [&str; 3] = ["idle", "run", "rub"];
/// How loud each state is, and how much of it is noise.
const LOUDNESS: [(f64, f64); 3] = [(0.08, 0.02), (1.0, 0.05), (1.4, 0.25)];
/// How long a state lasts, in seconds.
const LASTS: (f64, f64) = (4.0, 20.0);

/// What to simulate.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SensorsSpec {
    /// Number of sensors, from 1 to 100000.
    pub sensors: usize,
    /// Lines of each sensor a second, up to 100000.
    pub rate_hz: f64,
    /// When all axes shift, and by how much: seconds after the beginning, and g.
    pub drift: Option<(f64, f64)>,
    /// The source of every random choice.
    pub seed: Seed,
}

impl Default for SensorsSpec {
    fn default() -> Self {
        Self { sensors: 8, rate_hz: 50.0, drift: None, seed: Seed(7) }
    }
}

impl SensorsSpec {
    fn validate(&self) -> Result<()> {
        let refuse = |what: &str, value: &dyn std::fmt::Display, accepted: &str| {
            Err(Error::config(format!("cannot simulate {what} = {value}: {accepted} would be accepted")))
        };
        if !(1..=100_000).contains(&self.sensors) {
            return refuse("sensors", &self.sensors, "1 to 100000");
        }
        if !(self.rate_hz > 0.0 && self.rate_hz <= 100_000.0) {
            return refuse("rate", &self.rate_hz, "a number of lines a second up to 100000");
        }
        match self.drift {
            Some((from, by)) if !(from.is_finite() && from >= 0.0 && by.is_finite()) => {
                refuse("drift", &format!("{by} from {from} on"), "a number of g, from a time on that is not negative,")
            }
            _ => Ok(()),
        }
    }
}

/// A line of the stream.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Reading {
    /// The number of the sensor, from 0.
    pub sensor: usize,
    /// Microseconds since 1970.
    pub time_us: i64,
    /// The three axes, in g.
    pub values: [f64; 3],
    /// What the machine does.
    pub state: &'static str,
}

impl Reading {
    /// The name of its sensor.
    pub fn name(&self) -> String {
        format!("S{:04}", self.sensor + 1)
    }

    /// Appends it to `out` as a line.
    pub fn write(&self, format: TextFormat, out: &mut String) {
        let Self { time_us, values: [x, y, z], state, sensor } = self;
        let sensor = sensor + 1;
        // Writing to a string does not fail.
        let _ = match format {
            TextFormat::Csv => writeln!(out, "S{sensor:04},{time_us},{x:.4},{y:.4},{z:.4},{state}"),
            TextFormat::Ndjson => writeln!(
                out,
                "{{\"sensor\":\"S{sensor:04}\",\"time_us\":{time_us},\"x\":{x:.4},\"y\":{y:.4},\"z\":{z:.4},\
                 \"state\":\"{state}\"}}"
            ),
        };
    }
}

/// A machine with a sensor.
struct Machine {
    rng: ChaCha8Rng,
    /// Turns a second.
    speed: f64,
    offsets: [f64; 3],
    phases: [f64; 3],
    state: usize,
    /// When the state ends, in seconds.
    until: f64,
}

impl Machine {
    fn new(seed: Seed, number: usize) -> Self {
        let mut rng = seed.stream("simulate sensor", number as u64);
        let speed = around(&mut rng, 7.0, 1.0).max(2.0);
        let offsets = [0.0, 0.0, 1.0].map(|axis| axis + 0.02 * normal(&mut rng));
        let phases = std::array::from_fn(|_| TAU * rng.random::<f64>());
        let (state, until) = (rng.random_range(0..STATES.len()), rng.random_range(LASTS.0..LASTS.1));
        Self { rng, speed, offsets, phases, state, until }
    }

    /// What its sensor reads at `time` seconds.
    fn read(&mut self, time: f64) -> [f64; 3] {
        while time >= self.until {
            // Another state, each as likely.
            self.state = (self.state + self.rng.random_range(1..STATES.len())) % STATES.len();
            self.until += self.rng.random_range(LASTS.0..LASTS.1);
        }
        let (loud, noise) = LOUDNESS[self.state];
        let turn = TAU * self.speed * time;
        let knock = if self.state == 2 && self.rng.random_bool(0.05) { 0.8 } else { 0.0 };
        std::array::from_fn(|axis| {
            let phase = turn + self.phases[axis];
            let sine = phase.sin() + 0.3 * (2.0 * phase).sin();
            self.offsets[axis] + 0.5 * loud * sine + knock + noise * normal(&mut self.rng)
        })
    }
}

/// The lines of a specification, without an end, in the order of their times.
pub struct Sensors {
    spec: SensorsSpec,
    machines: Vec<Machine>,
    /// The number of the next line.
    next: u64,
}

impl Sensors {
    /// The stream of `spec`.
    ///
    /// # Errors
    /// Kind `Config` if a number of `spec` is out of its range.
    pub fn new(spec: SensorsSpec) -> Result<Self> {
        spec.validate()?;
        let machines = (0..spec.sensors).map(|number| Machine::new(spec.seed, number)).collect();
        Ok(Self { spec, machines, next: 0 })
    }
}

impl Iterator for Sensors {
    type Item = Reading;

    fn next(&mut self) -> Option<Reading> {
        let (tick, sensor) = (self.next / self.spec.sensors as u64, (self.next % self.spec.sensors as u64) as usize);
        self.next += 1;
        let time = tick as f64 / self.spec.rate_hz;
        let machine = &mut self.machines[sensor];
        let mut values = machine.read(time);
        if let Some((_, by)) = self.spec.drift.filter(|(from, _)| time >= *from) {
            values = values.map(|value| value + by);
        }
        let time_us = BEGINNING_US + (1e6 * time).round() as i64;
        Some(Reading { sensor, time_us, values, state: STATES[machine.state] })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sensor_depends_on_its_own_number_and_a_drift_begins_at_its_time() {
        let spec = SensorsSpec { sensors: 2, ..SensorsSpec::default() };
        let of = |spec: SensorsSpec, count| Sensors::new(spec).unwrap().take(count).collect::<Vec<_>>();
        let (two, three) = (of(spec, 400), of(SensorsSpec { sensors: 3, ..spec }, 600));
        let first = |lines: &[Reading]| lines.iter().filter(|line| line.sensor == 0).copied().collect::<Vec<_>>();
        assert_eq!(first(&two), first(&three));
        let drifting = of(SensorsSpec { drift: Some((2.0, 0.5)), ..spec }, 400);
        for (at, (still, drifts)) in two.iter().zip(&drifting).enumerate() {
            let by = if at < 200 { 0.0 } else { 0.5 };
            assert_eq!(drifts.values, still.values.map(|value| value + by), "{at}");
        }
    }

    #[test]
    fn states_differ_in_how_much_they_shake() {
        let spec = SensorsSpec { sensors: 4, ..SensorsSpec::default() };
        let mut squares = [(0.0, 0.0); 3];
        for line in Sensors::new(spec).unwrap().take(40_000) {
            let state = STATES.iter().position(|state| *state == line.state).unwrap();
            squares[state].0 += line.values[0].powi(2);
            squares[state].1 += 1.0;
        }
        let [idle, run, rub] = squares.map(|(sum, count)| (sum / count).sqrt());
        assert!(5.0 * idle < run && 1.2 * run < rub, "{idle} {run} {rub}");
    }

    #[test]
    fn both_formats_have_the_same_values() {
        let line = Sensors::new(SensorsSpec::default()).unwrap().next().unwrap();
        let (mut csv, mut json) = (String::new(), String::new());
        line.write(TextFormat::Csv, &mut csv);
        line.write(TextFormat::Ndjson, &mut json);
        let object: serde_json::Value = serde_json::from_str(&json).unwrap();
        let value = |name: &str| object[name].as_str().map_or_else(|| object[name].to_string(), str::to_owned);
        for (name, text) in COLUMNS.iter().zip(csv.trim_end().split(',')) {
            let same = value(name) == text || value(name).parse::<f64>().unwrap() == text.parse::<f64>().unwrap();
            assert!(same, "{name}: {text} and {json}");
        }
        assert_eq!(line.name(), "S0001");
    }

    #[test]
    fn numbers_out_of_range_are_refused() {
        let good = SensorsSpec::default();
        for bad in [
            SensorsSpec { sensors: 0, ..good },
            SensorsSpec { rate_hz: f64::NAN, ..good },
            SensorsSpec { rate_hz: 0.0, ..good },
            SensorsSpec { drift: Some((-1.0, 0.5)), ..good },
        ] {
            assert!(Sensors::new(bad).err().unwrap().to_string().contains("would be accepted"));
        }
    }
}
