//! How cost grows with size: each call does one measurement and prints one JSON line. `bench/growth.sh` calls it once
//! per measurement, so that no other measurement counts in the peak memory, and fits the exponents.
//!
//! `growth WORK KEY=NUMBER…` with the keys `rows`, `dim`, `k`, `threads`, `batch`, `width`, `length`, and `enough`
//! (milliseconds of measuring that suffice). `growth case PATH KEY=NUMBER…` writes a model and a Parquet file of rows for
//! `dacpipe label` and `dacpipe run`.

use std::hint::black_box;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Instant;

use arrow::array::{ArrayRef, Int32Array};
use arrow::record_batch::RecordBatch;
use parquet::arrow::ArrowWriter;
use parquet::file::properties::WriterProperties;
use serde_json::{Value, json};

use dacpipe::column::vector_array;
use dacpipe::device::{Cpu, Device, StepSettings};
use dacpipe::embed::Embed;
use dacpipe::event::{Control, Event, Observer};
use dacpipe::kernel::distance::Centroids;
use dacpipe::kernel::{Dense, Pool, fold};
use dacpipe::kmeans::{KMeansSpec, Method, fit, fit_from};
use dacpipe::label::Label;
use dacpipe::loss::{L2Penalty, PenaltyForm, WeightedMse};
use dacpipe::manifold::{ManifoldSpec, ManifoldStage};
use dacpipe::model::{Manifest, Model, ModelInput};
use dacpipe::network::{Architecture, Encoder, initialise};
use dacpipe::scale::{Scale, ScaleMethod};
use dacpipe::signal::features::{FeatureExtractor, FeatureSet};
use dacpipe::signal::summary::SummarySpec;
use dacpipe::signal::window::{WindowSpec, Within};
use dacpipe::stage::{FEATURES, Fit, FitContext, NoCheckpoint, Training, VectorMap};
use dacpipe::store::Location;
use dacpipe::weights::{FeatureWeightsStage, WeightLabels, WeightsSpec};
use dacpipe::{Error, Kind, Result, Seed};

/// The number of points around which the rows lie.
const BLOBS: usize = 64;
/// Values of an embedding.
const CODE: usize = 10;
/// Iterations of Lloyd that are timed, after the first; batches of mini-batch k-means.
const ITERATIONS: usize = 8;
const BATCHES: usize = 40;

fn main() -> Result<()> {
    // Cargo passes --bench on.
    let words: Vec<String> = std::env::args().skip(1).filter(|w| !w.starts_with("--")).collect();
    let Some((work, settings)) = words.split_first() else {
        eprintln!("growth: name a work; bench/growth.sh calls it with all of them");
        return Ok(());
    };
    if work == "case" {
        let (path, settings) = settings.split_first().ok_or_else(|| Error::config("case: a directory is missing"))?;
        return Case::parse(settings)?.write(path.as_ref());
    }
    println!("{}", Case::parse(settings)?.measure(work)?);
    Ok(())
}

/// The size of a measurement.
struct Case {
    rows: usize,
    dim: usize,
    k: usize,
    threads: usize,
    batch: usize,
    width: usize,
    length: usize,
    enough: f64,
    device: Cpu,
}

/// What was measured: seconds of one unit of work, and the bytes that it was given.
struct Measured {
    seconds: f64,
    unit: &'static str,
    input_bytes: usize,
    peak: Memory,
}

impl Case {
    fn parse(settings: &[String]) -> Result<Self> {
        let (mut rows, mut dim, mut k, mut threads) = (100_000, 10, 10, 2);
        let (mut batch, mut width, mut length, mut enough) = (256, 64, 200, 300);
        for setting in settings {
            let (name, value) = setting.split_once('=').unwrap_or((setting, ""));
            let place = match name {
                "rows" => &mut rows,
                "dim" => &mut dim,
                "k" => &mut k,
                "threads" => &mut threads,
                "batch" => &mut batch,
                "width" => &mut width,
                "length" => &mut length,
                "enough" => &mut enough,
                _ => return Err(Error::config(format!("{setting:?}: no such setting"))),
            };
            *place = value.parse().map_err(|_| Error::config(format!("{setting:?}: not a whole number")))?;
        }
        let enough = enough as f64 / 1e3;
        Ok(Self { rows, dim, k, threads, batch, width, length, enough, device: Cpu::new(threads) })
    }

