//! Gathers the content of a report: from the table's log, its rows, the files beside them, its model and `run.json`.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, AsArray};
use arrow::datatypes::{Int32Type, Int64Type};
use datafusion::functions_aggregate::expr_fn::count;
use datafusion::logical_expr::{cast, ident, lit};
use datafusion::prelude::{DataFrame, SessionConfig, SessionContext};
use futures::StreamExt;

use super::findings::{Agreement, Apart, Drawn, Findings, Part, Portrait, Rebuilt, side};
use super::plane::{Plane, principal};
use super::run::RunReport;
use crate::column;
use crate::error::{Error, Kind, Result};
use crate::model::Model;
use crate::stage::{EMBEDDING, LABEL_COLUMNS};
use crate::store::Location;
use crate::table::{FeatureProfile, LabelTable, MODEL, SampleBuilder, SampledRow, SampledRows, compare, sampled_rows};

/// The columns that are taken as labels if none is named, in this order.
pub const USUAL_LABELS: [&str; 5] = ["activity", "label", "class", "target", "y"];

/// Features kept of each cluster.
const APART: usize = 8;

/// Everything that a report shows of the table at `location`; `labels` names its column of labels, where it is not the
/// run's.
///
/// # Errors
/// Kind `Table` if there is no table, it is damaged, or has no clusters; `Input` if it has no column `labels`. Whatever
/// else is missing becomes a sentence in the findings.
pub async fn gather(location: &Location, labels: Option<&str>) -> Result<Findings> {
    let table = Arc::new(LabelTable::open_at(location, None).await?);
    let snapshot = table.snapshot().clone();
    if snapshot.schema.index_of(LABEL_COLUMNS[0]).is_err() {
        return Err(Error::table(format!(
            "{location} has no column \"cluster\": a report is of clusters; run a pipeline that ends with kmeans"
        )));
    }
    let newest = snapshot.model().unwrap_or_default().to_owned();
    let run = run(location, snapshot.run_id().unwrap_or_default()).await;
    let model = model(location, &newest).await;
    let mut notes = Vec::new();
    let sample = unless_damaged(table.sample().await, &mut notes)?.flatten();
    let sample = sample.map(|sample| sampled_rows(&sample, &newest));
    let label = label_column(&table, labels, run.as_ref().ok(), sample.as_deref())?;
    // The rows in their order, since the order decides which are drawn.
    let in_order = SessionConfig::new().with_target_partitions(1);
    let look =
        Look { table: Arc::clone(&table), model: newest.clone(), ctx: SessionContext::new_with_config(in_order) };
    let (mut sizes, agreement) = look.count(label.as_deref()).await?;
    for cluster in unless_damaged(look.clusters().await, &mut notes)?.unwrap_or_default() {
        sizes.entry(cluster).or_default();
    }
    let rows = sizes.values().sum();
    let profile = unless_damaged(table.profile().await, &mut notes)?.flatten();
    let profile = profile.map(|profile| compare(&profile));
    let profile: Vec<FeatureProfile> =
        profile.into_iter().flatten().filter(|feature| feature.model == newest).collect();
    let width = profile.iter().map(|feature| feature.position as usize + 1).max().unwrap_or(0);
    let (features, width) = match &model {
        Ok(model) => (model.manifest().input.names.clone(), model.dim_in()),
        Err(_) => (names(&profile, width), width),
    };
    let sample = match sample {
        Some(sample) => Some(sample),
        None => look.draw(label.as_deref()).await?,
    };
    let shown = sample.unwrap_or_default();
    if rows < snapshot.rows() {
        notes.push(format!(
            "{} rows of the table were labelled by other models; they are left out here.",
            snapshot.rows() - rows
        ));
    }
    let profiled: BTreeMap<i32, u64> = profile.iter().map(|feature| (feature.cluster, feature.rows)).collect();
    let profiled: u64 = profiled.values().sum();
    if profiled > 0 && profiled < rows {
        notes.push(format!("What sets the clusters apart is known of {profiled} of {rows} rows only."));
    }
    let name = run.as_ref().map_or_else(|_| directory(location), |run| run.name.clone());
    Ok(Findings {
        name,
        table: location.to_string(),
        version: snapshot.version,
        model: newest,
        rows,
        sizes,
        run,
        sample: plane(&shown, label.as_deref()),
        agreement,
        weights: weights(&model),
        portraits: portraits(&profile, side(width, &features)),
        rebuilt: rebuilt(&model, &shown),
        notes,
        features,
        width,
    })
}

