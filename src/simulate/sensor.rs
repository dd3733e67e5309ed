//! The phone: orientation, offsets, noise, drift and quantisation.

use rand::Rng;

use super::motion::{BodySample, vertical};
use super::subject::Wear;
use super::{ACCELERATION_QUANTUM, ANGULAR_VELOCITY_QUANTUM, RATE_HZ, normal};

/// White noise of each axis of the accelerometer, in g.
const ACCELERATION_NOISE: [f64; 3] = [0.0026, 0.0036, 0.0056];
/// White noise of each axis of the gyroscope, in rad/s.
const ANGULAR_VELOCITY_NOISE: [f64; 3] = [0.003, 0.004, 0.0035];
/// Drift of the gyroscope's offset over a second, in rad/s.
const DRIFT: f64 = 2e-4;
/// The largest readings of either sensor, in g and rad/s.
const RANGE: (f64, f64) = (2.0, 8.7);

type Readings = Vec<[f64; 3]>;

/// What the sensors read: specific force in g and angular velocity in rad/s.
pub(super) fn read(body: &[BodySample], wear: &Wear, rng: &mut impl Rng) -> (Readings, Readings) {
    let frame = Frame::new(wear);
    let mut drift = [0.0; 3];
    let mut acceleration = Vec::with_capacity(body.len());
    let mut angular_velocity = Vec::with_capacity(body.len());
    for (i, sample) in body.iter().enumerate() {
        let up = vertical(sample.pose);
        let force = std::array::from_fn(|axis| up[axis] + sample.acceleration[axis]);
        let spin = spin(sample, rates(body, i));
        let (force, spin) = (frame.turn(force), frame.turn(spin));
        acceleration.push(std::array::from_fn(|axis| {
            let value = force[axis] + wear.accelerometer_offset[axis] + ACCELERATION_NOISE[axis] * normal(rng);
            quantised(value, ACCELERATION_QUANTUM, RANGE.0)
        }));
        angular_velocity.push(std::array::from_fn(|axis| {
            drift[axis] += DRIFT / RATE_HZ.sqrt() * normal(rng);
            let offset = wear.gyroscope_offset[axis] + drift[axis];
            quantised(
                spin[axis] + offset + ANGULAR_VELOCITY_NOISE[axis] * normal(rng),
                ANGULAR_VELOCITY_QUANTUM,
                RANGE.1,
            )
        }));
    }
    (acceleration, angular_velocity)
}

/// Angular velocity in the trunk's frame: turning about the vertical, pitch about the axis to the side, roll about the
/// one forward before the pitch.
fn spin(sample: &BodySample, (pitch, roll): (f64, f64)) -> [f64; 3] {
    let up = vertical(sample.pose);
    let (sin, cos) = sample.pose.pitch.sin_cos();
    [sample.turning * up[0] + roll * sin, sample.turning * up[1] + pitch, sample.turning * up[2] - roll * cos]
}

/// The change of pitch and roll at sample `i`, in rad/s, by central differences.
fn rates(body: &[BodySample], i: usize) -> (f64, f64) {
    let (before, after) = (i.saturating_sub(1), (i + 1).min(body.len() - 1));
    let per_second = RATE_HZ / (after - before).max(1) as f64;
    let (a, b) = (body[before].pose, body[after].pose);
    ((b.pitch - a.pitch) * per_second, (b.roll - a.roll) * per_second)
}

fn quantised(value: f64, quantum: f64, range: f64) -> f64 {
    (value.clamp(-range, range) / quantum).round() * quantum
}

/// The phone's axes in the trunk's frame.
struct Frame([[f64; 3]; 3]);

impl Frame {
    fn new(wear: &Wear) -> Self {
        let (s, c) = wear.around.sin_cos();
        // Upright, the phone's x is up; around the waist, its y turns from the side towards the front and its z
        // from the front towards the other side. Then it leans in its pouch by two small angles.
        let placed = [[1.0, 0.0, 0.0], [0.0, c, s], [0.0, -s, c]];
        let [a, b] = wear.tilt;
        let lean_z = [[a.cos(), 0.0, a.sin()], [0.0, 1.0, 0.0], [-a.sin(), 0.0, a.cos()]];
        let lean_y = [[b.cos(), -b.sin(), 0.0], [b.sin(), b.cos(), 0.0], [0.0, 0.0, 1.0]];
        Self(product(lean_y, product(lean_z, placed)))
    }

    fn turn(&self, v: [f64; 3]) -> [f64; 3] {
        self.0.map(|row| row[0] * v[0] + row[1] * v[1] + row[2] * v[2])
    }
}

fn product(a: [[f64; 3]; 3], b: [[f64; 3]; 3]) -> [[f64; 3]; 3] {
    std::array::from_fn(|i| std::array::from_fn(|j| (0..3).map(|k| a[i][k] * b[k][j]).sum()))
}

#[cfg(test)]
mod tests {
    use super::super::subject::Pose;
    use super::*;
    use rand::SeedableRng;

    #[test]
    fn a_phone_at_rest_reads_one_g_whatever_way_it_is_worn() {
        let wear = Wear { around: 0.7, tilt: [0.05, -0.1], gyroscope_offset: [0.0; 3], accelerometer_offset: [0.0; 3] };
        let still = BodySample { pose: Pose { pitch: 0.3, roll: 0.1 }, turning: 0.0, acceleration: [0.0; 3] };
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(1);
        let (force, spin) = read(&[still; 2000], &wear, &mut rng);
        let mean = |axis: usize| force.iter().map(|f| f[axis]).sum::<f64>() / force.len() as f64;
        let length = (0..3).map(|axis| mean(axis).powi(2)).sum::<f64>().sqrt();
        assert!((length - 1.0).abs() < 1e-3, "{length}");
        assert!(spin.iter().flatten().all(|s| s.abs() < 0.05));
    }

    #[test]
    fn gravity_turns_as_the_gyroscope_says() {
        // In a rotating frame a fixed direction g changes by g x omega.
        let wear = Wear { around: 0.7, tilt: [0.05, -0.1], gyroscope_offset: [0.0; 3], accelerometer_offset: [0.0; 3] };
        let body: Vec<_> = (0..50)
            .map(|i| {
                let t = i as f64 / RATE_HZ;
                let pose = Pose { pitch: 0.8 * t, roll: -0.6 * t };
                BodySample { pose, turning: 0.5, acceleration: [0.0; 3] }
            })
            .collect();
        let (force, spin) = read(&body, &wear, &mut rand_chacha::ChaCha8Rng::seed_from_u64(2));
        let mut turned = force[0];
        for omega in &spin {
            let g = turned;
            let change = [
                g[1] * omega[2] - g[2] * omega[1],
                g[2] * omega[0] - g[0] * omega[2],
                g[0] * omega[1] - g[1] * omega[0],
            ];
            turned = std::array::from_fn(|axis| g[axis] + change[axis] / RATE_HZ);
        }
        for axis in 0..3 {
            assert!((turned[axis] - force[49][axis]).abs() < 0.05, "{turned:?} is not {:?}", force[49]);
        }
    }

    #[test]
    fn readings_beyond_the_range_saturate() {
        assert!((quantised(9.0, ACCELERATION_QUANTUM, 2.0) - 2.0).abs() < 1e-12);
    }
}
