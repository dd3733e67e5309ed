//! The body in motion: trunk angles, turning and acceleration, sample by sample.

use std::f64::consts::{PI, TAU};

use rand::Rng;

use super::protocol::{Motion, Posture, Segment, Terrain};
use super::subject::{Gait, Pose, Subject, Wave};
use super::{RATE_HZ, around, normal};

const STEP: f64 = 1.0 / RATE_HZ;
/// One g in metres per second squared.
const GRAVITY: f64 = 9.80665;
/// Frequency in Hz and decay time in seconds of the ringing after a heel strike.
const RINGING: (f64, f64) = (11.0, 0.05);

/// The body at one sample.
#[derive(Debug, Clone, Copy)]
pub(super) struct BodySample {
    /// Trunk angles.
    pub pose: Pose,
    /// Turning about the vertical in rad/s.
    pub turning: f64,
    /// Acceleration in g, in the trunk's own frame: up, to the side, forward.
    pub acceleration: [f64; 3],
}

/// The whole recording's motion.
pub(super) fn perform(subject: &Subject, segments: &[Segment], rng: &mut impl Rng) -> Vec<BodySample> {
    let pose = subject.pose(Posture::Stand, rng);
    let mut body = Body { subject, rng, pose, samples: Vec::new() };
    for (i, segment) in segments.iter().enumerate() {
        let steady = |segment: Option<&Segment>| segment.is_some_and(|s| matches!(s.motion, Motion::Gait(_)));
        let (before, after) = (i.checked_sub(1).map(|i| &segments[i]), segments.get(i + 1));
        match segment.motion {
            Motion::Hold(posture) => body.hold(posture, segment.samples),
            Motion::Change(to) => body.change(to, segment.samples),
            Motion::Gait(terrain) => body.gait(terrain, run_up(before), segment.samples, run_up(after)),
            Motion::Gap => {
                let taken = usize::from(steady(before)) + usize::from(steady(after));
                body.gap(segment.samples - taken * run_up(Some(segment)));
            }
        }
    }
    body.samples
}

/// Samples of a gap that belong to the gait next to it: a second to begin it or to end it.
fn run_up(gap: Option<&Segment>) -> usize {
    match gap {
        Some(Segment { motion: Motion::Gap, samples, .. }) => (samples / 2).min(RATE_HZ as usize),
        _ => 0,
    }
}

struct Body<'a, R> {
    subject: &'a Subject,
    rng: &'a mut R,
    /// The trunk angles of the current posture.
    pose: Pose,
    samples: Vec<BodySample>,
}

