//! A network of dense layers.

use std::cell::RefCell;

use super::architecture::{Architecture, DenseSpec, LayerPlace};
use super::{Network, PASS_ROWS, Pass, UpdateRule};
use crate::kernel::aligned::Aligned;
use crate::kernel::dense::add_rows;
use crate::kernel::gemm::{Left, Panels, Right, Start, gemm, pack_transposed, right_of_panels};
use crate::kernel::{Matrix, Pool};

/// Rows of a weight matrix whose gradient is computed, applied and packed by one task: three panels, and whole tiles.
const BLOCK_OUTPUTS: usize = 48;

thread_local! {
    /// The gradient of the block at hand, kept from step to step. It never leaves the second-level cache; an array for
    /// all gradients would be written to memory and read back in every step.
    static GRADIENT: RefCell<Aligned> = RefCell::default();
}

/// An autoencoder of dense layers over one flat array of parameters.
#[derive(Debug, Clone)]
pub struct Mlp {
    plan: Plan,
    parameters: Aligned,
    /// The weights of all layers transposed into panels, which is how forward reads them.
    panels: Aligned,
}

/// What does not change while it learns.
#[derive(Debug, Clone)]
struct Plan {
    architecture: Architecture,
    places: Vec<LayerPlace>,
    /// Where each layer's panels begin.
    panels: Vec<usize>,
    blocks: Vec<Block>,
    /// Where each block begins in the parameters, both arrays of optimizer state, and the panels.
    bounds: Vec<[usize; 4]>,
}

/// Parameters that are updated together.
#[derive(Debug, Clone, Copy)]
enum Block {
    /// Some rows of the weights of a layer.
    Weights { layer: usize, first: usize, rows: usize },
    /// The biases of a layer.
    Biases { layer: usize },
}

impl Plan {
    fn new(architecture: Architecture) -> Self {
        let places = architecture.places();
        let mut plan = Self { architecture, places, panels: Vec::new(), blocks: Vec::new(), bounds: vec![[0; 4]] };
        let mut panels = 0;
        for (layer, place) in plan.places.iter().enumerate() {
            let DenseSpec { inputs, outputs, .. } = place.layer;
            plan.panels.push(panels);
            for first in (0..outputs).step_by(BLOCK_OUTPUTS) {
                let rows = BLOCK_OUTPUTS.min(outputs - first);
                panels += Panels::len(inputs, rows);
                plan.blocks.push(Block::Weights { layer, first, rows });
                let end = place.weight.start + (first + rows) * inputs;
                plan.bounds.push([end, end, end, panels]);
            }
            plan.blocks.push(Block::Biases { layer });
            let end = place.bias.end;
            plan.bounds.push([end, end, end, panels]);
        }
        plan
    }

    fn panel_len(&self) -> usize {
        self.bounds[self.bounds.len() - 1][3]
    }

    fn flat_len(&self) -> usize {
        self.bounds[self.bounds.len() - 1][0]
    }

    /// Values in the largest block.
    fn largest_block(&self) -> usize {
        self.bounds.windows(2).map(|b| b[1][0] - b[0][0]).max().unwrap_or(0)
    }

    /// The part of block `block` that holds its values: what lies before them is the gap before a tensor.
    fn values_start(&self, block: usize) -> usize {
        let start = match self.blocks[block] {
            Block::Weights { layer, first, .. } => {
                self.places[layer].weight.start + first * self.places[layer].layer.inputs
            }
            Block::Biases { layer } => self.places[layer].bias.start,
        };
        start - self.bounds[block][0]
    }

    /// The gradient of one block over all passes.
    fn block_gradient(&self, block: Block, passes: &[MlpPass], gradient: &mut [f32]) {
        match block {
            Block::Weights { layer, first, rows } => {
                let inputs = self.places[layer].layer.inputs;
                for (i, pass) in passes.iter().enumerate() {
                    let (x, d) = (&pass.outputs[layer], &pass.gradients[layer]);
                    let left = Left::transposed(&d.values()[first..], d.stride());
                    let right = Right::rows(x.values(), x.stride(), x.rows(), inputs);
                    let start = if i == 0 { Start::Zero } else { Start::Output };
                    gemm(rows, left, right, start, gradient, inputs);
                }
            }
            Block::Biases { layer } => {
                gradient.fill(0.0);
                for pass in passes {
                    add_rows(&pass.column_sums[layer], gradient.len(), gradient);
                }
            }
        }
    }

    /// Packs the weights of one block.
    fn pack(&self, block: Block, parameters: &[f32], panels: &mut [f32]) {
        if let Block::Weights { layer, rows, .. } = block {
            pack_transposed(parameters, self.places[layer].layer.inputs, rows, panels);
        }
    }

    fn right<'a>(&self, layer: usize, panels: &'a [f32]) -> Right<'a> {
        let DenseSpec { inputs, outputs, .. } = self.places[layer].layer;
        let start = self.panels[layer];
        right_of_panels(&panels[start..start + Panels::len(inputs, outputs)], inputs, outputs)
    }
}

impl Mlp {
    /// A network with the parameters given, in the layout of [`Architecture::tensors`].
    ///
    /// Panics if the architecture has [problems](Architecture::problems) or `parameters` another length than
    /// [`Architecture::flat_len`].
    pub fn new(architecture: Architecture, parameters: &[f32]) -> Self {
        assert_eq!(architecture.problems(), Vec::<String>::new(), "layers that do not fit");
        let plan = Plan::new(architecture);
        let (flat, panels) = (Aligned::zeros(plan.flat_len()), Aligned::zeros(plan.panel_len()));
        let mut network = Self { plan, parameters: flat, panels };
        network.set_parameters(parameters);
        network
    }

