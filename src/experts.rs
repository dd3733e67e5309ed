//! The labels of k autoencoders: a row belongs to the one that rebuilds it best.

use std::sync::Arc;

use serde_json::json;

use crate::embed_network::{arrays, coder, in_blocks, setting, tensors};
use crate::error::{Error, Result};
use crate::network::{Arrays, Coder, CoderSpec};
use crate::stage::{Action, Artifact, Assignments, ClusterIds, Clusters, FEATURES, Transform};
use crate::train::RowError;

/// The most autoencoders of a model.
const MOST: usize = 65_536;

/// The name that the parameters of autoencoder number `i` begin with.
pub fn expert_name(i: usize) -> String {
    format!("expert.{i}.")
}

/// k trained autoencoders as a stage (Opochinsky et al. 2020, k-DAE). It appends to each row the id of the autoencoder
/// of the least error (`cluster`, Int32), that error (`distance`, Float32) and by how much the second least is greater
/// (`margin`, Float32; infinite for a single one). In a tie the first of them has the row. Clusters have no centroids.
#[derive(Debug, Clone)]
pub struct Experts {
    coders: Arc<[Coder]>,
    error: RowError,
    ids: ClusterIds,
}

impl Experts {
    /// The name under which it is saved.
    pub const KIND: &'static str = "experts";

    /// `k` autoencoders of one plan; the parameters of number i begin with [`expert_name`].
    ///
    /// # Errors
    /// Kind `Model` if there are none, for layers that do not fit, or a parameter that is missing, has another shape or is
    /// not finite.
    pub fn new(k: usize, spec: &CoderSpec, arrays: &Arrays, error: RowError) -> Result<Self> {
        if k == 0 || k > MOST {
            return Err(Error::model(format!("{k} autoencoders, expected from 1 to {MOST}")));
        }
        let coders = (0..k).map(|i| coder(&expert_name(i), spec, arrays)).collect::<Result<_>>()?;
        Ok(Self { coders, error, ids: ClusterIds::default() })
    }

    /// The stage that [`save`](Transform::save) saved.
    ///
    /// # Errors
    /// Kind `Model` if a setting or a tensor is missing, or does not fit.
    pub fn from_artifact(artifact: &Artifact) -> Result<Self> {
        let (k, spec) = (setting(artifact, "k")?, setting(artifact, "network")?);
        let experts = Self::new(k, &spec, &arrays(artifact), setting(artifact, "error")?)?;
        let ids = ClusterIds::restore(artifact, k).map_err(|e| e.while_doing("stage experts"))?;
        Ok(Self { ids, ..experts })
    }
}

impl Clusters for Experts {
    fn k(&self) -> usize {
        self.coders.len()
    }

    fn dim(&self) -> usize {
        self.coders[0].spec().input.len()
    }

    fn centroids(&self) -> Option<Vec<f32>> {
        None
    }

    fn ids(&self) -> Vec<i32> {
        self.ids.of(self.k())
    }

    fn with_ids(&self, ids: &[i32]) -> Result<Option<Arc<dyn Transform>>> {
        let ids = ClusterIds::given(ids, self.k())?;
        Ok(Some(Arc::new(Self { ids, ..self.clone() })))
    }

    /// The autoencoder of the least error, that error, and by how much the second least is greater. Costs
    /// `2 * parameters` flops a row.
    fn assign(&self, rows: &[f32]) -> Result<Assignments> {
        let (dim, n) = (self.dim(), rows.len() / self.dim());
        assert_eq!(rows.len(), n * dim, "the last row is cut short");
        let (mut cluster, mut distance) = (vec![0; n], vec![f32::INFINITY; n]);
        let (mut second, mut errors) = (vec![f32::INFINITY; n], vec![0.0; n]);
        for (i, coder) in self.coders.iter().enumerate() {
            in_blocks(rows, dim, &mut errors, 1, |x| {
                self.error.of(x, &coder.decode(&coder.encode(x, false)?, false)?)
            })?;
            for (row, &error) in errors.iter().enumerate() {
                if error < distance[row] {
                    second[row] = distance[row];
                    (cluster[row], distance[row]) = (i as i32, error);
                } else if error < second[row] {
                    second[row] = error;
                }
            }
        }
        self.ids.name(&mut cluster);
        let margin = second.iter().zip(&distance).map(|(second, first)| second - first).collect();
        Ok(Assignments { cluster, distance, margin })
    }
}