impl<R: Rng> Body<'_, R> {
    /// Rests in a posture: sways, breathes, and moves a little now and then.
    fn hold(&mut self, posture: Posture, samples: usize) {
        let (sway, breath, turning) = match posture {
            Posture::Stand => (self.subject.sway, 0.001, 0.025),
            Posture::Sit => (0.35 * self.subject.sway, 0.002, 0.003),
            Posture::Lie => (0.2 * self.subject.sway, 0.004, 0.002),
        };
        let mut sways = [Smooth::new(0.6, sway), Smooth::new(0.6, sway), Smooth::new(0.5, turning)];
        let mut fidget = Fidget::default();
        let start = self.rng.random::<f64>() * TAU;
        for i in 0..samples {
            fidget.advance(self.subject.restlessness, self.rng);
            let [pitch, roll, turning] = sways.each_mut().map(|s| s.advance(self.rng));
            let breath = breath * (start + TAU * self.subject.breath * i as f64 * STEP).sin();
            let [to_pitch, to_roll, to_turn] = fidget.movement();
            self.push(
                Pose { pitch: pitch + breath + to_pitch, roll: roll + to_roll },
                turning + to_turn,
                [0.4 * to_pitch, 0.8 * to_roll, 0.5 * to_pitch],
            );
        }
    }

    /// Moves smoothly from the current posture to another: bends forward, goes down or up, turns, lands.
    fn change(&mut self, to: Posture, samples: usize) {
        let (from, target) = (self.pose, self.subject.pose(to, self.rng));
        let on_bed = |pitch: f64| pitch > 0.9;
        let lying = on_bed(from.pitch) != on_bed(target.pitch);
        let rises = to == Posture::Stand || (to == Posture::Sit && on_bed(from.pitch));
        let bend = self.subject.bend * around(self.rng, if lying { 0.3 } else { 1.0 }, 0.15);
        let direction = if rises { -1.0 } else { 1.0 };
        let turn = direction * if lying { -around(self.rng, self.subject.bed_turn, 0.25) } else { 0.0 };
        let drop = direction * self.subject.seat_drop * if lying && to == Posture::Sit { 0.2 } else { 1.0 };
        let aside = around(self.rng, if lying { 0.25 } else { 0.08 }, 0.1);
        // The label begins a little before the movement and ends a little after it.
        let begin = self.rng.random_range(0.05..0.2);
        let end = self.rng.random_range(0.75..0.95);
        let seconds = samples as f64 * STEP * (end - begin);
        let mut shake = [(); 3].map(|()| Smooth::new(0.05, self.subject.unrest));
        for i in 0..samples {
            let at = ((i as f64 / samples as f64 - begin) / (end - begin)).clamp(0.0, 1.0);
            let (s, speed, force) = minimum_jerk(at);
            let bump = (PI * at).sin().powi(2);
            let pose = Pose {
                pitch: from.pitch + (target.pitch - from.pitch) * s - bend * bump,
                roll: from.roll + (target.roll - from.roll) * s + aside * bump,
            };
            let shake = shake.each_mut().map(|x| bump.sqrt() * x.advance(self.rng));
            let lift = -drop * force / (seconds * seconds) / GRAVITY;
            let [up, side, forward] = vertical(pose);
            self.pose = pose;
            self.push(
                Pose { pitch: 0.0, roll: 0.0 },
                turn * speed / seconds + 3.0 * shake[0],
                [lift * up + shake[0], lift * side + shake[1], lift * forward + shake[2]],
            );
        }
        self.pose = target;
    }

    /// Walks at a steady pace, with `before` samples to begin it and `after` samples to end it.
    fn gait(&mut self, terrain: Terrain, before: usize, samples: usize, after: usize) {
        let gait = self.subject.gait(terrain);
        let pace = around(self.rng, 1.0, 0.03);
        let all = before + samples + after;
        let strength = |at: f64| {
            let at = at * all as f64;
            let share = |passed: f64, of: usize| if of == 0 { 1.0 } else { (passed / of as f64).min(1.0) };
            share(at, before).min(share(all as f64 - at, after))
        };
        self.walk(gait, pace, all, strength, |at| gait.turn * strength(at));
    }

    /// A few slow steps and a turn: between two labelled intervals.
    fn gap(&mut self, samples: usize) {
        let pace = around(self.rng, 0.85, 0.05);
        let turn = around(self.rng, PI, 0.5) / (samples as f64 * STEP);
        self.walk(
            self.subject.gait(Terrain::Level),
            pace,
            samples,
            |at| 0.7 * (PI * at).sin(),
            |at| 2.0 * turn * (PI * at).sin().powi(2),
        );
    }

    /// Steps at `pace` times the gait's cadence with its waves times `strength`, turning by `turn` rad/s; both are
    /// functions of the fraction of the segment that has passed.
    fn walk(
        &mut self,
        gait: &Gait,
        pace: f64,
        samples: usize,
        strength: impl Fn(f64) -> f64,
        turn: impl Fn(f64) -> f64,
    ) {
        let lean =
            Pose { pitch: around(self.rng, gait.lean.pitch, 0.02), roll: around(self.rng, gait.lean.roll, 0.015) };
        let mut rhythm = Rhythm::new(gait, pace, self.rng);
        let mut wander = [Smooth::new(0.4, 0.02), Smooth::new(0.4, 0.02), Smooth::new(0.5, 0.12)];
        let mut shake = [(); 3].map(|()| Smooth::new(0.02, 0.03));
        for i in 0..samples {
            let at = i as f64 / samples as f64;
            rhythm.advance(gait, self.rng);
            let size = strength(at) * rhythm.size;
            let (step, stride) = (rhythm.step(), rhythm.stride);
            // The trunk leans within a second.
            self.pose.pitch += (lean.pitch - self.pose.pitch) * 2.5 * STEP;
            self.pose.roll += (lean.roll - self.pose.roll) * 2.5 * STEP;
            let [pitch, roll, turning] = wander.each_mut().map(|w| w.advance(self.rng));
            let shake = shake.each_mut().map(|s| s.advance(self.rng));
            let ring = size * gait.impact * rhythm.ringing();
            self.push(
                Pose { pitch: pitch + size * gait.pitch.at(step), roll: roll + size * gait.roll.at(stride) },
                turn(at) + turning + size * (gait.yaw[0].at(stride) + gait.yaw[1].at(2.0 * stride)),
                [
                    size * harmonics(&gait.up, [1.0, 2.0, 3.0], step) + ring + shake[0],
                    size * harmonics(&gait.side, [1.0, 3.0], stride) + 0.3 * rhythm.foot() * ring + shake[1],
                    size * harmonics(&gait.forward, [1.0, 2.0], step) - 0.5 * ring + shake[2],
                ],
            );
        }
    }

    /// Appends a sample whose trunk angles differ by `from_rest` from the posture.
    fn push(&mut self, from_rest: Pose, turning: f64, acceleration: [f64; 3]) {
        let pose = Pose { pitch: self.pose.pitch + from_rest.pitch, roll: self.pose.roll + from_rest.roll };
        self.samples.push(BodySample { pose, turning, acceleration });
    }
}

