//! Our side of `bench/race.sh`: runs one task on the same inputs as the peers, and prints one JSON line.
//!
//! `race LINE` with `RACE_DIR` (inputs), `THREADS`, `HAPT` and `RECORDINGS` in the environment; see `bench/race.sh`.

use std::hint::black_box;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use datafusion::execution::context::{SessionConfig, SessionContext};
use datafusion::prelude::{col, lit};
use futures::TryStreamExt;
use serde_json::{Value, json};

use dacpipe::deep_clustering::DeepClustering;
use dacpipe::device::{Cpu, Device, StepSettings};
use dacpipe::event::{Control, Event, Observer};
use dacpipe::kernel::Dense;
use dacpipe::kernel::distance::Centroids;
use dacpipe::kernel::gemm::{Left, Panels, Start, gemm};
use dacpipe::kernel::moments::Moments;
use dacpipe::kmeans::{Decay, KMeans, KMeansSpec, Method, OnlineKMeans, OnlineSpec, around, fit, fit_from};
use dacpipe::loss::{L2Penalty, PenaltyForm, WeightedMse};
use dacpipe::manifold::{ManifoldSpec, ManifoldStage, Subset, trustworthiness};
use dacpipe::method::{Method as Papers, MethodSpec};
use dacpipe::metrics::Contingency;
use dacpipe::network::{Architecture, Encoder};
use dacpipe::signal::features::FeatureSet;
use dacpipe::signal::window::{WindowSpec, Within};
use dacpipe::source::{BadRows, HaptSpec, SourceOptions, SourceSpec};
use dacpipe::stage::{Fit, FitContext, NoCheckpoint, Training};
use dacpipe::{Error, Result, Seed};

fn main() -> Result<()> {
    let words = std::env::args().skip(1);
    // Cargo passes --bench on.
    let lines: Vec<String> = words.filter(|w| !w.starts_with("--")).collect();
    if lines.is_empty() {
        eprintln!("race: name a line; bench/race.sh --list shows them");
    }
    for line in lines {
        println!("{}", Race::new(&line).run()?);
    }
    Ok(())
}

/// One line of the race.
struct Race {
    line: String,
    threads: usize,
    device: Cpu,
}

/// The rows per second of each epoch.
#[derive(Default)]
struct Speeds(Mutex<Vec<f64>>);

impl Observer for Speeds {
    fn event(&self, event: &Event) {
        if let Event::Progress { stage, rows_per_second: Some(speed), .. } = event
            && stage == DeepClustering::KIND
        {
            self.0.lock().unwrap_or_else(|e| e.into_inner()).push(*speed);
        }
    }
}

/// The result of a line.
struct Measured {
    rows: usize,
    seconds: f64,
    flops: Option<f64>,
    check: Value,
}

impl Race {
    fn new(line: &str) -> Self {
        let threads = number("THREADS", 2);
        Self { line: line.to_string(), threads, device: Cpu::new(threads) }
    }

    fn run(&self) -> Result<Value> {
        let found = match self.line.as_str() {
            "floors" => return Ok(self.floors()),
            "features" => self.features()?,
            "weights" => self.weights()?,
            "minibatch" => self.minibatch()?,
            line if line.starts_with("manifold") => return self.manifold(),
            line if line.starts_with("method") => self.method()?,
            line if line.starts_with("train") => self.train()?,
            line if line.starts_with("encode") => self.encode()?,
            line if line.starts_with("lloyd") => self.lloyd()?,
            line if line.starts_with("online") => self.online()?,
            line => return Err(Error::config(format!("no line {line:?}; bench/race.sh --list shows them"))),
        };
        let Measured { rows, seconds, flops, check } = found;
        let mut line = json!({
            "peer": "dacpipe", "work": self.line, "rows": rows, "seconds": seconds,
            "rows_per_second": rows as f64 / seconds, "threads": self.threads, "check": check,
        });
        if let Some(flops) = flops {
            line["flops"] = json!(flops);
        }
        Ok(line)
    }

    fn path(&self, name: &str) -> PathBuf {
        let directory = std::env::var("RACE_DIR").unwrap_or_else(|_| "target/race".into());
        PathBuf::from(directory).join(&self.line).join(name)
    }

    fn bytes(&self, name: &str) -> Result<Vec<u8>> {
        let path = self.path(name);
        let missing = |e| Error::io(format!("cannot read {}; bench/race.sh writes it", path.display())).with_source(e);
        std::fs::read(&path).map_err(missing)
    }