/// A file beside the rows. If it is damaged, that is a note and a warning: the rest can be shown without it.
fn unless_damaged<T>(found: Result<T>, notes: &mut Vec<String>) -> Result<Option<T>> {
    match found {
        Err(e) if e.kind() == Kind::Table => {
            tracing::warn!("{e}; its content is left out of the report");
            notes.push(format!("A file beside the table is left out: {e}."));
            Ok(None)
        }
        other => other.map(Some),
    }
}

/// The last name of the table's path.
fn directory(location: &Location) -> String {
    location.prefix().filename().unwrap_or("table").to_owned()
}

/// The report of the run that made this version.
async fn run(location: &Location, run_id: &str) -> Part<RunReport> {
    const LOST: &str = "so its source, seed, times and losses and the comparison with raw k-means are missing; dacpipe run writes them";
    let unreadable = |e: &dyn std::fmt::Display| format!("{} cannot be read ({e}), {LOST}.", location.show("run.json"));
    let Some(bytes) = location.get("run.json").await.map_err(|e| unreadable(&e))? else {
        return Err(format!("There is no run.json beside the table, {LOST} (dacpipe label does not)."));
    };
    match serde_json::from_slice::<RunReport>(&bytes) {
        Ok(run) if run.run == run_id => Ok(run),
        Ok(run) => Err(format!("run.json is of run {}, this version of the table of run {run_id}, {LOST}.", run.run)),
        Err(e) => Err(unreadable(&e)),
    }
}

/// The model of this hash, which lies below the table.
async fn model(location: &Location, hash: &str) -> Part<Model> {
    let short = hash.get(..16).unwrap_or(hash);
    let loaded = async { Model::load(&location.join(&format!("models/{short}"))?).await }.await;
    loaded.map_err(|e| format!("The model {short} cannot be read: {}.", e))
}

/// The column of labels: the one that was asked for, else the run's, else the sample's, else one of the usual names.
fn label_column(
    table: &LabelTable,
    asked: Option<&str>,
    run: Option<&RunReport>,
    sample: Option<&[SampledRow]>,
) -> Result<Option<String>> {
    let schema = &table.snapshot().schema;
    if let Some(asked) = asked {
        return match schema.index_of(asked) {
            Ok(_) => Ok(Some(asked.to_owned())),
            Err(_) => Err(column::missing(schema, asked)),
        };
    }
    let of_run = run.and_then(|run| run.label_column.as_deref());
    let of_sample = sample.and_then(|sample| sample.first()).and_then(|row| row.label_column.as_deref());
    let mut likely = of_run.into_iter().chain(of_sample).chain(USUAL_LABELS);
    Ok(likely.find(|name| schema.index_of(name).is_ok()).map(str::to_owned))
}

/// The rows of a table that one model labelled.
struct Look {
    table: Arc<LabelTable>,
    model: String,
    ctx: SessionContext,
}

impl Look {
    fn rows(&self) -> Result<DataFrame> {
        let rows = self.ctx.read_table(Arc::clone(&self.table) as _)?;
        Ok(rows.filter(ident(MODEL).eq(lit(&self.model)))?)
    }