/// The vertical, seen from a trunk in `pose`: up, side, forward.
pub(super) fn vertical(pose: Pose) -> [f64; 3] {
    let (sin_pitch, cos_pitch) = pose.pitch.sin_cos();
    let (sin_roll, cos_roll) = pose.roll.sin_cos();
    [cos_pitch * cos_roll, sin_roll, sin_pitch * cos_roll]
}

impl Wave {
    fn at(&self, angle: f64) -> f64 {
        self.amplitude * (angle + self.phase).cos()
    }
}

fn harmonics<const N: usize>(waves: &[Wave; N], orders: [f64; N], angle: f64) -> f64 {
    waves.iter().zip(orders).map(|(wave, order)| wave.at(order * angle)).sum()
}

/// Position, speed and acceleration of a smooth movement from 0 to 1 in unit time (Flash and Hogan's minimum jerk).
fn minimum_jerk(t: f64) -> (f64, f64, f64) {
    (
        t * t * t * (10.0 + t * (6.0 * t - 15.0)),
        30.0 * t * t * (1.0 - t) * (1.0 - t),
        60.0 * t * (1.0 - t) * (1.0 - 2.0 * t),
    )
}

/// Smooth noise of zero mean: white noise through two equal poles.
struct Smooth {
    keep: f64,
    drive: f64,
    inner: f64,
    outer: f64,
}

impl Smooth {
    /// Noise of the given deviation with a correlation time of about `seconds`.
    fn new(seconds: f64, deviation: f64) -> Self {
        let keep = (-STEP / seconds).exp();
        // Variance after both poles of unit white noise: (1 - keep)^4 (1 + keep^2) / (1 - keep^2)^3.
        let gain = (1.0 - keep).powi(4) * (1.0 + keep * keep) / (1.0 - keep * keep).powi(3);
        Self { keep, drive: deviation / gain.sqrt(), inner: 0.0, outer: 0.0 }
    }

    fn advance(&mut self, rng: &mut impl Rng) -> f64 {
        self.inner += (1.0 - self.keep) * (self.drive * normal(rng) - self.inner);
        self.outer += (1.0 - self.keep) * (self.inner - self.outer);
        self.outer
    }
}

/// Small movements at rest, of half a second to a second and a half each.
#[derive(Default)]
struct Fidget {
    size: [f64; 3],
    at: f64,
    speed: f64,
}