    fn words<T>(&self, name: &str, decode: fn([u8; 4]) -> T) -> Result<Vec<T>> {
        Ok(self.bytes(name)?.as_chunks().0.iter().map(|word| decode(*word)).collect())
    }

    fn floats(&self, name: &str) -> Result<Vec<f32>> {
        self.words(name, f32::from_le_bytes)
    }

    fn integers(&self, name: &str) -> Result<Vec<u32>> {
        self.words(name, u32::from_le_bytes)
    }

    fn settings(&self) -> Result<Settings> {
        let bytes = self.bytes("case.json")?;
        let damaged = |e| Error::input(format!("{} is damaged", self.path("case.json").display())).with_source(e);
        Ok(Settings(serde_json::from_slice(&bytes).map_err(damaged)?))
    }

    /// The network of the case, with its concatenated parameters moved to their places in the network.
    fn network(&self, case: &Settings) -> Result<(Architecture, Vec<f32>)> {
        let widths = case.widths();
        let mirror: Vec<usize> = widths[1..widths.len() - 1].iter().rev().copied().collect();
        let architecture = Architecture::dac(widths[0], &widths[1..], Some(&mirror));
        let given = self.floats("parameters.f32")?;
        let mut parameters = vec![0.0; architecture.flat_len()];
        let mut at = 0;
        for tensor in architecture.tensors() {
            let len = tensor.range.len();
            parameters[tensor.range].copy_from_slice(&given[at..at + len]);
            at += len;
        }
        Ok((architecture, parameters))
    }

    /// Epochs of a deep clustering network over rows that it makes itself, as `bench/peers/method.py` does.
    fn method(&self) -> Result<Measured> {
        const ROWS: usize = 8192;
        let training = json!({ "epochs": 5, "learning_rate": 0.001, "optimizer": { "kind": "adam" } });
        let none = json!({ "epochs": 0 });
        let given = match self.line.as_str() {
            "method-dense" => {
                let mut clustering = training;
                clustering["reconstruction"] = json!(1.0);
                clustering["refresh"] = json!(1_000_000);
                json!({ "k": 10, "n_init": 1, "pretraining": none, "clustering": clustering })
            }
            _ => {
                let conv = |channels: usize, kernel: usize, padding: usize| {
                    json!({ "kind": "conv2d", "channels": channels, "kernel": kernel, "stride": 2, "padding": padding,
                            "activation": "relu" })
                };
                let flat = json!({ "kind": "reshape", "shape": [1152] });
                let encoder =
                    json!([conv(32, 5, 2), conv(64, 5, 2), conv(128, 3, 0), flat, { "kind": "dense", "outputs": 10 }]);
                json!({ "k": 10, "n_init": 1, "shape": [1, 28, 28], "encoder": encoder, "pretraining": training,
                        "clustering": none })
            }
        };
        let spec = MethodSpec::of(Papers::Dec, &given)?;
        let mut random = Seed(1).stream("rows", 0);
        let values: Vec<f32> = (0..ROWS * 784).map(|_| rand::Rng::random(&mut random)).collect();
        let rows = Dense::new(&values, 784);
        let seen = Arc::new(Speeds::default());
        let control = Control::new(Arc::clone(&seen) as Arc<dyn Observer>);
        let cx = FitContext {
            seed: Seed(1),
            device: &self.device,
            control: &control,
            checkpoint: &NoCheckpoint,
            memory: u64::MAX,
        };
        let fitted = DeepClustering { spec }.fit(&Training::new(&rows), &cx)?;
        let mut speeds = seen.0.lock().unwrap_or_else(|e| e.into_inner()).split_off(1);
        speeds.sort_by(f64::total_cmp);
        let seconds = ROWS as f64 / speeds[speeds.len() / 2];
        let last = fitted.figures["loss"].as_array().and_then(|losses| losses.last().cloned()).unwrap_or_default();
        Ok(Measured { rows: ROWS, seconds, flops: None, check: json!({ "loss": last }) })
    }

