//! What was seen of a stream so far.

use std::collections::VecDeque;

use crate::live::exposition::Exposition;

/// The most seconds of which rows a second are kept.
const MOST_RATES: usize = 600;

/// A stream that is watched.
#[derive(Debug, Clone)]
pub(super) struct Watched {
    pub place: String,
    /// The newest figures.
    pub now: Option<Exposition>,
    /// Rows a second between fetches, the newest last.
    pub rates: VecDeque<f64>,
    /// Why there are no newer figures, and since when, in seconds from the beginning.
    pub problem: Option<(String, f64)>,
    /// When the newest figures came, in seconds from the beginning.
    at: f64,
    /// Now.
    pub clock: f64,
}

impl Watched {
    pub fn new(place: &str) -> Self {
        let place = place.to_owned();
        Self { place, now: None, rates: VecDeque::new(), problem: None, at: 0.0, clock: 0.0 }
    }

    /// Adds the figures at `seconds` from the beginning.
    pub fn add(&mut self, seconds: f64, figures: Result<Exposition, String>) {
        self.clock = seconds;
        let figures = match figures {
            Ok(figures) => figures,
            Err(why) => {
                let since = self.problem.take().map_or(seconds, |(_, since)| since);
                self.problem = Some((why, since));
                return;
            }
        };
        const ROWS: &str = "dacpipe_rows_labelled_total";
        let before = self.now.as_ref().and_then(|before| before.value(ROWS, &[]));
        if let (Some(before), Some(rows)) = (before, figures.value(ROWS, &[]))
            && seconds > self.at
        {
            // A stream that was started again counts from 0.
            self.rates.push_back((if rows < before { rows } else { rows - before }) / (seconds - self.at));
            if self.rates.len() > MOST_RATES {
                self.rates.pop_front();
            }
        }
        (self.now, self.problem, self.at) = (Some(figures), None, seconds);
    }

    /// A figure without labels.
    pub fn value(&self, name: &str) -> Option<f64> {
        self.now.as_ref()?.value(name, &[])
    }

    /// The figures of this name by a label, the greatest first.
    pub fn by(&self, name: &str, key: &str) -> Vec<(String, f64)> {
        let Some(now) = &self.now else { return Vec::new() };
        let shown = |label: &str| label.chars().filter(|c| !c.is_control()).collect::<String>();
        let mut found: Vec<(String, f64)> = now.by(name, key).map(|(label, value)| (shown(label), value)).collect();
        found.sort_by(|a, b| b.1.total_cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        found
    }

    /// The mean of a histogram, and the value that 99 of 100 stay below, as far as its buckets tell.
    pub fn seconds(&self, name: &str) -> Option<(f64, f64)> {
        let count = self.value(&format!("{name}_count")).filter(|count| *count > 0.0)?;
        let mean = self.value(&format!("{name}_sum"))? / count;
        let buckets = format!("{name}_bucket");
        let buckets = self.now.as_ref()?.by(&buckets, "le").filter_map(|(le, n)| Some((le.parse::<f64>().ok()?, n)));
        let below = buckets.filter(|(_, n)| *n >= 0.99 * count).map(|(le, _)| le).fold(f64::INFINITY, f64::min);
        Some((mean, below))
    }
}
