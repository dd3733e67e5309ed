//! Stand-in until the signal module lands.
use crate::error::Result;
use crate::signal::window::WindowSpec;
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FeatureSet {
    Samples,
}
#[derive(Debug)]
pub struct FeatureExtractor {
    names: Vec<String>,
    length: usize,
}
pub struct Prepared(Vec<Vec<f64>>);
#[derive(Default)]
pub struct Scratch;
impl FeatureExtractor {
    pub fn new(_: &FeatureSet, channels: &[String], _: f64, window: &WindowSpec) -> Result<Self> {
        let names = (0..window.length).flat_map(|i| channels.iter().map(move |c| format!("{c}[{i}]"))).collect();
        Ok(Self { names, length: window.length })
    }
    pub fn names(&self) -> &[String] {
        &self.names
    }
    pub fn dim(&self) -> usize {
        self.names.len()
    }
    pub fn prepare(&self, channels: &[Vec<f64>]) -> Prepared {
        Prepared(channels.to_vec())
    }
    pub fn scratch(&self) -> Scratch {
        Scratch
    }
    pub fn extract(&self, _: &mut Scratch, p: &Prepared, start: usize, out: &mut [f32]) {
        for i in 0..self.length {
            for (c, ch) in p.0.iter().enumerate() {
                out[i * p.0.len() + c] = ch[start + i] as f32;
            }
        }
    }
}
