//! Interpolates a recording at another rate to the rate of the pipeline.

use crate::source::keep::Values;
use crate::source::recording::{Edge, Interval, Recording};

/// Resamples `recording`, whose samples are about `step` nanoseconds apart, to one sample each `period`. A new sample
/// is interpolated linearly between its two neighbours, and has the label and the carried columns of the one before it.
/// Faster recordings are thinned without a low-pass filter.
///
/// Steps of more than `gap` times `step` are gaps: each stretch between them becomes a recording of its own. A sample
/// next to a bad one is bad.
pub(super) fn resample(recording: &Recording, step: f64, period: f64, gap: f64) -> Vec<Recording> {
    let Recording { times, bad, .. } = recording;
    let good: Vec<usize> = (0..recording.len()).filter(|i| bad.binary_search(i).is_err()).collect();
    let breaks =
        |pair: &[usize]| (times[pair[1]] - times[pair[0]]) as f64 > (gap + (pair[1] - pair[0] - 1) as f64) * step;
    let mut stretches: Vec<&[usize]> = Vec::new();
    let mut rest = good.as_slice();
    while !rest.is_empty() {
        let end = rest.windows(2).position(breaks).map_or(rest.len(), |at| at + 1);
        stretches.push(&rest[..end]);
        rest = &rest[end..];
    }
    let last = stretches.len().saturating_sub(1);
    let resampled = stretches.iter().enumerate().map(|(i, samples)| {
        let [before, after] = recording.edges;
        let edges = [if i == 0 { before } else { Edge::Gap }, if i == last { after } else { Edge::Gap }];
        Recording { edges, ..stretch(recording, samples, period) }
    });
    resampled.collect()
}

/// The samples `of` the recording, which are ascending and good, resampled.
fn stretch(recording: &Recording, of: &[usize], period: f64) -> Recording {
    let Recording { times, channels, intervals, kept, .. } = recording;
    let (first, last) = (times[of[0]], times[of[of.len() - 1]]);
    // The last sample must not be lost to rounding.
    let count = 1 + ((last - first) as f64 / period + 1e-6) as usize;
    let mut new = Recording {
        constants: recording.constants.clone(),
        channels: vec![Vec::with_capacity(count); channels.len()],
        times: Vec::with_capacity(count),
        edges: recording.edges,
        kept: vec![Values::default(); kept.len()],
        ..Recording::default()
    };
    let mut at = 0;
    for sample in 0..count {
        let time = first as f64 + sample as f64 * period;
        while at + 2 < of.len() && times[of[at + 1]] as f64 <= time {
            at += 1;
        }
        let (from, to) = (of[at], of[(at + 1).min(of.len() - 1)]);
        let span = (times[to] - times[from]) as f64;
        let part = if span > 0.0 { ((time - times[from] as f64) / span).clamp(0.0, 1.0) } else { 0.0 };
        for (channel, old) in new.channels.iter_mut().zip(channels) {
            channel.push(old[from] + part * (old[to] - old[from]));
        }
        new.times.push(time.round() as i64);
        if to - from > 1 && part > 0.0 && part < 1.0 {
            new.bad.push(sample);
        }
        let nearest = if part < 1.0 { from } else { to };
        for (new, old) in new.kept.iter_mut().zip(kept) {
            new.set_from(sample, old, nearest);
        }
        let (_, line) = recording.places.of(nearest);
        new.places.set(sample, &recording.places.file(nearest), line);
        let label = intervals.get(intervals.partition_point(|i| i.end <= nearest));
        if let Some(interval) = label.filter(|i| i.first <= nearest) {
            match new.intervals.last_mut() {
                Some(run) if run.end == sample && run.label == interval.label => run.end += 1,
                _ => new.intervals.push(Interval { label: interval.label.clone(), first: sample, end: sample + 1 }),
            }
        }
    }
    new
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Samples at these times, whose value is the time.
    fn recording(times: &[i64], bad: &[usize], labels: &[(&str, usize, usize)]) -> Recording {
        let interval = |&(label, first, end): &(&str, usize, usize)| Interval { label: label.into(), first, end };
        Recording {
            channels: vec![times.iter().map(|&t| t as f64).collect()],
            times: times.to_vec(),
            intervals: labels.iter().map(interval).collect(),
            bad: bad.to_vec(),
            edges: [Edge::End, Edge::Back],
            ..Recording::default()
        }
    }

    #[test]
    fn samples_are_interpolated_and_gaps_stay_gaps() {
        let slow = recording(&[0, 40, 80, 400, 440], &[], &[("walk", 0, 2), ("run", 2, 5)]);
        let new = resample(&slow, 40.0, 20.0, 1.5);
        let values: Vec<_> = new.iter().map(|r| r.channels[0].clone()).collect();
        assert_eq!(values, [vec![0.0, 20.0, 40.0, 60.0, 80.0], vec![400.0, 420.0, 440.0]]);
        assert_eq!(new.iter().map(|r| r.edges).collect::<Vec<_>>(), [[Edge::End, Edge::Gap], [Edge::Gap, Edge::Back]]);
        let runs: Vec<_> = new[0].intervals.iter().map(|i| (&*i.label, i.first, i.end)).collect();
        assert_eq!(runs, [("walk", 0, 4), ("run", 4, 5)]);
        assert_eq!(new[1].times, [400, 420, 440]);
        let fast = recording(&(0..11).map(|i| 10 * i).collect::<Vec<_>>(), &[], &[]);
        assert_eq!(resample(&fast, 10.0, 25.0, 1.5)[0].channels[0], [0.0, 25.0, 50.0, 75.0, 100.0]);
        assert_eq!(resample(&recording(&[7], &[], &[]), 10.0, 25.0, 1.5)[0].channels[0], [7.0]);
    }

    #[test]
    fn a_sample_beside_a_bad_one_is_bad() {
        let slow = recording(&[0, 40, 40, 120, 160], &[2], &[]);
        let new = &resample(&slow, 40.0, 20.0, 1.5)[0];
        assert_eq!(new.bad, [3, 4, 5]);
        assert_eq!(new.len(), 9);
    }
}
