//! Registers tables, functions and aggregates in a session.

use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use datafusion::catalog::TableProvider;
use datafusion::common::{Column, JoinType, TableReference};
use datafusion::config::Dialect;
use datafusion::functions::expr_fn::coalesce;
use datafusion::functions_aggregate::expr_fn::{avg, count};
use datafusion::logical_expr::{AggregateUDF, Expr, ScalarUDF};
use datafusion::prelude::{CsvReadOptions, ParquetReadOptions, SessionConfig, SessionContext, lit};
use futures::{StreamExt, stream};
use url::Url;

use crate::device::Device;
use crate::error::{Error, Result};
use crate::registry::{Registry, Restore};
use crate::source::fence::fenced_async;
use crate::source::plain;
use crate::stage::LABEL_COLUMNS;
use crate::store::Location;
use crate::table::{LABELLED_AT, LabelTable, MODEL, clusters_schema, version_as_of};

use super::assign::DacAssign;
use super::embed::DacEmbed;
use super::metrics::{ClusteringMetric, Metric};
use super::models::Models;
use super::profile::{self, ClusterProfile};
use super::quarantine;
use super::reconstruct::{DacReconstruct, DacReconstructionError};
use super::versions::{self, TableAt};

/// The directory below a table with the models that labelled its rows.
pub const MODELS: &str = "models";
/// The directory below a table with the table of the rows that were set aside.
pub const QUARANTINE: &str = crate::table::QUARANTINE;

/// What to register beside the functions.
#[derive(Debug, Clone, Default)]
pub struct Options {
    tables: Vec<Named>,
    models: Vec<String>,
    registry: Registry,
    at: At,
}

/// Which version of labelled tables is registered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum At {
    /// The newest.
    #[default]
    Now,
    /// The version with this number.
    Version(u64),
    /// The one that was the newest at this time.
    Time(SystemTime),
}

#[derive(Debug, Clone)]
struct Named {
    name: String,
    path: String,
    required: bool,
}

impl Options {
    /// Only the functions.
    pub fn new() -> Self {
        Self::default()
    }

    /// Also the table at `path` (a labelled table's directory or URL, or one Parquet or CSV file, which may be
    /// compressed and have other delimiters than commas), as `name`.
    pub fn table(mut self, name: &str, path: &str) -> Self {
        self.tables.push(Named { name: name.into(), path: path.into(), required: true });
        self
    }

    /// As [`table`](Self::table), but one that cannot be opened is left out, see [`Registration::left_out`].
    pub fn table_if_sound(mut self, name: &str, path: &str) -> Self {
        self.tables.push(Named { name: name.into(), path: path.into(), required: false });
        self
    }

    /// Labelled tables at this version.
    pub fn at(mut self, at: At) -> Self {
        self.at = at;
        self
    }

    /// Also restores stages of your own kinds in the models that functions name.
    pub fn stage(mut self, kind: &'static str, restore: Restore) -> Self {
        self.registry = self.registry.stage(kind, restore);
        self
    }

    /// Models are applied on `device`, which [`DeviceChoice::open`](crate::device::DeviceChoice::open) gives; on the CPU
    /// if this is not called.
    pub fn device(mut self, device: Arc<dyn Device>) -> Self {
        self.registry = self.registry.on(device);
        self
    }

    /// Also finds models by hash in the directory or URL `path`.
    pub fn models(mut self, path: &str) -> Self {
        self.models.push(path.into());
        self
    }
}

/// A table of the session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registered {
    /// Its name in SQL.
    pub name: String,
    /// Where it is.
    pub location: String,
}

/// What [`register()`] put into a session.
#[derive(Debug)]
pub struct Registration {
    /// The tables, in the order of their registration.
    pub tables: Vec<Registered>,
    /// The tables that could not be opened, and why.
    pub left_out: Vec<(String, Error)>,
}

/// The configuration of a session over labelled tables: SQL in the dialect of PostgreSQL. The generic dialect knows a
/// clause `CLUSTER BY`, and so cannot read `SELECT activity, cluster FROM hapt`.
///
/// ```
/// use datafusion::prelude::SessionContext;
/// # #[tokio::main]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let ctx = SessionContext::new_with_config(dacpipe::sql::session_config());
/// let rows = ctx.sql("SELECT activity, cluster FROM (VALUES ('sit', 0)) AS t(activity, cluster)").await?;
/// assert_eq!(rows.count().await?, 1);
/// # Ok(())
/// # }
/// ```
pub fn session_config() -> SessionConfig {
    let mut config = SessionConfig::new();
    config.options_mut().sql_parser.dialect = Dialect::PostgreSQL;
    config
}