    /// The size of each cluster, and how often each label is in each.
    async fn count(&self, label: Option<&str>) -> Result<(BTreeMap<i32, u64>, Part<Agreement>)> {
        use arrow::datatypes::DataType::Int32;
        let mut keys = vec![cast(ident(LABEL_COLUMNS[0]), Int32).alias("cluster")];
        keys.extend(label.map(|label| ident(label).alias("label")));
        let counted = self.rows()?.aggregate(keys, vec![count(lit(1_i64)).alias("rows")])?.collect().await?;
        let mut sizes: BTreeMap<i32, u64> = BTreeMap::new();
        let mut agreement = Agreement { column: label.unwrap_or_default().to_owned(), ..Agreement::default() };
        for batch in &counted {
            let clusters = batch.column(0).as_primitive::<Int32Type>();
            let counts = batch.column(batch.num_columns() - 1).as_primitive::<Int64Type>();
            let labels = label.map(|label| column::label_texts(batch.column(1), label)).transpose()?;
            for row in 0..batch.num_rows() {
                let count = counts.value(row).unsigned_abs();
                *sizes.entry(clusters.value(row)).or_default() += count;
                match &labels {
                    Some(labels) if labels.is_valid(row) => {
                        let label = labels.value(row).to_owned();
                        *agreement.counts.entry(clusters.value(row)).or_default().entry(label).or_default() += count;
                    }
                    _ => agreement.unlabelled += count,
                }
            }
        }
        let agreement = match label {
            Some(_) => Ok(agreement),
            None => {
                Err("The table has no column of labels to compare the clusters with; dacpipe report --labels COLUMN \
                         names one."
                    .to_owned())
            }
        };
        Ok((sizes, agreement))
    }

    /// The clusters, including empty ones.
    async fn clusters(&self) -> Result<Vec<i32>> {
        let rows = self.ctx.read_table(self.table.clusters())?.filter(ident(MODEL).eq(lit(&self.model)))?;
        let batches = rows.select([ident(LABEL_COLUMNS[0])])?.collect().await?;
        Ok(batches.iter().flat_map(|batch| batch.column(0).as_primitive::<Int32Type>().values().to_vec()).collect())
    }

    /// Rows drawn from the table's embeddings, where it has them and no sample was kept.
    async fn draw(&self, label: Option<&str>) -> Result<Option<Vec<SampledRow>>> {
        if self.table.snapshot().schema.index_of(EMBEDDING).is_err() {
            return Ok(None);
        }
        let columns = [LABEL_COLUMNS[0], EMBEDDING].into_iter().chain(label);
        let rows = self.rows()?.select(columns.map(ident))?;
        let mut builder: Option<SampleBuilder> = None;
        let mut stream = rows.execute_stream().await?;
        while let Some(batch) = stream.next().await {
            let batch = batch?;
            let (vectors, dim) = column::vectors(&batch, EMBEDDING)?;
            let clusters = batch.column(0).as_primitive::<Int32Type>().values();
            let labels = label.map(|_| batch.column(2));
            let builder = builder.get_or_insert_with(|| SampleBuilder::new(dim, true, label));
            builder.add(&SampledRows { clusters, vectors, dim, features: &[], labels })?;
        }
        let Some(builder) = builder else { return Ok(None) };
        Ok(Some(sampled_rows(&builder.finish(&self.model)?, &self.model)))
    }
}

/// The sample, projected to the plane.
fn plane(rows: &[SampledRow], label: Option<&str>) -> Part<Drawn> {
    if rows.is_empty() {
        return Err(
            "No rows were drawn when this table was written, as an older dacpipe wrote it, and it has no column \
                    \"embedding\" to draw them from: write it again with dacpipe run or dacpipe label."
                .into(),
        );
    }
    let dim = rows[0].vector.len();
    let vectors: Vec<f32> = rows.iter().flat_map(|row| row.vector.iter().copied()).collect();
    let Plane { points, shares } = principal(&vectors, dim);
    let labelled = label.is_some() && rows[0].label_column.as_deref() == label;
    Ok(Drawn {
        points,
        shares,
        clusters: rows.iter().map(|row| row.cluster).collect(),
        embedded: rows[0].embedded,
        labels: if labelled { rows.iter().map(|row| row.label.clone()).collect() } else { Vec::new() },
    })
}

