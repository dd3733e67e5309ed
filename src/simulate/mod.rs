//! Simulated recordings of a phone worn at the waist, in the HAPT layout, for machines without the real ones; and
//! [`Sensors`], a stream of vibrations without an end.
//!
//! Each user stands, sits, lies, walks and takes stairs in a protocol like that of HAPT (Reyes-Ortiz et al., 2016):
//! twelve activities, six of them transitions between postures, with unlabelled gaps. A body frame (up, side, forward)
//! is moved through poses and gaits (`motion`) with the user's own tilt, cadence, harmonics and amplitudes (`subject`);
//! a sensor, oriented as the user wears it, then reads gravity plus movement as specific force, and the derivative of
//! the pose as angular velocity, with noise, drift and quantisation (`sensor`). No recorded data is used: the constants
//! were chosen by hand within the spread of the published recordings, so that clusters are as hard to find as in them:
//! with thirty users and six minutes, as in HAPT, k-means on the features reaches an ARI of .49 on the test users
//! (HAPT: .43), and `pipelines/hapt.toml` .66 (.65).
//!
//! ```
//! use dacpipe::simulate::{SimulateSpec, hapt};
//! let spec = SimulateSpec { users: 2, minutes: 1.0, ..SimulateSpec::default() };
//! let experiments: Vec<_> = hapt(spec)?.collect();
//! assert_eq!(experiments.len(), 4); // two for each user
//! assert_eq!(experiments[3].user, 2);
//! assert_eq!(experiments[0].acceleration.len(), experiments[0].angular_velocity.len());
//! # Ok::<(), dacpipe::Error>(())
//! ```

mod motion;
mod protocol;
mod sensor;
mod stream;
mod subject;
mod write;

use rand::Rng;

use crate::error::{Error, Result};
use crate::seed::Seed;

pub use stream::{COLUMNS, Delivered, Delivery, Pace, Reading, Sensors, SensorsSpec, deliver};
pub use write::{Summary, WriteOptions, write_hapt};

/// Samples per second of every simulated channel.
pub const RATE_HZ: f64 = 50.0;
/// Accelerations are multiples of this many g.
pub const ACCELERATION_QUANTUM: f64 = 1.0 / 720.0;
/// Angular velocities are multiples of this many radians a second.
pub const ANGULAR_VELOCITY_QUANTUM: f64 = 1e-3;

/// What to simulate.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SimulateSpec {
    /// Number of users, at least 2: one to train on, one to test on.
    pub users: usize,
    /// Recordings of each user, at least 1. The phone is worn at the side in a user's odd recordings and where the
    /// user prefers it in the even ones.
    pub experiments_per_user: usize,
    /// Approximate minutes of a recording, from 1 to 60. Transitions keep their pace; everything else is shortened or
    /// stretched.
    pub minutes: f64,
    /// The source of every random choice.
    pub seed: Seed,
}

impl Default for SimulateSpec {
    fn default() -> Self {
        Self { users: 8, experiments_per_user: 2, minutes: 6.0, seed: Seed(7) }
    }
}

impl SimulateSpec {
    /// The most users, and the most recordings of one, that a specification may ask for.
    pub const MOST: usize = 10_000;

    fn validate(&self) -> Result<()> {
        let refuse = |what: &str, value: &dyn std::fmt::Display, accepted: &str| {
            Err(Error::config(format!("cannot simulate {what} = {value}: {accepted} would be accepted")))
        };
        if !(2..=Self::MOST).contains(&self.users) {
            return refuse("users", &self.users, "2 to 10000");
        }
        if !(1..=Self::MOST).contains(&self.experiments_per_user) {
            return refuse("experiments per user", &self.experiments_per_user, "1 to 10000");
        }
        if !(1.0..=60.0).contains(&self.minutes) {
            return refuse("minutes", &self.minutes, "1 to 60");
        }
        Ok(())
    }
}

/// What a user does, with HAPT's numbers and names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Activity {
    Walking = 1,
    WalkingUpstairs = 2,
    WalkingDownstairs = 3,
    Sitting = 4,
    Standing = 5,
    Laying = 6,
    StandToSit = 7,
    SitToStand = 8,
    SitToLie = 9,
    LieToSit = 10,
    StandToLie = 11,
    LieToStand = 12,
}

impl Activity {
    /// All twelve, in the order of their numbers.
    pub const ALL: [Activity; 12] = [
        Activity::Walking,
        Activity::WalkingUpstairs,
        Activity::WalkingDownstairs,
        Activity::Sitting,
        Activity::Standing,
        Activity::Laying,
        Activity::StandToSit,
        Activity::SitToStand,
        Activity::SitToLie,
        Activity::LieToSit,
        Activity::StandToLie,
        Activity::LieToStand,
    ];

    /// Its number in label files, 1 to 12.
    ///
    /// ```
    /// use dacpipe::simulate::Activity;
    /// assert_eq!((Activity::Laying.number(), Activity::Laying.name()), (6, "LAYING"));
    /// ```
    pub fn number(self) -> usize {
        self as usize
    }