/// Tables whose logs are read at once.
const AT_ONCE: usize = 16;

/// Puts into `ctx` the functions `dac_embed`, `dac_assign`, `dac_reconstruct` and `dac_reconstruction_error`, the
/// aggregates `ari`, `nmi` and `clustering_accuracy`, the table functions `cluster_profile` and `table_at`, and the tables
/// of `options`: each labelled table `x` with `x_clusters` and `x_lineage` where it has clusters, `x_latest` where it has
/// keys (each row once, by the model that labelled it last), and `x_quarantine` where rows were set aside, by whichever
/// run: their place, the reason, their text, the `run`, and whether its rows are `in_table`. Where no run has committed
/// anything, and rows were set aside, there is only the latter. Reads the tables' logs, no data and no
/// models. Make the session from [`session_config`]: in another dialect `cluster` may need quotes.
///
/// A URL uses the object store that is registered for it in `ctx`. If there is none, the store is made with credentials
/// from the environment, as in [`Location`].
///
/// # Errors
/// For a missing or damaged table, or a file that is neither Parquet nor CSV.
pub async fn register(ctx: &SessionContext, options: Options) -> Result<Registration> {
    let models = Arc::new(Models::new(ctx.runtime_env(), options.registry));
    for path in &options.models {
        models.add_directory(path, Location::in_session(path, &ctx.runtime_env())?);
    }
    let profiles = Arc::new(ClusterProfile::default());
    let versions = Arc::new(TableAt::default());
    let mut registration = Registration { tables: Vec::new(), left_out: Vec::new() };
    let opened = stream::iter(options.tables).map(|table| async {
        let opened = register_table(
            ctx,
            &Beside { models: &models, profiles: &profiles, versions: &versions },
            options.at,
            &table,
        )
        .await;
        (table, opened)
    });
    // A log is a few small files, and a store may be slow for each, so several logs are read at once.
    let mut opened = std::pin::pin!(opened.buffered(AT_ONCE));
    let mut failed = None;
    while let Some((Named { name, required, .. }, tables)) = opened.next().await {
        match tables {
            Ok(tables) => registration.tables.extend(tables),
            // The others are still opened to the end: reading a log must not be cancelled half way.
            Err(e) if required => failed = failed.or(Some(e.while_doing(format_args!("table {name}")))),
            Err(e) => registration.left_out.push((name, e)),
        }
    }
    if let Some(e) = failed {
        return Err(e);
    }
    ctx.register_udf(ScalarUDF::new_from_impl(DacEmbed::new(Arc::clone(&models))));
    ctx.register_udf(ScalarUDF::new_from_impl(DacAssign::new(Arc::clone(&models))));
    ctx.register_udf(ScalarUDF::new_from_impl(DacReconstruct::new(Arc::clone(&models))));
    ctx.register_udf(ScalarUDF::new_from_impl(DacReconstructionError::new(Arc::clone(&models))));
    ctx.register_udtf(profile::NAME, Arc::clone(&profiles) as _);
    ctx.register_udtf(versions::NAME, Arc::clone(&versions) as _);
    for metric in Metric::ALL {
        ctx.register_udaf(AggregateUDF::new_from_impl(ClusteringMetric::new(metric)));
    }
    Ok(registration)
}

/// Where each labelled table is registered, beside the session.
struct Beside<'a> {
    models: &'a Models,
    profiles: &'a ClusterProfile,
    versions: &'a TableAt,
}

/// A labelled table at some version.
pub(super) async fn open_at(location: &Location, at: At) -> Result<LabelTable> {
    let version = match at {
        At::Now => None,
        At::Version(version) => Some(version),
        At::Time(time) => Some(version_as_of(location, time).await?),
    };
    LabelTable::open_at(location, version).await
}

