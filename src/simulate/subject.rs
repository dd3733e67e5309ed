//! A user's body, gait and way of wearing the phone.

use rand::Rng;

use super::protocol::{Posture, Terrain};
use super::{around, normal};

/// Trunk angles in radians. `pitch` is backwards (0 upright, a quarter turn on one's back), `roll` to the side.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Pose {
    pub pitch: f64,
    pub roll: f64,
}

/// A cosine of a gait cycle: its amplitude and its phase at heel strike.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Wave {
    pub amplitude: f64,
    pub phase: f64,
}

/// A gait. Waves of the step repeat with every step, those of the stride with every second one.
#[derive(Debug, Clone)]
pub(super) struct Gait {
    /// Steps per second.
    pub cadence: f64,
    /// Vertical acceleration in g: harmonics 1, 2, 3 of the step.
    pub up: [Wave; 3],
    /// Acceleration forward in g: harmonics 1, 2 of the step.
    pub forward: [Wave; 2],
    /// Acceleration to the side in g: harmonics 1, 3 of the stride.
    pub side: [Wave; 2],
    /// Peak of the damped ringing after a heel strike, in g.
    pub impact: f64,
    /// How much stronger every other step is, as a fraction.
    pub asymmetry: f64,
    /// Swing of the pitch angle in radians, harmonic 1 of the step.
    pub pitch: Wave,
    /// Swing of the roll angle in radians, harmonic 1 of the stride.
    pub roll: Wave,
    /// Turning of the hips in rad/s: harmonics 1, 2 of the stride.
    pub yaw: [Wave; 2],
    /// Mean turning in rad/s, for winding stairs.
    pub turn: f64,
    /// Trunk angles around which it swings.
    pub lean: Pose,
}

/// One user.
#[derive(Debug, Clone)]
pub(super) struct Subject {
    stand: Pose,
    sit: Pose,
    lie: Pose,
    /// Slow swaying while standing, in radians.
    pub sway: f64,
    /// Small movements per second at rest.
    pub restlessness: f64,
    /// Breaths per second.
    pub breath: f64,
    /// Metres the hips go down to sit.
    pub seat_drop: f64,
    /// Radians the trunk bends forward to sit down or get up.
    pub bend: f64,
    /// How unevenly the body moves between postures, in g.
    pub unrest: f64,
    /// Radians the body turns to lie down.
    pub bed_turn: f64,
    level: Gait,
    up: Gait,
    down: Gait,
    preferred_side: f64,
}

/// How the phone is worn, and the errors of its sensors.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wear {
    /// Where around the waist, in radians: 0 at the side, a quarter turn in front.
    pub around: f64,
    /// Tilts of the phone in its pouch, in radians.
    pub tilt: [f64; 2],
    /// Offset of each axis of the gyroscope in rad/s.
    pub gyroscope_offset: [f64; 3],
    /// Offset of each axis of the accelerometer in g.
    pub accelerometer_offset: [f64; 3],
}

impl Subject {
    pub fn draw(rng: &mut impl Rng) -> Self {
        let stand = Pose { pitch: around(rng, -0.08, 0.08), roll: around(rng, 0.0, 0.06) };
        let sit = Pose { pitch: around(rng, 0.18, 0.16), roll: around(rng, 0.0, 0.07) };
        let lie = Pose { pitch: around(rng, 1.47, 0.14), roll: around(rng, 0.0, 0.22) };
        let level = Gait::level(stand, rng);
        Self {
            stand,
            sit,
            lie,
            sway: 0.012 * lognormal(rng, 0.5),
            restlessness: 0.07 * lognormal(rng, 0.5),
            breath: around(rng, 0.25, 0.04),
            seat_drop: around(rng, 0.42, 0.04),
            bend: around(rng, 0.55, 0.12),
            unrest: 0.06 * lognormal(rng, 0.4),
            bed_turn: around(rng, 1.0, 0.3),
            up: level.upstairs(rng),
            down: level.downstairs(rng),
            level,
            preferred_side: around(rng, 0.95, 0.25),
        }
    }

    /// The trunk angles in `posture`, a little different each time.
    pub fn pose(&self, posture: Posture, rng: &mut impl Rng) -> Pose {
        let (mean, pitch, roll) = match posture {
            Posture::Stand => (self.stand, 0.025, 0.02),
            Posture::Sit => (self.sit, 0.06, 0.04),
            Posture::Lie => (self.lie, 0.04, 0.12),
        };
        Pose { pitch: around(rng, mean.pitch, pitch), roll: around(rng, mean.roll, roll) }
    }