    fn measure(&self, work: &str) -> Result<Value> {
        let Measured { seconds, unit, input_bytes, peak } = match work {
            "assign" => self.assign()?,
            "lloyd" => self.lloyd()?,
            "seeding" => self.seeding()?,
            "minibatch" => self.minibatch()?,
            "weights" => self.weights()?,
            "manifold" => self.manifold()?,
            "train" => self.train()?,
            "encode" => self.encode()?,
            "scale" => self.scale()?,
            "hapt561" => self.features(&FeatureSet::Hapt561, 128)?,
            "summary" => self.features(&FeatureSet::Summary(SummarySpec::default()), self.length)?,
            other => return Err(Error::config(format!("no work {other:?}"))),
        };
        let mib = |bytes: Option<u64>| bytes.map(|b| b as f64 / f64::from(1 << 20));
        Ok(json!({
            "work": work, "rows": self.rows, "dim": self.dim, "k": self.k, "threads": self.threads,
            "batch": self.batch, "width": self.width, "length": self.length,
            "seconds": seconds, "unit": unit, "input_mib": mib(Some(input_bytes as u64)),
            "peak_mib": mib(peak.whole()), "more_mib": mib(peak.more()),
        }))
    }

    /// The least result of `work`, which is called at least twice, and until that took long enough.
    fn least(&self, mut work: impl FnMut() -> Result<f64>) -> Result<f64> {
        let clock = Instant::now();
        let (mut least, mut calls) = (f64::INFINITY, 0);
        while calls < 2 || (calls < 1000 && clock.elapsed().as_secs_f64() < self.enough) {
            least = least.min(work()?);
            calls += 1;
        }
        Ok(least)
    }

    /// The same, of the seconds that `work` takes.
    fn time(&self, mut work: impl FnMut() -> Result<()>) -> Result<f64> {
        self.least(|| {
            let clock = Instant::now();
            work()?;
            Ok(clock.elapsed().as_secs_f64())
        })
    }

    /// Rows in `[0, 1]` around sixty-four points, which overlap if a row has few values. Row `i` belongs to point `i %
    /// 64` whatever the number of rows.
    fn blobs(&self) -> Vec<f32> {
        blobs(self.rows, self.dim, 0, self.device.pool())
    }

    /// Initial centroids: rows around four of the points if there are enough rows, so that centroids move far and every
    /// iteration has work.
    fn start(&self, values: &[f32]) -> Vec<f32> {
        let step = if self.k * BLOBS / 4 <= self.rows { BLOBS / 4 } else { 1 };
        values.chunks_exact(self.dim).step_by(step).take(self.k).flatten().copied().collect()
    }

    fn assign(&self) -> Result<Measured> {
        let rows = self.blobs();
        let centers = Centroids::new(&rows[..self.k * self.dim], self.dim);
        let block = fold::block_rows(self.dim);
        let memory = Memory::now();
        let (mut labels, mut squared) = (vec![0; self.rows], vec![0.0; self.rows]);
        let seconds = self.time(|| {
            let outputs = labels.chunks_mut(block).zip(squared.chunks_mut(block));
            let mut tasks: Vec<_> = rows.chunks(block * self.dim).zip(outputs).collect();
            self.device.pool().for_each_chunk_mut(&mut tasks, 1, |_, task| {
                let (rows, (labels, squared)) = &mut task[0];
                centers.nearest(rows, labels, squared);
            });
            Ok(())
        })?;
        black_box((labels, squared));
        Ok(Measured { seconds, unit: "pass", input_bytes: 4 * rows.len(), peak: memory })
    }