impl Fidget {
    fn advance(&mut self, per_second: f64, rng: &mut impl Rng) {
        self.at += self.speed;
        if self.at >= 1.0 {
            *self = Self::default();
        }
        if self.speed == 0.0 && rng.random::<f64>() < per_second * STEP {
            self.speed = STEP / rng.random_range(0.5..1.5);
            let size = 0.03 * (0.6 * normal(rng)).exp();
            self.size = [size * normal(rng), size * normal(rng), 3.0 * size * normal(rng)];
        }
    }

    /// Additions to pitch and roll in radians and to the turning in rad/s.
    fn movement(&self) -> [f64; 3] {
        let envelope = (PI * self.at).sin().powi(2);
        self.size.map(|size| size * envelope * (TAU * 1.5 * self.at).cos())
    }
}

/// Where in the stride a walker is; every step differs a little from the last in its length and strength.
struct Rhythm {
    /// The phase of the stride, two steps, in radians.
    stride: f64,
    /// The current strength, near 1.
    size: f64,
    target: f64,
    steps_per_second: f64,
    cadence: f64,
    /// Seconds since the last heel strike.
    since_strike: f64,
}

impl Rhythm {
    fn new(gait: &Gait, pace: f64, rng: &mut impl Rng) -> Self {
        let cadence = gait.cadence * pace;
        let stride = rng.random::<f64>() * TAU;
        Self { stride, size: 1.0, target: 1.0, steps_per_second: cadence, cadence, since_strike: 1.0 }
    }

    fn advance(&mut self, gait: &Gait, rng: &mut impl Rng) {
        let before = self.stride;
        self.stride += PI * self.steps_per_second * STEP;
        self.since_strike += STEP;
        if (before / PI).floor() != (self.stride / PI).floor() {
            self.since_strike = 0.0;
            self.steps_per_second = self.cadence * around(rng, 1.0, 0.035);
            self.target = around(rng, 1.0, 0.09) * (1.0 + self.foot() * gait.asymmetry);
        }
        // The strength changes within a tenth of a second, without a jump.
        self.size += (self.target - self.size) * 10.0 * STEP;
    }

    /// The phase of the step.
    fn step(&self) -> f64 {
        2.0 * self.stride
    }

    /// 1 for one foot, -1 for the other.
    fn foot(&self) -> f64 {
        if ((self.stride / PI) as u64).is_multiple_of(2) { 1.0 } else { -1.0 }
    }

    fn ringing(&self) -> f64 {
        (-self.since_strike / RINGING.1).exp() * (TAU * RINGING.0 * self.since_strike).sin()
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    #[test]
    fn smooth_noise_has_the_deviation_asked_for() {
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(1);
        let mut noise = Smooth::new(0.05, 0.3);
        let values: Vec<f64> = (0..200_000).map(|_| noise.advance(&mut rng)).collect();
        let deviation = (values.iter().map(|v| v * v).sum::<f64>() / values.len() as f64).sqrt();
        assert!((deviation - 0.3).abs() < 0.01, "{deviation}");
    }

    #[test]
    fn a_minimum_jerk_movement_agrees_with_its_own_derivatives() {
        let h = 1e-5;
        for t in [0.1, 0.35, 0.8] {
            let (_, speed, force) = minimum_jerk(t);
            assert!(((minimum_jerk(t + h).0 - minimum_jerk(t - h).0) / (2.0 * h) - speed).abs() < 1e-8);
            assert!(((minimum_jerk(t + h).1 - minimum_jerk(t - h).1) / (2.0 * h) - force).abs() < 1e-7);
        }
        assert_eq!((minimum_jerk(0.0).0, minimum_jerk(1.0).0), (0.0, 1.0));
    }

    #[test]
    fn the_vertical_has_length_one_and_lies_forward_on_ones_back() {
        let v = vertical(Pose { pitch: 0.4, roll: -0.2 });
        assert!((v.iter().map(|x| x * x).sum::<f64>() - 1.0).abs() < 1e-12);
        let lying = vertical(Pose { pitch: PI / 2.0, roll: 0.0 });
        assert!(lying[0].abs() < 1e-12 && (lying[2] - 1.0).abs() < 1e-12);
    }
}