    fn train(&self) -> Result<Measured> {
        let case = self.settings()?;
        let values = self.floats("rows.f32")?;
        let (architecture, parameters) = self.network(&case)?;
        let dim = architecture.dim_in();
        let rows = Dense::new(&values, dim);
        let loss = WeightedMse { weights: self.floats("weights.f32")? };
        let order = self.integers("order.u32")?;
        let matrices: usize = architecture.layers().map(|l| l.inputs * l.outputs).sum();
        let first = architecture.encoder[0].inputs * architecture.encoder[0].outputs;
        let batch = case.number("batch");
        let penalty = L2Penalty { beta: case.float("l2"), form: PenaltyForm::Squared };
        let learning_rate = case.float("learning_rate");
        let settings = StepSettings { learning_rate, penalty, reconstruction: 1.0, embedding: None };
        let mut trainer = self.device.trainer(&rows, &architecture, &parameters, loss, batch)?;
        let mut epoch = |order: &[u32]| -> Result<f64> {
            let batches: Vec<&[u32]> = order.chunks(batch).collect();
            trainer.load(batches[0])?;
            let mut total = 0.0;
            for i in 0..batches.len() {
                let next = batches.get(i + 1).copied().unwrap_or_default();
                total += trainer.step(next, &settings)?.reconstruction;
            }
            Ok(total / batches.len() as f64)
        };
        let count = case.number("rows");
        let mut epochs = order.chunks(count);
        let warm_up = epochs.next().unwrap_or_default();
        epoch(warm_up)?;
        let mut last = f64::NAN;
        let clock = Instant::now();
        for order in epochs {
            last = epoch(order)?;
        }
        let seconds = clock.elapsed().as_secs_f64();
        let rows = count * (case.number("epochs") - 1);
        let flops = ((6 * matrices - 2 * first) * rows) as f64;
        Ok(Measured { rows, seconds, flops: Some(flops), check: json!({ "loss": last }) })
    }

    fn encode(&self) -> Result<Measured> {
        // Rows that one task encodes: small enough for an even division, large enough to outweigh the overhead.
        const TASK_ROWS: usize = 512;
        let case = self.settings()?;
        let values = self.floats("rows.f32")?;
        let (architecture, parameters) = self.network(&case)?;
        let encoder = Encoder::new(&architecture, &parameters);
        let (dim, code) = (encoder.dim_in(), encoder.dim_out());
        let batch = case.number("batch");
        let mut embeddings = vec![0.0f32; values.len() / dim * code];
        let mut pass = || {
            for (input, output) in values.chunks(batch * dim).zip(embeddings.chunks_mut(batch * code)) {
                self.device.pool().for_each_chunk_mut(output, TASK_ROWS * code, |i, output| {
                    let first = i * TASK_ROWS * dim;
                    encoder.encode(&input[first..first + output.len() / code * dim], output);
                });
            }
        };
        pass();
        let clock = Instant::now();
        for _ in 0..case.number("repeats") {
            pass();
        }
        let seconds = clock.elapsed().as_secs_f64();
        let rows = case.number("rows") * case.number("repeats");
        let weights: usize = architecture.encoder.iter().map(|l| l.inputs * l.outputs).sum();
        let sum: f64 = embeddings.iter().map(|x| f64::from(x.abs())).sum();
        let check = json!({ "sum of magnitudes": sum });
        Ok(Measured { rows, seconds, flops: Some((2 * weights * rows) as f64), check })
    }

    /// The same recordings as the peer, five times, because once is over too soon to be timed.
    fn features(&self) -> Result<Measured> {
        const REPEATS: usize = 5;
        let directory = std::env::var("HAPT").unwrap_or_else(|_| "examples/data/hapt".into());
        let spec = SourceSpec::Hapt(HaptSpec { path: directory });
        let options = SourceOptions {
            window: Some(WindowSpec { length: 128, stride: 64, within: Within::Labels }),
            features: Some(FeatureSet::Hapt561),
            threads: self.threads,
            ..SourceOptions::default()
        };
        let most = number("RECORDINGS", 4) as i32;
        let config = SessionConfig::new().with_target_partitions(self.threads);
        let context = SessionContext::new_with_config(config);
        runtime(self.threads)?.block_on(async {
            let clock = Instant::now();
            let mut windows = 0;
            for _ in 0..REPEATS {
                let source = dacpipe::source::open(&spec, &options, Arc::new(BadRows::new())).await?;
                let frame = context.read_table(source.provider)?.filter(col("experiment").lt_eq(lit(most)))?;
                let mut batches = frame.execute_stream().await?;
                while let Some(batch) = batches.try_next().await? {
                    windows += batch.num_rows();
                }
            }
            let seconds = clock.elapsed().as_secs_f64();
            Ok(Measured { rows: windows, seconds, flops: None, check: json!({ "windows": windows / REPEATS }) })
        })
    }