    /// The mean of the iterations after the first, which is left out because it has no bounds yet.
    fn lloyd(&self) -> Result<Measured> {
        let values = self.blobs();
        let rows = Dense::new(&values, self.dim);
        let spec = KMeansSpec { tolerance: 0.0, max_iterations: ITERATIONS + 1, ..KMeansSpec::new(self.k) };
        let memory = Memory::now();
        let seconds = self.least(|| {
            let ticks = Ticks::new(usize::MAX);
            fit_from(&rows, &spec, self.start(&values), &self.device, &ticks.control())?;
            let between = ticks.between();
            match between.len() {
                0 => Err(Error::internal("Lloyd was done after one iteration")),
                n => Ok(between.iter().sum::<f64>() / n as f64),
            }
        })?;
        Ok(Measured { seconds, unit: "iteration", input_bytes: 4 * values.len(), peak: memory })
    }

    /// The time of a fit until its first iteration is over, minus the same from given centroids.
    fn seeding(&self) -> Result<Measured> {
        let values = self.blobs();
        let rows = Dense::new(&values, self.dim);
        let spec = KMeansSpec { n_init: 1, tolerance: 0.0, ..KMeansSpec::new(self.k) };
        let memory = Memory::now();
        let given = self.least(|| {
            let ticks = Ticks::new(1);
            stopped(fit_from(&rows, &spec, self.start(&values), &self.device, &ticks.control()))?;
            Ok(ticks.first())
        })?;
        let seeded = self.least(|| {
            let ticks = Ticks::new(1);
            stopped(fit(&rows, &spec, Seed(1), &self.device, &ticks.control()))?;
            Ok(ticks.first())
        })?;
        let seconds = (seeded - given).max(1e-9);
        Ok(Measured { seconds, unit: "seeding", input_bytes: 4 * values.len(), peak: memory })
    }

    fn minibatch(&self) -> Result<Measured> {
        let values = self.blobs();
        let rows = Dense::new(&values, self.dim);
        let method = Method::MiniBatch { batch_size: self.batch };
        let spec = KMeansSpec { n_init: 1, tolerance: 0.0, method, ..KMeansSpec::new(self.k) };
        let memory = Memory::now();
        let seconds = self.least(|| {
            let ticks = Ticks::new(BATCHES);
            stopped(fit(&rows, &spec, Seed(1), &self.device, &ticks.control()))?;
            let mut between = ticks.between();
            between.sort_by(f64::total_cmp);
            between.get(between.len() / 2).copied().ok_or_else(|| Error::internal("one batch was enough"))
        })?;
        Ok(Measured { seconds, unit: "batch", input_bytes: 4 * values.len(), peak: memory })
    }

    fn weights(&self) -> Result<Measured> {
        let values = self.blobs();
        // Classes follow the points, as long as there are points enough.
        let points = if self.k > BLOBS { self.k } else { BLOBS };
        let classes: Vec<Option<u32>> = (0..self.rows).map(|i| Some((i % points % self.k) as u32)).collect();
        let rows = Dense::new(&values, self.dim);
        let labels = WeightLabels::Column("class".into());
        let stage = FeatureWeightsStage::new(WeightsSpec::new(labels));
        let control = Control::default();
        let cx = FitContext {
            seed: Seed(1),
            device: &self.device,
            control: &control,
            checkpoint: &NoCheckpoint,
            memory: u64::MAX,
        };
        let data = Training { classes: Some(&classes), ..Training::new(&rows) };
        let memory = Memory::now();
        let seconds = self.time(|| stage.fit(&data, &cx).map(|fitted| drop(black_box(fitted))))?;
        let input_bytes = 4 * values.len() + std::mem::size_of_val(&classes[..]);
        Ok(Measured { seconds, unit: "pass", input_bytes, peak: memory })
    }

    /// Neighbours, graph, start, and as many epochs for any number of rows.
    fn manifold(&self) -> Result<Measured> {
        const EPOCHS: usize = 100;
        let values = self.blobs();
        let rows = Dense::new(&values, self.dim);
        let spec =
            ManifoldSpec { neighbors: self.k, dim: CODE, min_dist: 0.0, epochs: Some(EPOCHS), ..Default::default() };
        let stage = ManifoldStage { spec };
        let control = Control::default();
        let cx = FitContext {
            seed: Seed(1),
            device: &self.device,
            control: &control,
            checkpoint: &NoCheckpoint,
            memory: u64::MAX,
        };
        let data = Training::new(&rows);
        let memory = Memory::now();
        let seconds = self.time(|| stage.fit(&data, &cx).map(|fitted| drop(black_box(fitted))))?;
        Ok(Measured { seconds, unit: "layout", input_bytes: 4 * values.len(), peak: memory })
    }

