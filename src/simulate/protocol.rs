//! What a user does in a recording, and for how long.

use rand::Rng;

use super::{Activity, Interval, around};

/// A posture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Posture {
    Stand,
    Sit,
    Lie,
}

/// The ground for walking.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Terrain {
    Level,
    Up,
    Down,
}

/// How the body moves in a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Motion {
    Hold(Posture),
    Change(Posture),
    Gait(Terrain),
    /// Between two labelled intervals: a few steps, a turn, standing.
    Gap,
}

/// A stretch of a recording.
#[derive(Debug, Clone, Copy)]
pub(super) struct Segment {
    pub motion: Motion,
    pub activity: Option<Activity>,
    pub samples: usize,
}

/// Minutes that the protocol takes with the durations below.
const USUAL_MINUTES: f64 = 4.9;

/// The protocol: postures and all six transitions between them, walks, then three times down and up the stairs.
pub(super) fn schedule(minutes: f64, rng: &mut impl Rng) -> Vec<Segment> {
    use Activity as A;
    use Posture::{Lie, Sit, Stand};
    let scale = minutes / USUAL_MINUTES;
    let mut segments = Vec::new();
    let mut add = |motion: Motion, activity: Option<Activity>| {
        let samples = duration(motion, scale, rng);
        segments.push(Segment { motion, activity, samples });
    };
    add(Motion::Gap, None);
    add(Motion::Hold(Stand), Some(A::Standing));
    for (to, change, hold) in [
        (Sit, A::StandToSit, A::Sitting),
        (Stand, A::SitToStand, A::Standing),
        (Lie, A::StandToLie, A::Laying),
        (Sit, A::LieToSit, A::Sitting),
        (Lie, A::SitToLie, A::Laying),
    ] {
        add(Motion::Change(to), Some(change));
        add(Motion::Hold(to), Some(hold));
    }
    add(Motion::Change(Stand), Some(A::LieToStand));
    for _ in 0..2 {
        add(Motion::Gap, None);
        add(Motion::Gait(Terrain::Level), Some(A::Walking));
    }
    for _ in 0..3 {
        for (terrain, activity) in [(Terrain::Down, A::WalkingDownstairs), (Terrain::Up, A::WalkingUpstairs)] {
            add(Motion::Gap, None);
            add(Motion::Gait(terrain), Some(activity));
        }
    }
    add(Motion::Gap, None);
    segments
}

/// The number of samples of a segment. Transitions are as fast in a short protocol as in a long one.
fn duration(motion: Motion, scale: f64, rng: &mut impl Rng) -> usize {
    let (mean, deviation, scale) = match motion {
        Motion::Hold(_) => (920.0, 95.0, scale),
        Motion::Change(Posture::Lie) => (215.0, 32.0, 1.0),
        Motion::Change(_) => (160.0, 24.0, 1.0),
        Motion::Gait(Terrain::Level) => (965.0, 80.0, scale),
        Motion::Gait(Terrain::Up) => (620.0, 45.0, scale),
        Motion::Gait(Terrain::Down) => (580.0, 55.0, scale),
        Motion::Gap => (250.0, 60.0, scale.max(0.5)),
    };
    (around(rng, mean, deviation) * scale).round().max(1.0) as usize
}

/// The labelled intervals of `segments`.
pub(super) fn labels(segments: &[Segment]) -> Vec<Interval> {
    let mut first = 0;
    let mut labels = Vec::new();
    for segment in segments {
        if let Some(activity) = segment.activity {
            labels.push(Interval { activity, first, last: first + segment.samples - 1 });
        }
        first += segment.samples;
    }
    labels
}