async fn register_table(ctx: &SessionContext, beside: &Beside<'_>, at: At, named: &Named) -> Result<Vec<Registered>> {
    let Named { name, path, .. } = named;
    let location = Location::in_session(path, &ctx.runtime_env())?;
    let file = location.local_path().is_some_and(Path::is_file);
    // A table's directory may have any name.
    if let Some(kind) = FileKind::of(path)
        && (file || !has_log(&location).await)
    {
        if location.local_path().is_some_and(|file| !file.exists()) {
            return Err(Error::input(format!("{}: no such file", location.looked_at())));
        }
        let ending = path.rsplit_once('.').map_or(path.as_str(), |(_, ending)| ending);
        return register_file(ctx, kind, named, ending, &location).await;
    }
    if let Some(there) = location.local_path().filter(|there| there.exists() && !there.is_dir()) {
        if there.is_file() && begins_as_parquet(there) {
            return register_file(ctx, FileKind::Parquet, named, "", &location).await;
        }
        let other = location.obstacle().filter(|_| !there.is_file());
        let found = other.unwrap_or_else(|| format!("{location} is a file of another kind"));
        return Err(Error::input(format!(
            "{found}; expected the directory of a table, a Parquet file, or one whose name ends with .csv or .tsv (also compressed: .csv.gz)"
        )));
    }
    let (clusters, quarantine) = (format!("{name}_clusters"), format!("{name}_quarantine"));
    let found = |name: &str, location: String| Registered { name: name.to_owned(), location };
    let table = match open_at(&location, at).await {
        Ok(table) => Arc::new(table),
        Err(e) => {
            // Runs that committed nothing have left no entry in the log.
            let set_aside = match has_entry(&location).await {
                false => quarantine::rows(ctx, &location, None).await.unwrap_or(None),
                true => None,
            };
            let Some(rows) = set_aside else { return Err(e) };
            ctx.register_table(TableReference::bare(quarantine.as_str()), rows)?;
            return Ok(vec![found(&quarantine, location.show(QUARANTINE))]);
        }
    };
    beside.models.add_directory(&format!("table {name}"), location.join(MODELS)?);
    let set_aside = quarantine::rows(ctx, &location, Some(table.snapshot())).await?;
    beside.profiles.add(name, Arc::clone(&table));
    beside.versions.add(name, location.clone());
    let mut tables = vec![found(name, location.to_string())];
    if let Some(file) = table.snapshot().clusters() {
        let rows = match table.snapshot().changed_by_others() {
            true => counted_anew(ctx, &table)?,
            false => table.clusters(),
        };
        ctx.register_table(TableReference::bare(clusters.as_str()), rows)?;
        tables.push(found(&clusters, location.show(&file.path)));
    }
    if let Some(file) = table.snapshot().lineage() {
        let lineage = format!("{name}_lineage");
        ctx.register_table(TableReference::bare(lineage.as_str()), table.lineage())?;
        tables.push(found(&lineage, location.show(&file.path)));
    }
    if let Some(rows) = latest(ctx, &table)? {
        let latest = format!("{name}_latest");
        ctx.register_table(TableReference::bare(latest.as_str()), rows)?;
        tables.push(Registered { name: latest, location: location.to_string() });
    }
    ctx.register_table(TableReference::bare(name.as_str()), table)?;
    if let Some(rows) = set_aside {
        ctx.register_table(TableReference::bare(quarantine.as_str()), rows)?;
        tables.push(found(&quarantine, location.show(QUARANTINE)));
    }
    Ok(tables)
}

/// The clusters of a table whose rows another program has changed since: with sizes and mean distances computed from
/// the current rows.
fn counted_anew(ctx: &SessionContext, table: &Arc<LabelTable>) -> Result<Arc<dyn TableProvider>> {
    let [cluster, distance, _] = LABEL_COLUMNS;
    let column = |name: &str| Expr::Column(Column::from_name(name));
    let keys = vec![column(cluster).alias("of_cluster"), column(MODEL).alias("of_model")];
    let figures = vec![count(lit(1_i64)).alias("rows"), avg(column(distance)).alias("mean")];
    let rows = ctx.read_table(Arc::clone(table) as _)?.aggregate(keys, figures)?;
    let clusters = ctx.read_table(table.clusters())?;
    let joined = clusters.join(rows, JoinType::Left, &[cluster, MODEL], &["of_cluster", "of_model"], None)?;
    let all = clusters_schema();
    let columns = all.fields().iter().map(|field| match field.name().as_str() {
        "size" => coalesce(vec![column("rows"), lit(0_i64)]).alias("size"),
        "mean_distance" => column("mean").alias("mean_distance"),
        name => column(name),
    });
    Ok(joined.select(columns.collect::<Vec<_>>())?.into_view())
}