    /// `dim - width - 10` and its mirror.
    fn architecture(&self) -> Architecture {
        Architecture::dac(self.dim, &[self.width, CODE], Some(&[self.width]))
    }

    fn train(&self) -> Result<Measured> {
        const STEPS: usize = 16;
        let values = self.blobs();
        let rows = Dense::new(&values, self.dim);
        // A prime step visits rows all over the data, each once per round.
        let mut indices = (0..).map(|i: usize| (i * 1_000_003 % self.rows) as u32);
        let architecture = self.architecture();
        let parameters = initialise(&architecture, Seed(1));
        let memory = Memory::now();
        let loss = WeightedMse { weights: vec![0.5; self.dim] };
        let mut trainer = self.device.trainer(&rows, &architecture, &parameters, loss, self.batch)?;
        let mut next: Vec<u32> = indices.by_ref().take(self.batch).collect();
        trainer.load(&next)?;
        let penalty = L2Penalty { beta: 1e-5, form: PenaltyForm::Norm };
        let settings = StepSettings { learning_rate: 1e-3, penalty, reconstruction: 1.0, embedding: None };
        let seconds = self.time(|| {
            for _ in 0..STEPS {
                next.iter_mut().zip(&mut indices).for_each(|(to, i)| *to = i);
                black_box(trainer.step(&next, &settings)?);
            }
            Ok(())
        })? / STEPS as f64;
        Ok(Measured { seconds, unit: "step", input_bytes: 4 * values.len(), peak: memory })
    }

    fn encode(&self) -> Result<Measured> {
        const TASK_ROWS: usize = 512;
        let values = self.blobs();
        let architecture = self.architecture();
        let parameters = initialise(&architecture, Seed(1));
        let memory = Memory::now();
        let encoder = Encoder::new(&architecture, &parameters);
        let mut embeddings = vec![0.0; self.rows * CODE];
        let seconds = self.time(|| {
            self.device.pool().for_each_chunk_mut(&mut embeddings, TASK_ROWS * CODE, |i, out| {
                let first = i * TASK_ROWS * self.dim;
                encoder.encode(&values[first..first + out.len() / CODE * self.dim], out);
            });
            Ok(())
        })?;
        black_box(embeddings);
        Ok(Measured { seconds, unit: "pass", input_bytes: 4 * values.len(), peak: memory })
    }

    /// Learns the scale and maps all rows, a block at a time, as a stage does.
    fn scale(&self) -> Result<Measured> {
        let values = self.blobs();
        let rows = Dense::new(&values, self.dim);
        let block = fold::block_rows(self.dim) * self.dim;
        let memory = Memory::now();
        let seconds = self.time(|| {
            let scale = Scale::learn(&rows, ScaleMethod::MinMax, self.device.pool())?;
            let blocks: Vec<&[f32]> = values.chunks(block).collect();
            self.device.pool().run(blocks.len(), |i| {
                let mut scaled = vec![0.0; blocks[i].len()];
                black_box(scale.map(blocks[i], &mut scaled)).expect("whole rows");
                black_box(scaled);
            });
            Ok(())
        })?;
        Ok(Measured { seconds, unit: "pass", input_bytes: 4 * values.len(), peak: memory })
    }