    /// Its name in `activity_labels.txt`.
    pub fn name(self) -> &'static str {
        match self {
            Activity::Walking => "WALKING",
            Activity::WalkingUpstairs => "WALKING_UPSTAIRS",
            Activity::WalkingDownstairs => "WALKING_DOWNSTAIRS",
            Activity::Sitting => "SITTING",
            Activity::Standing => "STANDING",
            Activity::Laying => "LAYING",
            Activity::StandToSit => "STAND_TO_SIT",
            Activity::SitToStand => "SIT_TO_STAND",
            Activity::SitToLie => "SIT_TO_LIE",
            Activity::LieToSit => "LIE_TO_SIT",
            Activity::StandToLie => "STAND_TO_LIE",
            Activity::LieToStand => "LIE_TO_STAND",
        }
    }
}

/// A labelled interval of a recording.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interval {
    /// What the user does in it.
    pub activity: Activity,
    /// Its first sample, counted from 0.
    pub first: usize,
    /// Its last sample.
    pub last: usize,
}

/// One simulated recording.
#[derive(Debug, Clone, PartialEq)]
pub struct Experiment {
    /// Its number, from 1.
    pub number: usize,
    /// The user's number, from 1.
    pub user: usize,
    /// Whether the user belongs to the test split.
    pub test: bool,
    /// Specific force on the phone's three axes in g, multiples of [`ACCELERATION_QUANTUM`], one per sample.
    pub acceleration: Vec<[f64; 3]>,
    /// Angular velocity about the three axes in rad/s, multiples of [`ANGULAR_VELOCITY_QUANTUM`], one per sample.
    pub angular_velocity: Vec<[f64; 3]>,
    /// The labelled intervals, in order and without overlap.
    pub labels: Vec<Interval>,
}

/// The recordings of `spec`, generated one at a time: about 900 KB each for six minutes.
///
/// The same spec gives the same recordings. A recording depends only on the seed and its own number: adding users does
/// not change the recordings of the others (but may change who is in the test split).
///
/// # Errors
/// Kind `Config` if a number of `spec` is out of its range.
pub fn hapt(spec: SimulateSpec) -> Result<impl Iterator<Item = Experiment>> {
    spec.validate()?;
    let test = test_users(&spec);
    Ok((0..spec.users * spec.experiments_per_user).map(move |i| {
        let user = i / spec.experiments_per_user;
        experiment(&spec, user, i % spec.experiments_per_user, test[user])
    }))
}

/// Three users in ten, at least one, are in the test split.
fn test_users(spec: &SimulateSpec) -> Vec<bool> {
    let mut rng = spec.seed.stream("simulate split", 0);
    let mut left = (3 * spec.users / 10).max(1);
    (0..spec.users)
        .map(|user| {
            // Selection sampling: every subset of the right size is equally likely.
            let chosen = rng.random_range(0..spec.users - user) < left;
            left -= usize::from(chosen);
            chosen
        })
        .collect()
}

fn experiment(spec: &SimulateSpec, user: usize, turn: usize, test: bool) -> Experiment {
    let subject = subject::Subject::draw(&mut spec.seed.stream("simulate user", user as u64));
    // Not the experiment's number, since for the same recording it would depend on the experiments per user.
    let mut rng = spec.seed.stream("simulate recording", (user * SimulateSpec::MOST + turn) as u64);
    let segments = protocol::schedule(spec.minutes, &mut rng);
    let body = motion::perform(&subject, &segments, &mut rng);
    let wear = subject.wear(turn, &mut rng);
    let (acceleration, angular_velocity) = sensor::read(&body, &wear, &mut rng);
    Experiment {
        number: user * spec.experiments_per_user + turn + 1,
        user: user + 1,
        test,
        acceleration,
        angular_velocity,
        labels: protocol::labels(&segments),
    }
}

/// A standard normal draw (Box and Muller).
fn normal(rng: &mut impl Rng) -> f64 {
    let radius = (-2.0 * (1.0 - rng.random::<f64>()).ln()).sqrt();
    radius * (std::f64::consts::TAU * rng.random::<f64>()).cos()
}

/// A normal draw around `mean`, clamped to three deviations so that no user is extreme.
fn around(rng: &mut impl Rng, mean: f64, deviation: f64) -> f64 {
    mean + deviation * normal(rng).clamp(-3.0, 3.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recording_depends_on_its_own_number_alone() {
        let few = SimulateSpec { users: 2, minutes: 1.0, ..SimulateSpec::default() };
        let many = SimulateSpec { users: 3, ..few };
        let (few, many): (Vec<_>, Vec<_>) = (hapt(few).unwrap().collect(), hapt(many).unwrap().collect());
        assert_eq!(few[3].acceleration, many[3].acceleration);
        assert_eq!(few[3].labels, many[3].labels);
    }

    #[test]
    fn three_users_in_ten_are_for_the_test() {
        for (users, expected) in [(2, 1), (3, 1), (8, 2), (10, 3), (30, 9)] {
            let test = test_users(&SimulateSpec { users, ..SimulateSpec::default() });
            assert_eq!(test.iter().filter(|t| **t).count(), expected, "{users} users");
        }
    }

    #[test]
    fn numbers_out_of_range_are_refused_with_what_would_be_accepted() {
        let good = SimulateSpec::default();
        for bad in [
            SimulateSpec { users: 1, ..good },
            SimulateSpec { experiments_per_user: 0, ..good },
            SimulateSpec { minutes: f64::NAN, ..good },
            SimulateSpec { minutes: 0.5, ..good },
        ] {
            let error = hapt(bad).err().expect("refused");
            assert_eq!(error.kind(), crate::Kind::Config);
            assert!(error.to_string().contains("would be accepted"), "{error}");
        }
    }
}