    /// Its layers.
    pub fn architecture(&self) -> &Architecture {
        &self.plan.architecture
    }
}

impl Network for Mlp {
    type Pass = MlpPass;

    fn new_pass(&self) -> MlpPass {
        let architecture = &self.plan.architecture;
        let room = |width: usize| Matrix::zeros(PASS_ROWS, width);
        let widths = || architecture.layers().map(|l| l.outputs);
        MlpPass {
            outputs: std::iter::once(architecture.dim_in()).chain(widths()).map(room).collect(),
            gradients: widths().map(room).collect(),
            column_sums: widths().map(|width| vec![0.0; width]).collect(),
            embedding: architecture.encoder.len(),
        }
    }

    fn forward(&self, pass: &mut MlpPass) {
        let rows = pass.outputs[0].rows();
        for (i, place) in self.plan.places.iter().enumerate() {
            let (before, after) = pass.outputs.split_at_mut(i + 1);
            let (x, y) = (&before[i], &mut after[0]);
            y.set_rows(rows);
            let (left, stride) = (Left::rows(x.values(), x.stride()), y.stride());
            let bias = Start::Row(&self.parameters[place.bias.clone()]);
            gemm(rows, left, self.plan.right(i, &self.panels), bias, y.values_mut(), stride);
            place.layer.activation.apply(y.values_mut());
        }
        for (gradient, output) in pass.gradients.iter_mut().zip(&pass.outputs[1..]) {
            gradient.set_rows(output.rows());
        }
    }

    fn backward(&self, pass: &mut MlpPass, d_embedding: Option<&Matrix>) {
        let rows = pass.outputs[0].rows();
        for (i, place) in self.plan.places.iter().enumerate().rev() {
            let (before, after) = pass.gradients.split_at_mut(i);
            let d = &mut after[0];
            place.layer.activation.backward(pass.outputs[i + 1].values(), d.values_mut());
            pass.column_sums[i].fill(0.0);
            add_rows(d.values(), d.stride(), &mut pass.column_sums[i]);
            // The gradient at the input is nobody's.
            let Some(below) = before.last_mut() else { continue };
            let start = match d_embedding {
                Some(at_embedding) if i == pass.embedding => {
                    for row in 0..rows {
                        below.row_mut(row).copy_from_slice(at_embedding.row(row));
                    }
                    Start::Output
                }
                _ => Start::Zero,
            };
            let DenseSpec { inputs, outputs, .. } = place.layer;
            let weight = Right::rows(&self.parameters[place.weight.clone()], inputs, outputs, inputs);
            let stride = below.stride();
            gemm(rows, Left::rows(d.values(), d.stride()), weight, start, below.values_mut(), stride);
        }
    }

    fn update(&mut self, passes: &[MlpPass], [first, second]: [&mut [f32]; 2], pool: &Pool, rule: &UpdateRule<'_>) {
        let plan = &self.plan;
        let arrays = [&mut self.parameters[..], first, second, &mut self.panels[..]];
        pool.for_each_part_mut(arrays, &plan.bounds, |i, [parameters, first, second, panels]| {
            let start = plan.values_start(i);
            let parameters = &mut parameters[start..];
            GRADIENT.with_borrow_mut(|room| {
                if room.len() < parameters.len() {
                    *room = Aligned::zeros(plan.largest_block());
                }
                let gradient = &mut room[..parameters.len()];
                plan.block_gradient(plan.blocks[i], passes, gradient);
                rule(parameters, gradient, [&mut first[start..], &mut second[start..]]);
            });
            plan.pack(plan.blocks[i], parameters, panels);
        });
    }

    fn parameters(&self) -> &[f32] {
        &self.parameters
    }

    fn set_parameters(&mut self, parameters: &[f32]) {
        self.parameters.copy_from_slice(parameters);
        for (i, &block) in self.plan.blocks.iter().enumerate() {
            let (start, end) = (self.plan.bounds[i], self.plan.bounds[i + 1]);
            let values = &self.parameters[start[0] + self.plan.values_start(i)..end[0]];
            self.plan.pack(block, values, &mut self.panels[start[3]..end[3]]);
        }
    }
}

/// Up to [`PASS_ROWS`] rows on their way through an [`Mlp`].
#[derive(Debug, Clone)]
pub struct MlpPass {
    /// The input and the output of every layer.
    outputs: Vec<Matrix>,
    /// The loss's gradient at every layer: after its activation at first, before it once backward has been there.
    gradients: Vec<Matrix>,
    /// The sums of those over the rows, which are the gradients of the biases.
    column_sums: Vec<Vec<f32>>,
    /// Which of the outputs is the embedding.
    embedding: usize,
}

impl Pass for MlpPass {
    fn input(&self) -> &Matrix {
        &self.outputs[0]
    }

    fn input_mut(&mut self) -> &mut Matrix {
        &mut self.outputs[0]
    }

    fn embedding(&self) -> &Matrix {
        &self.outputs[self.embedding]
    }

    fn reconstruction(&mut self) -> (&Matrix, &Matrix, &mut Matrix) {
        let last = self.gradients.len() - 1;
        (&self.outputs[0], &self.outputs[last + 1], &mut self.gradients[last])
    }
}