    /// `rows` windows of `window` samples with half overlap, two hundred a recording: filters and features.
    fn features(&self, set: &FeatureSet, window: usize) -> Result<Measured> {
        const OF_RECORDING: usize = 200;
        let spec = WindowSpec { length: window, stride: window.div_ceil(2), within: Within::Recordings };
        let channels = ["ax", "ay", "az", "gx", "gy", "gz"].map(String::from);
        let extractor = FeatureExtractor::new(set, &channels, 50.0, &spec)?;
        let recording = gait(spec.stride * (OF_RECORDING - 1) + window);
        let recordings = self.rows.div_ceil(OF_RECORDING);
        let memory = Memory::now();
        let seconds = self.time(|| {
            let done = self.device.pool().map(recordings, |i| {
                let prepared = extractor.prepare(&recording)?;
                let (mut scratch, mut row) = (extractor.scratch(), vec![0.0; extractor.dim()]);
                for w in 0..OF_RECORDING.min(self.rows - i * OF_RECORDING) {
                    extractor.extract(&mut scratch, &prepared, w * spec.stride, &mut row)?;
                    black_box(&row);
                }
                Ok(())
            });
            done.into_iter().collect()
        })? / self.rows as f64;
        let input_bytes = 8 * channels.len() * recording[0].len();
        Ok(Measured { seconds, unit: "window", input_bytes, peak: memory })
    }

    /// `model/` and `rows.parquet` (columns `id` and `features`) in `directory`.
    fn write(&self, directory: &Path) -> Result<()> {
        const SAMPLE: usize = 20_000;
        let sample = blobs(SAMPLE, self.dim, 0, self.device.pool());
        let scale = Scale::learn(&Dense::new(&sample, self.dim), ScaleMethod::MinMax, self.device.pool())?;
        let architecture = self.architecture();
        let embed = Embed::new(&architecture, &initialise(&architecture, Seed(1)), &self.device)?;
        let (mut scaled, mut embedded) = (vec![0.0; sample.len()], vec![0.0; SAMPLE * CODE]);
        scale.map(&sample, &mut scaled)?;
        embed.map(&scaled, &mut embedded)?;
        let spec = KMeansSpec { n_init: 1, ..KMeansSpec::new(self.k) };
        let found = fit(&Dense::new(&embedded, CODE), &spec, Seed(1), &self.device, &Control::default())?;
        let label = Label::new(&found, dacpipe::stage::EMBEDDING, &self.device)?;
        let manifest = Manifest { name: "growth".into(), input: ModelInput::bare(self.dim), ..Manifest::default() };
        let model = Model::new(manifest, vec![Arc::new(scale), Arc::new(embed), Arc::new(label)])?;
        std::fs::create_dir_all(directory).map_err(|e| cannot_write(directory, e))?;
        let models = Location::parse(&directory.join("models").to_string_lossy())?;
        let saved =
            tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(model.save(&models))?;
        self.write_rows(&directory.join("rows.parquet"))?;
        println!("{}", json!({ "model": saved.to_string() }));
        Ok(())
    }

    fn write_rows(&self, path: &Path) -> Result<()> {
        const PART: usize = 1 << 13;
        let part = |first: usize| -> Result<RecordBatch> {
            let rows = PART.min(self.rows - first);
            let ids = Int32Array::from_iter_values(first as i32..(first + rows) as i32);
            let values = vector_array(blobs(rows, self.dim, first, self.device.pool()), self.dim)?;
            Ok(RecordBatch::try_from_iter([("id", Arc::new(ids) as ArrayRef), (FEATURES, values)])?)
        };
        let file = std::fs::File::create(path).map_err(|e| cannot_write(path, e))?;
        // Row groups of a million rows, as most writers make them: reading must not hold a whole one.
        let properties = WriterProperties::builder().set_dictionary_enabled(false).build();
        let mut writer = ArrowWriter::try_new(file, part(0)?.schema(), Some(properties))?;
        for first in (0..self.rows).step_by(PART) {
            writer.write(&part(first)?)?;
        }
        writer.close()?;
        Ok(())
    }
}

fn cannot_write(path: &Path, e: std::io::Error) -> Error {
    Error::io(format!("cannot write {}", path.display())).with_source(e)
}

/// Rows `first ..` of an endless table; see [`Case::blobs`].
fn blobs(rows: usize, dim: usize, first: usize, pool: &Pool) -> Vec<f32> {
    const CHUNK: usize = 256;
    let centers: Vec<f32> = (0..BLOBS * dim).map(|i| 0.25 + 0.5 * unit(&mut mixed(i as u64))).collect();
    let mut values = vec![0.0; rows * dim];
    pool.for_each_chunk_mut(&mut values, CHUNK * dim, |chunk, values| {
        for (i, row) in values.chunks_exact_mut(dim).enumerate() {
            let i = first + chunk * CHUNK + i;
            let mut state = mixed(!(i as u64));
            for (x, center) in row.iter_mut().zip(&centers[i % BLOBS * dim..]) {
                // Four uniform numbers add up to something close to a normal one, of standard deviation 0.15 here.
                let bits = next(&mut state);
                let sum: u64 = (0..4).map(|part| bits >> (16 * part) & 0xffff).sum();
                *x = (center + 0.26 * (sum as f32 / 65536.0 - 2.0)).clamp(0.0, 1.0);
            }
        }
    });
    values
}