/// Rows of the sample as inputs and outputs of the network, of all clusters in turn; `None` if no network embeds rows,
/// or if the features of the rows were not kept.
fn rebuilt(model: &Part<Model>, sample: &[SampledRow]) -> Part<Vec<Rebuilt>> {
    let Some(model) = model.as_ref().ok().filter(|model| model.embeds()) else { return Ok(Vec::new()) };
    let mut rows: Vec<(&SampledRow, &Vec<f32>)> =
        sample.iter().filter_map(|row| Some((row, row.features.as_ref()?))).collect();
    // One row of each cluster, then the second of each, and so on, so that a few rows cover all clusters.
    let mut turns: BTreeMap<i32, u32> = BTreeMap::new();
    rows.sort_by_cached_key(|(row, _)| {
        let turn = turns.entry(row.cluster).or_default();
        *turn += 1;
        (*turn, row.cluster)
    });
    let given: Vec<f32> = rows.iter().flat_map(|(_, features)| features.iter().copied()).collect();
    let seen = || -> Result<(Vec<f32>, Vec<f32>)> { Ok((model.scaled(&given)?, model.reconstruct(&given)?.scaled)) };
    let (before, after) = seen().map_err(|e| format!("Rows cannot be drawn as the network sees them: {e}."))?;
    let dim = before.len() / rows.len().max(1);
    let wide = |values: &[f32]| values.iter().map(|value| f64::from(*value)).collect();
    let pairs = before.chunks(dim.max(1)).zip(after.chunks(dim.max(1)));
    let row = |((row, _), (before, after)): ((&SampledRow, _), (&[f32], &[f32]))| Rebuilt {
        cluster: row.cluster,
        label: row.label.clone(),
        input: wide(before),
        output: wide(after),
    };
    Ok(rows.into_iter().zip(pairs).map(row).collect())
}

/// The weights that a stage of the model learned; `None` if no stage did.
fn weights(model: &Part<Model>) -> Part<Vec<f64>> {
    let model = model.as_ref().map_err(String::clone)?;
    let weights = model.stages().iter().find_map(|stage| stage.feature_weights());
    Ok(weights.unwrap_or_default().iter().map(|weight| f64::from(*weight)).collect())
}

/// The names of `width` features in a profile; empty if it has only their indices.
fn names(profile: &[FeatureProfile], width: usize) -> Vec<String> {
    let mut names = vec![String::new(); width];
    for feature in profile {
        names[feature.position as usize].clone_from(&feature.feature);
    }
    let places = names.iter().enumerate().all(|(place, name)| *name == place.to_string());
    if places { Vec::new() } else { names }
}

/// What sets each cluster apart; with mean images of this side if rows are images.
fn portraits(profile: &[FeatureProfile], side: Option<usize>) -> Part<Vec<Portrait>> {
    if profile.is_empty() {
        return Err(
            "Nothing is known of the features of each cluster, as an older dacpipe wrote this table or its clusters \
                    have too many features: write it again with dacpipe run or dacpipe label."
                .into(),
        );
    }
    let (low, high) = profile.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), feature| {
        (low.min(feature.mean), high.max(feature.mean))
    });
    let span = if high > low { high - low } else { 1.0 };
    let clusters = profile.chunk_by(|a, b| a.cluster == b.cluster).map(|features| {
        let differs = features.iter().filter_map(|feature| Some((feature, feature.difference?)));
        let apart = differs.filter(|(_, difference)| difference.abs() > 1e-9).take(APART);
        let apart = apart.map(|(feature, difference)| Apart {
            feature: feature.feature.clone(),
            mean: feature.mean,
            overall: feature.overall_mean,
            difference,
        });
        let image = side.map(|side| {
            let mut image = vec![0.0; side * side];
            for feature in features {
                if let Some(pixel) = image.get_mut(feature.position as usize) {
                    *pixel = (feature.mean - low) / span;
                }
            }
            image
        });
        Portrait { cluster: features[0].cluster, apart: apart.collect(), image }
    });
    Ok(clusters.collect())
}
