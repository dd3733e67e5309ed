//! Methods on candle's tape by formulas over tensors, on candle's CPU or a GPU, beside our kernels.

use serde_json::json;

use crate::cuda::tested_device;
use crate::deep_clustering::DeepClustering;
use crate::device::{Candle, Cpu, Device};
use crate::event::Control;
use crate::kernel::Dense;
use crate::method::{Method, MethodSpec};
use crate::seed::Seed;
use crate::stage::{Fit, FitContext, Fitted, NoCheckpoint, Training};

const DIM: usize = 12;

/// Rows in [0, 1], for a cross-entropy, about four points.
fn rows() -> Vec<f32> {
    let unit = |i: usize| ((i as u32).wrapping_mul(2_654_435_761) >> 8) as f32 / 16_777_216.0;
    (0..900 * DIM).map(|i| 0.9 * unit(i / DIM % 4 * DIM + i % DIM) + 0.1 * unit(i * 31 + 7)).collect()
}

/// A method's network of all kinds of layers, in a few epochs.
fn spec(method: Method) -> MethodSpec {
    let dense = |outputs: usize| json!({ "kind": "dense", "outputs": outputs, "activation": "tanh" });
    let training = json!({ "epochs": 3, "batch_size": 100, "learning_rate": 0.02, "l2": 1e-5, "l2_form": "norm" });
    let mut given = json!({
        "k": 4, "n_init": 3,
        "encoder": [dense(8), { "kind": "dropout", "rate": 0.1 }, { "kind": "dense", "outputs": 2 }],
        "pretraining": training, "clustering": training,
    });
    match method {
        Method::KDae => {
            given["encoder"] = json!([dense(8), { "kind": "batch_norm" }, { "kind": "dense", "outputs": 2 }]);
            given["clustering"]["expert"] =
                json!({ "epochs": 2, "encoder": [dense(4), { "kind": "dense", "outputs": 1 }] });
        }
        Method::Aljalbout => {
            given["shape"] = json!([1, 3, 4]);
            given["encoder"] = json!([
                { "kind": "conv2d", "channels": 3, "kernel": 2 }, { "kind": "batch_norm" },
                { "kind": "conv2d", "channels": 2, "kernel": 2 }
            ]);
        }
        Method::Dec => given["pretraining"]["layerwise_epochs"] = json!(2),
    }
    MethodSpec::of(method, &given).unwrap()
}

/// On candle's tape by formulas over tensors, with losses read once an epoch: the losses are those of our kernels.
#[test]
fn methods_learn_on_the_device_what_they_learn_on_the_cpu() {
    let values = &rows();
    for method in Method::ALL {
        let fit = |device: &dyn Device| {
            let control = Control::default();
            let cx =
                FitContext { seed: Seed(4), device, control: &control, checkpoint: &NoCheckpoint, memory: u64::MAX };
            DeepClustering { spec: spec(method) }.fit(&Training::new(&Dense::new(values, DIM)), &cx).unwrap()
        };
        let (cpu, candle) = (fit(&Cpu::new(2)), fit(&Candle::new(tested_device(), 2).by_formulas()));
        let losses = |fitted: &Fitted| serde_json::from_value::<Vec<f64>>(fitted.figures["loss"].clone()).unwrap();
        let (ours, theirs) = (losses(&cpu), losses(&candle));
        assert_eq!(ours.len(), theirs.len(), "{method:?}");
        for (epoch, (a, b)) in ours.iter().zip(&theirs).enumerate() {
            assert!((a - b).abs() <= 2e-3 * a.abs().max(1e-2), "{method:?}, epoch {epoch}: {a} {b}");
        }
        let sizes = |fitted: &Fitted| serde_json::from_value::<Vec<u64>>(fitted.figures["sizes"].clone()).unwrap();
        let apart: u64 = sizes(&cpu).iter().zip(sizes(&candle)).map(|(a, b)| a.abs_diff(b)).sum();
        assert!(apart <= 20, "{method:?}: {:?} {:?}", sizes(&cpu), sizes(&candle));
    }
}