/// Six channels of waves and noise.
fn gait(samples: usize) -> Vec<Vec<f64>> {
    let mut state = mixed(1);
    let mut sample = |c: usize, t: usize| {
        let s = t as f64 / 50.0;
        let wave = (11.3 * s + c as f64).sin() + 0.4 * (22.6 * s).cos() + 0.2 * f64::from(unit(&mut state));
        ((0.5 * (s / 9.0).cos() + 0.3 * wave) * 720.0).round() / 720.0
    };
    (0..6).map(|c| (0..samples).map(|t| sample(c, t)).collect()).collect()
}

/// A state of [`next`] that is unlike those of neighbouring numbers.
fn mixed(i: u64) -> u64 {
    let i = (i ^ i >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9).wrapping_add(0x9e37_79b9_7f4a_7c15);
    (i ^ i >> 27).wrapping_mul(0x94d0_49bb_1331_11eb) | 1
}

/// Sixty-four bits without a pattern (xorshift64*): cheap, because the rows are only made, never judged.
fn next(state: &mut u64) -> u64 {
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    state.wrapping_mul(0x2545_f491_4f6c_dd1d)
}

fn unit(state: &mut u64) -> f32 {
    (next(state) >> 40) as f32 / (1 << 24) as f32
}

/// A fit that was told to stop when enough was seen.
fn stopped<T>(result: Result<T>) -> Result<()> {
    match result {
        Err(e) if e.kind() != Kind::Cancelled => Err(e),
        _ => Ok(()),
    }
}

/// Records the times of k-means iterations, and stops it after `most` of them.
struct Ticks {
    began: Instant,
    most: usize,
    seen: Mutex<Vec<Instant>>,
    control: OnceLock<Control>,
}

impl Ticks {
    fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { began: Instant::now(), most, seen: Mutex::default(), control: OnceLock::new() })
    }

    fn control(self: &Arc<Self>) -> Control {
        let control = Control::new(Arc::clone(self) as Arc<dyn Observer>);
        self.control.get_or_init(|| control).clone()
    }

    /// Seconds from the beginning to the end of the first iteration.
    fn first(&self) -> f64 {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.first().map_or(f64::INFINITY, |first| (*first - self.began).as_secs_f64())
    }

    /// Seconds of each iteration after the first.
    fn between(&self) -> Vec<f64> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.windows(2).map(|w| (w[1] - w[0]).as_secs_f64()).collect()
    }
}

impl Observer for Ticks {
    fn event(&self, event: &Event) {
        if let Event::Progress { .. } = event {
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            seen.push(Instant::now());
            if let (true, Some(control)) = (seen.len() >= self.most, self.control.get()) {
                control.cancel();
            }
        }
    }
}

/// Measures memory from a moment on. Linux only; elsewhere nothing is measured.
struct Memory {
    before: Option<u64>,
}

impl Memory {
    /// Forgets the peak so far.
    fn now() -> Self {
        // Where this is not allowed, the peak so far stays: making the rows takes little more than their size.
        let _ = std::fs::write("/proc/self/clear_refs", "5");
        Self { before: status("VmRSS:") }
    }

    /// The most bytes held since then.
    fn whole(&self) -> Option<u64> {
        status("VmHWM:")
    }

    /// How many bytes more than at that moment.
    fn more(&self) -> Option<u64> {
        Some(self.whole()?.saturating_sub(self.before?))
    }
}

/// A line of the process's status that counts kB, in bytes.
fn status(name: &str) -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    Some(1024 * line.trim().trim_end_matches(" kB").parse::<u64>().ok()?)
}