impl Transform for Experts {
    fn kind(&self) -> &'static str {
        Self::KIND
    }

    fn action(&self) -> Action<'_> {
        Action::Assign { column: FEATURES, clusters: self }
    }

    fn save(&self) -> Artifact {
        let settings =
            [("k", json!(self.coders.len())), ("network", json!(self.coders[0].spec())), ("error", json!(self.error))];
        // On the host, where nothing fails.
        let all = self.coders.iter().flat_map(|coder| tensors(coder.arrays().unwrap_or_default()));
        let mut artifact = Artifact {
            settings: settings.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
            tensors: all.collect(),
        };
        self.ids.save(&mut artifact);
        artifact
    }
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::Schema;
    use arrow::record_batch::RecordBatch;

    use super::*;
    use crate::column::{vector_array, vector_field};
    use crate::network::{Activation, LayerSpec, RowShape};
    use crate::stage::Apply;

    /// Two autoencoders of two values that rebuild (1, 0) and (0, 1), whatever goes in.
    fn stage() -> Experts {
        let dense = |outputs| vec![LayerSpec::dense(outputs, Activation::Identity)];
        let spec = CoderSpec {
            input: RowShape::flat(2),
            encoder: dense(1),
            decoder: dense(2),
            initialisation: Default::default(),
        };
        let mut arrays = Arrays::new();
        for (i, to) in [[1.0, 0.0], [0.0, 1.0]].iter().enumerate() {
            let name = |part: &str| format!("{}{part}", expert_name(i));
            arrays.insert(name("encoder.0.weight"), (vec![1, 2], vec![0.0; 2]));
            arrays.insert(name("encoder.0.bias"), (vec![1], vec![0.0]));
            arrays.insert(name("decoder.0.weight"), (vec![2, 1], vec![0.0; 2]));
            arrays.insert(name("decoder.0.bias"), (vec![2], to.to_vec()));
        }
        Experts::new(2, &spec, &arrays, RowError::Norm).unwrap()
    }

    #[test]
    fn a_row_goes_to_the_autoencoder_of_the_least_error() {
        let stage = stage();
        let Assignments { cluster, distance, margin } = stage.assign(&[1.0, 0.5, 0.0, 3.0, 0.5, 0.5]).unwrap();
        assert_eq!(cluster, [0, 1, 0]);
        let near = |a: f32, b: f32| (a - b).abs() < 1e-5;
        assert!(near(distance[0], 0.5) && near(distance[1], 2.0) && near(margin[1], 10.0_f32.sqrt() - 2.0));
        assert!(near(margin[2], 0.0));
    }

    #[test]
    fn rows_are_labelled_by_the_ids_that_were_given() {
        let given = stage().with_ids(&[7, 2]).unwrap().unwrap();
        let clusters = given.clusters().unwrap();
        assert_eq!(clusters.ids(), [7, 2]);
        assert_eq!(clusters.assign(&[1.0, 0.5, 0.0, 3.0, 0.5, 0.5]).unwrap().cluster, [7, 2, 7]);
        let back = Experts::from_artifact(&given.save()).unwrap();
        assert_eq!((back.save(), back.ids()), (given.save(), vec![7, 2]));
        // Ids that are the indices are not saved: it is the same model.
        assert_eq!(clusters.with_ids(&[0, 1]).unwrap().unwrap().save(), stage().save());
        for wrong in [&[7][..], &[7, 7], &[7, -1]] {
            assert_eq!(stage().with_ids(wrong).unwrap_err().kind(), crate::Kind::Model);
        }
        let mut damaged = given.save();
        damaged.settings.insert("ids".into(), json!([7, "a"]));
        let e = Experts::from_artifact(&damaged).unwrap_err();
        assert!(e.kind() == crate::Kind::Model && e.to_string().contains("experts: ids"), "{e}");
    }

    #[test]
    fn what_is_saved_comes_back() {
        let stage = stage();
        let back = Experts::from_artifact(&stage.save()).unwrap();
        assert_eq!(back.save(), stage.save());
        let schema = Arc::new(Schema::new(vec![vector_field(FEATURES, 2)]));
        let batch = RecordBatch::try_new(schema, vec![vector_array(vec![0.1, 0.2, 0.3, 0.4], 2).unwrap()]).unwrap();
        assert_eq!(back.apply(&batch).unwrap(), stage.apply(&batch).unwrap());
        assert!(back.clusters().is_some_and(|c| c.k() == 2 && c.centroids().is_none()));
        let mut damaged = stage.save();
        damaged.tensors.remove("expert.1.decoder.0.bias");
        assert_eq!(Experts::from_artifact(&damaged).unwrap_err().kind(), crate::Kind::Model);
        damaged.settings.insert("k".into(), json!(1_u64 << 40));
        assert_eq!(Experts::from_artifact(&damaged).unwrap_err().kind(), crate::Kind::Model);
    }
}