    fn weights(&self) -> Result<Measured> {
        let case = self.settings()?;
        let (dim, sample) = (case.number("dim"), case.number("sample"));
        let rows = self.floats("rows.f32")?;
        let classes: Vec<Option<u32>> = self.integers("labels.u32")?.into_iter().map(Some).collect();
        let count = classes.iter().flatten().max().map_or(0, |c| *c as usize + 1);
        let weights = |rows: &[f32], classes: &[Option<u32>]| -> Vec<f64> {
            let mut moments = Moments::new(count, dim);
            moments.add(rows, classes, self.device.pool());
            let (same_pairs, other_pairs) = moments.pairs();
            let weight = |(same, other): (f64, f64)| same / same_pairs * (1.0 - other / other_pairs);
            moments.pair_sums().into_iter().map(weight).collect()
        };
        let clock = Instant::now();
        black_box(weights(&rows, &classes));
        let seconds = clock.elapsed().as_secs_f64();
        let of_sample: f64 = weights(&rows[..sample * dim], &classes[..sample]).iter().sum();
        let check = json!({ "weight sum of the sample": of_sample });
        Ok(Measured { rows: classes.len(), seconds, flops: None, check })
    }

    fn lloyd(&self) -> Result<Measured> {
        let case = self.settings()?;
        let (dim, k) = (case.number("dim"), case.number("k"));
        let values = self.floats("rows.f32")?;
        let init = self.floats("init.f32")?;
        let spec = KMeansSpec { tolerance: 0.0, max_iterations: case.number("max_iterations"), ..KMeansSpec::new(k) };
        let rows = Dense::new(&values, dim);
        let clock = Instant::now();
        let KMeans { inertia, iterations, .. } = fit_from(&rows, &spec, init, &self.device, &Control::default())?;
        let seconds = clock.elapsed().as_secs_f64();
        let rows = case.number("rows") * iterations;
        let check = json!({ "inertia": inertia, "iterations": iterations });
        Ok(Measured { rows, seconds, flops: Some((2 * rows * k * dim) as f64), check })
    }

    fn minibatch(&self) -> Result<Measured> {
        let case = self.settings()?;
        let values = self.floats("rows.f32")?;
        let spec = KMeansSpec {
            n_init: 1,
            max_iterations: case.number("max_iterations"),
            tolerance: 0.0,
            method: Method::MiniBatch { batch_size: case.number("batch") },
            ..KMeansSpec::new(case.number("k"))
        };
        let rows = Dense::new(&values, case.number("dim"));
        let clock = Instant::now();
        let found = fit(&rows, &spec, Seed(number("PAIR", 0) as u64), &self.device, &Control::default())?;
        let seconds = clock.elapsed().as_secs_f64();
        let check = json!({ "inertia (3 %)": found.inertia });
        Ok(Measured { rows: found.iterations * case.number("batch"), seconds, flops: None, check })
    }

    /// Every batch once, as often over the rows as the case says, without decay and without clusters that begin anew.
    fn online(&self) -> Result<Measured> {
        let case = self.settings()?;
        let (dim, k, rounds) = (case.number("dim"), case.number("k"), case.number("rounds"));
        let values = self.floats("rows.f32")?;
        let init = self.floats("init.f32")?.into_iter().map(f64::from).collect();
        let spec = OnlineSpec { revive: 0.0, ..OnlineSpec::new(k, Decay::None) };
        let mut learner = OnlineKMeans::warm(spec, init, vec![0.0; k])?;
        let clock = Instant::now();
        for _ in 0..rounds {
            for batch in values.chunks(case.number("batch") * dim) {
                learner.partial_fit(&Dense::new(batch, dim), None, &self.device)?;
            }
        }
        let seconds = clock.elapsed().as_secs_f64();
        let found = around(&Dense::new(&values, dim), learner.rounded(), &self.device)?;
        let rows = case.number("rows") * rounds;
        let check = json!({ "inertia (1e-3)": found.inertia });
        Ok(Measured { rows, seconds, flops: Some((2 * rows * k * dim) as f64), check })
    }