    pub fn gait(&self, terrain: Terrain) -> &Gait {
        match terrain {
            Terrain::Level => &self.level,
            Terrain::Up => &self.up,
            Terrain::Down => &self.down,
        }
    }

    /// How the phone is worn in the user's recording number `turn` (from 0).
    pub fn wear(&self, turn: usize, rng: &mut impl Rng) -> Wear {
        let place = if turn.is_multiple_of(2) { 1.05 } else { self.preferred_side };
        Wear {
            around: around(rng, place, 0.16),
            tilt: [around(rng, 0.0, 0.05), around(rng, -0.06, 0.06)],
            gyroscope_offset: [around(rng, 0.006, 0.003), around(rng, 0.0, 0.003), around(rng, 0.001, 0.002)],
            accelerometer_offset: std::array::from_fn(|_| around(rng, 0.0, 0.01)),
        }
    }
}

impl Gait {
    fn level(stand: Pose, rng: &mut impl Rng) -> Self {
        // One factor for all: all movements of a brisk walker are stronger.
        let vigor = lognormal(rng, 0.16);
        let mut wave = |amplitude: f64, phase: f64| Wave {
            amplitude: vigor * amplitude * lognormal(rng, 0.2),
            phase: around(rng, phase, 0.3),
        };
        Self {
            up: [wave(0.24, 0.4), wave(0.11, -0.9), wave(0.05, 1.2)],
            forward: [wave(0.21, 1.9), wave(0.10, 0.6)],
            side: [wave(0.10, 1.3), wave(0.07, -0.5)],
            pitch: wave(0.028, -0.6),
            roll: wave(0.105, 0.2),
            yaw: [wave(0.52, 1.0), wave(0.26, -1.4)],
            impact: 0.16 * vigor * lognormal(rng, 0.4),
            cadence: around(rng, 1.87, 0.13),
            asymmetry: around(rng, 0.0, 0.06),
            turn: 0.0,
            lean: Pose { pitch: stand.pitch - around(rng, 0.06, 0.03), roll: stand.roll },
        }
    }

    /// Upstairs: slower and less even, bent forward, with a second push within the step, turning to one side.
    fn upstairs(&self, rng: &mut impl Rng) -> Self {
        let mut gait = self.clone();
        gait.cadence *= around(rng, 0.85, 0.03);
        gait.asymmetry += around(rng, 0.17, 0.04);
        gait.up[0].amplitude *= around(rng, 1.05, 0.1);
        gait.up[1].amplitude *= around(rng, 1.4, 0.15);
        gait.up[1].phase += 1.3;
        gait.forward[0].amplitude *= around(rng, 0.8, 0.1);
        gait.forward[0].phase += 0.8;
        gait.impact *= around(rng, 0.65, 0.1);
        gait.pitch.amplitude *= around(rng, 1.8, 0.2);
        gait.roll.amplitude *= around(rng, 1.2, 0.12);
        gait.yaw[0].amplitude *= around(rng, 0.9, 0.1);
        gait.turn = around(rng, 0.38, 0.07);
        gait.lean.pitch -= around(rng, 0.16, 0.03);
        gait
    }

    /// Downstairs: hard landings with strong overtones, upright, turning to the other side.
    fn downstairs(&self, rng: &mut impl Rng) -> Self {
        let mut gait = self.clone();
        gait.cadence *= around(rng, 1.0, 0.05);
        gait.asymmetry += around(rng, 0.05, 0.04);
        gait.up[0].amplitude *= around(rng, 1.4, 0.12);
        gait.up[1].amplitude *= around(rng, 2.0, 0.3);
        gait.up[2].amplitude *= around(rng, 2.0, 0.4);
        gait.forward[1].amplitude *= around(rng, 1.2, 0.15);
        gait.side[1].amplitude *= around(rng, 1.3, 0.2);
        gait.impact *= around(rng, 2.9, 0.4);
        gait.pitch.amplitude *= around(rng, 1.2, 0.2);
        gait.yaw[1].amplitude *= around(rng, 1.3, 0.2);
        gait.turn = around(rng, -0.42, 0.08);
        gait.lean.pitch += around(rng, 0.03, 0.02);
        gait
    }
}

/// A factor around 1 whose logarithm has the standard deviation `deviation`.
fn lognormal(rng: &mut impl Rng, deviation: f64) -> f64 {
    (deviation * normal(rng).clamp(-2.5, 2.5)).exp()
}
