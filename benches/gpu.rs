//! Training steps and encoding on a device, as `train_step.py` of the peers measures PyTorch: the same networks, a line of
//! JSON each.
//!
//! `cargo bench --bench gpu --features cuda -- cuda 561,256,128,64,32,16,12,10` (device, the encoder's widths from the input
//! on). Each epoch shuffles the rows and reads the losses once.

use std::time::Instant;

use dacpipe::device::{DeviceChoice, StepSettings};
use dacpipe::kernel::Dense;
use dacpipe::loss::{L2Penalty, PenaltyForm, WeightedMse};
use dacpipe::network::{Architecture, initialise};
use dacpipe::{Result, Seed};
use rand::seq::SliceRandom;

const BATCH: usize = 256;
const ROWS: usize = 8192;
const EPOCHS: u32 = 20;

fn main() -> Result<()> {
    // Cargo adds `--bench`.
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with("--")).collect();
    let device = arguments.first().map_or("cpu", String::as_str);
    let dims = arguments.get(1).map_or("561,256,128,64,32,16,12,10", String::as_str);
    let widths: Vec<usize> = dims.split(',').filter_map(|width| width.parse().ok()).collect();
    let choice: DeviceChoice = device.parse().map_err(dacpipe::Error::config)?;
    let (dim, encoder) = widths.split_first().ok_or_else(|| dacpipe::Error::config("no widths of layers"))?;
    let mirror: Vec<usize> = encoder.iter().rev().skip(1).copied().collect();
    let architecture = Architecture::dac(*dim, encoder, Some(&mirror));
    let values: Vec<f32> =
        (0..ROWS * dim).map(|i| ((i as u32).wrapping_mul(2_654_435_761) >> 8) as f32 / 16_777_216.0).collect();
    let rows = Dense::new(&values, *dim);
    let device = choice.open(dacpipe::device::threads(None)?)?;
    let parameters = initialise(&architecture, Seed(1));
    let loss = WeightedMse { weights: vec![0.5; *dim] };
    let mut trainer = device.trainer(&rows, &architecture, &parameters, loss, BATCH)?;
    let penalty = L2Penalty { beta: 1e-5, form: PenaltyForm::Squared };
    let settings = StepSettings { learning_rate: 0.003, penalty, reconstruction: 1.0, embedding: None };
    let mut order: Vec<u32> = (0..ROWS as u32).collect();
    let mut losses = Vec::new();
    let mut epoch = |number: u64| -> Result<()> {
        order.shuffle(&mut Seed(1).stream("shuffle", number));
        let batches: Vec<&[u32]> = order.chunks(BATCH).collect();
        trainer.load(batches[0])?;
        let mut sum = 0.0;
        for i in 0..batches.len() {
            let next = batches.get(i + 1).copied().unwrap_or(&[]);
            let known = trainer.step_ahead(next, &settings)?;
            sum += known.map_or(0.0, |loss| loss.reconstruction * batches[i].len() as f64);
        }
        losses.push((sum + trainer.met()?.sums.reconstruction) / ROWS as f64);
        Ok(())
    };
    // The first compiles kernels, and the second records the step.
    epoch(0)?;
    epoch(1)?;
    let began = Instant::now();
    (0..EPOCHS).try_for_each(|i| epoch(2 + u64::from(i)))?;
    let seconds = began.elapsed().as_secs_f64();
    let done = (ROWS * EPOCHS as usize) as f64;
    let flops = 6.0 * architecture.parameter_count() as f64 * done;
    let line = |work: String, rows: f64, seconds: f64, more: String| {
        println!(
            "{{\"peer\": \"dacpipe\", \"work\": \"{work}\", \"rows\": {rows}, \"seconds\": {seconds:.6}, \
             \"rows_per_second\": {:.0}{more}}}",
            rows / seconds
        );
    };
    let more = format!(
        ", \"gflops\": {:.1}, \"first_loss\": {:.6}, \"last_loss\": {:.6}",
        flops / seconds / 1e9,
        losses[0],
        losses[losses.len() - 1]
    );
    line(format!("train {dims} batch {BATCH} {choice}"), done, seconds, more);
    let encode = device.encoder(&architecture, &parameters)?;
    let mut output = vec![0.0; ROWS * architecture.dim_embedding()];
    encode.encode(&values, &mut output)?;
    let began = Instant::now();
    (0..5).try_for_each(|_| encode.encode(&values, &mut output))?;
    line(
        format!("encode {dims} {choice}, rows sent and embeddings read"),
        5.0 * ROWS as f64,
        began.elapsed().as_secs_f64(),
        String::new(),
    );
    Ok(())
}