    /// The whole manifold stage, and then the figures that the peer gives for its own layout.
    fn manifold(&self) -> Result<Value> {
        let case = self.settings()?;
        let values = self.floats("rows.f32")?;
        let (labels, sample) = (self.integers("labels.u32")?, self.integers("sample.u32")?);
        let rows = Dense::new(&values, case.number("dim"));
        let dim = case.number("coordinates");
        let spec = ManifoldSpec { neighbors: case.number("neighbors"), dim, min_dist: 0.0, ..Default::default() };
        let (seed, control) = (Seed(number("PAIR", 0) as u64), Control::default());
        let cx =
            FitContext { seed, device: &self.device, control: &control, checkpoint: &NoCheckpoint, memory: u64::MAX };
        let clock = Instant::now();
        let fitted = ManifoldStage { spec }.fit(&Training::new(&rows), &cx)?;
        let seconds = clock.elapsed().as_secs_f64();
        let found = fitted.transform.coordinates().ok_or_else(|| Error::internal("a manifold without a layout"))?;
        let placed: Vec<f32> = sample.iter().flat_map(|&i| &found.values[i as usize * dim..][..dim]).copied().collect();
        let kept = trustworthiness(&Subset::of(&rows, sample), &placed, dim, 15, self.device.pool())?;
        let laid_out = Dense::new(&found.values, dim);
        let spec = KMeansSpec::new(case.number("k"));
        let clusters = fit(&laid_out, &spec, seed, &self.device, &control)?;
        let (mut table, centroids) = (Contingency::default(), Centroids::new(&clusters.centroids, dim));
        let (mut own, mut squared) = (vec![0; labels.len()], vec![0.0; labels.len()]);
        centroids.nearest(&found.values, &mut own, &mut squared);
        own.iter().zip(&labels).for_each(|(&cluster, &label)| table.add(cluster, label));
        Ok(json!({
            "peer": "dacpipe", "work": self.line, "rows": labels.len(), "seconds": seconds,
            "rows_per_second": labels.len() as f64 / seconds, "threads": self.threads, "ari": table.ari(),
            "recall": fitted.figures["recall"], "check": { "trustworthiness (1 %)": kept },
        }))
    }

    /// The best of seven tries of a square matrix product and of reading half a GiB.
    fn floors(&self) -> Value {
        const SIZE: usize = 2048;
        const BLOCK: usize = 64;
        let a = vec![0.5f32; SIZE * SIZE];
        let b = Panels::from_rows(&a, SIZE, SIZE);
        let mut out = vec![0.0f32; SIZE * SIZE];
        let product = best(|| {
            self.device.pool().for_each_chunk_mut(&mut out, BLOCK * SIZE, |i, out| {
                let left = Left::rows(&a[i * BLOCK * SIZE..], SIZE);
                gemm(out.len() / SIZE, left, b.right(), Start::Zero, out, SIZE);
            });
        });
        let numbers = vec![1.0f32; 1 << 27];
        let read = best(|| {
            const PART: usize = 1 << 20;
            let sums = self.device.pool().map(numbers.len() / PART, |i| {
                let mut lanes = [0.0f32; 64];
                for line in numbers[i * PART..(i + 1) * PART].chunks_exact(64) {
                    lanes.iter_mut().zip(line).for_each(|(sum, x)| *sum += x);
                }
                lanes.iter().sum::<f32>()
            });
            black_box(sums);
        });
        json!({
            "floor": "dacpipe", "threads": self.threads,
            "gemm_gflops": 2.0 * (SIZE * SIZE * SIZE) as f64 / product / 1e9,
            "memory_gb_per_second": numbers.len() as f64 * 4.0 / read / 1e9,
        })
    }
}

/// The description of a case by `prepare.py`.
struct Settings(Value);

impl Settings {
    fn number(&self, name: &str) -> usize {
        self.0[name].as_u64().unwrap_or_default() as usize
    }

    fn float(&self, name: &str) -> f64 {
        self.0[name].as_f64().unwrap_or_default()
    }

    fn widths(&self) -> Vec<usize> {
        let widths = self.0["widths"].as_array().map(Vec::as_slice).unwrap_or_default();
        widths.iter().filter_map(|w| w.as_u64()).map(|w| w as usize).collect()
    }
}

fn number(variable: &str, otherwise: usize) -> usize {
    std::env::var(variable).ok().and_then(|v| v.parse().ok()).unwrap_or(otherwise)
}

fn runtime(threads: usize) -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build()?)
}

/// Seconds of the fastest of seven calls, after one to warm up.
fn best(mut work: impl FnMut()) -> f64 {
    work();
    let time = |_| {
        let clock = Instant::now();
        work();
        clock.elapsed().as_secs_f64()
    };
    (0..7).map(time).fold(f64::INFINITY, f64::min)
}