/// Each row of a table once, as labelled by the last model; `None` for a table without keys.
fn latest(ctx: &SessionContext, table: &Arc<LabelTable>) -> Result<Option<Arc<dyn TableProvider>>> {
    let snapshot = table.snapshot();
    let has = |name: &str| snapshot.schema.index_of(name).is_ok();
    if snapshot.keys.is_empty() || !snapshot.keys.iter().all(|key| has(key)) || !has(LABELLED_AT) || !has(MODEL) {
        return Ok(None);
    }
    let column = |name: &str| Expr::Column(Column::from_name(name));
    let keys: Vec<Expr> = snapshot.keys.iter().map(|key| column(key)).collect();
    let all = snapshot.schema.fields().iter().map(|field| column(field.name())).collect();
    let by_key = keys.iter().map(|key| key.clone().sort(true, false));
    let newest = [column(LABELLED_AT).sort(false, false), column(MODEL).sort(false, false)];
    let order = by_key.chain(newest).collect();
    let rows = ctx.read_table(Arc::clone(table) as _)?.distinct_on(keys, all, Some(order))?;
    Ok(Some(rows.into_view()))
}

/// The URL of the place in the session.
fn url_of(ctx: &SessionContext, location: &Location) -> Result<String> {
    location.register(&ctx.runtime_env());
    let store: &Url = location.store_url().as_ref();
    let mut url = store.clone();
    let names = location.prefix().parts();
    url.path_segments_mut()
        .map_err(|()| Error::internal(format!("{store} has no paths")))?
        .clear()
        .extend(names.map(|name| name.as_ref().to_owned()));
    Ok(url.into())
}

/// Whether there is a table's log at the place.
async fn has_log(location: &Location) -> bool {
    let Ok(log) = location.join("_delta_log") else { return false };
    match log.local_path() {
        Some(directory) => directory.is_dir(),
        // A store that cannot list has no tables.
        None => matches!(log.store().list(Some(log.prefix())).next().await, Some(Ok(_))),
    }
}

/// Whether there may be an entry in the log at the place.
async fn has_entry(location: &Location) -> bool {
    match location.list("_delta_log").await {
        Ok(files) => files.iter().any(|file| file.location.extension().is_some_and(|ending| ending == "json")),
        Err(_) => true,
    }
}

/// Whether a local file begins with the magic bytes of Parquet.
fn begins_as_parquet(file: &Path) -> bool {
    let mut mark = [0; 4];
    crate::store::open_regular(file).and_then(|mut file| file.read_exact(&mut mark)).is_ok() && mark == *b"PAR1"
}

/// The files that are tables by themselves.
#[derive(Clone, Copy)]
enum FileKind {
    Parquet,
    /// With the delimiter.
    Csv(u8),
}

impl FileKind {
    fn of(path: &str) -> Option<Self> {
        let ending = |name: &str| Some(name.rsplit_once('.')?.1.to_ascii_lowercase());
        match (ending(path)?.as_str(), ending(plain::name_of(path))?.as_str()) {
            ("parquet" | "pq", _) => Some(FileKind::Parquet),
            (_, "csv") => Some(FileKind::Csv(b',')),
            (_, "tsv") => Some(FileKind::Csv(b'\t')),
            _ => None,
        }
    }
}

/// Registers a file, or the files of a directory, whose names have this `ending`.
async fn register_file(
    ctx: &SessionContext,
    kind: FileKind,
    Named { name, path, .. }: &Named,
    ending: &str,
    location: &Location,
) -> Result<Vec<Registered>> {
    // A pipe would be waited for.
    if let Some(file) = location.local_path().filter(|file| !file.is_dir())
        && let Err(e) = crate::store::check_regular(file)
        && e.kind() == std::io::ErrorKind::Unsupported
    {
        return Err(Error::input(format!("{location}: {e}")));
    }
    if let (FileKind::Csv(delimiter), Some(true)) = (kind, location.local_path().map(Path::is_file))
        && let Some(rows) = plain::text_table(path, delimiter).await?
    {
        ctx.register_table(TableReference::bare(name.as_str()), rows)?;
        return Ok(vec![Registered { name: name.to_owned(), location: location.to_string() }]);
    }
    let url = url_of(ctx, location)?;
    let table = TableReference::bare(name.as_str());
    // DataFusion reads files with one ending, in the same upper or lower case. Its decoders may panic on a damaged
    // footer.
    let place = location.to_string();
    let read = async {
        let read = match kind {
            FileKind::Parquet => {
                let options = ParquetReadOptions { file_extension: ending, ..ParquetReadOptions::default() };
                ctx.register_parquet(table, &url, options).await
            }
            FileKind::Csv(delimiter) => {
                let options = CsvReadOptions::new().delimiter(delimiter).file_extension(ending);
                ctx.register_csv(table, &url, options).await
            }
        };
        read.map_err(|e| Error::from(e).while_doing(&place))
    };
    fenced_async(&place, read).await?;
    Ok(vec![Registered { name: name.to_owned(), location: location.to_string() }])
}
