//! The keys of rows, which identify the rows of a table, so that the same row is not labelled twice by one model.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::array::{Array, ArrayRef, BooleanArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, FieldRef, Schema};
use arrow::record_batch::RecordBatch;
use arrow::row::{RowConverter, SortField};
use arrow::util::display::array_value_to_string;
use datafusion::common::Column;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use datafusion::prelude::{SessionContext, col, lit};
use futures::StreamExt;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::provider::LabelTable;
use super::schema::MODEL;
use crate::column::missing;
use crate::error::{Error, Result};

/// What an append does with rows whose keys the table has already.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OnExisting {
    /// Leaves out rows with keys that the same model has labelled, whatever their vectors, and counts them. A row of another
    /// model does not count.
    #[default]
    Skip,
    /// Removes the existing rows from the table, whichever model labelled them, in the commit that adds the new ones.
    Replace,
    /// Fails.
    Error,
}

/// A 128-bit hash of a key. A collision is only to be expected among 2^64 rows.
type Digest = u128;

/// Makes digests of the key columns of batches.
#[derive(Debug)]
struct Digests {
    columns: Vec<Field>,
    converter: RowConverter,
}

impl Digests {
    /// Digests of the columns `keys`, in the types that they have in `table`.
    fn new(keys: &[String], table: &Schema) -> Result<Self> {
        let columns = keys.iter().map(|name| match table.field_with_name(name) {
            Ok(field) => Ok(field.clone()),
            Err(_) => Err(missing(table, name)),
        });
        let columns = columns.collect::<Result<Vec<Field>>>()?;
        let fields = columns.iter().map(|field| SortField::new(field.data_type().clone())).collect();
        Ok(Self { columns, converter: RowConverter::new(fields)? })
    }

    /// The key columns of a batch, in the table's types.
    fn arrays(&self, batch: &RecordBatch) -> Result<Vec<ArrayRef>> {
        let array = |field: &Field| {
            let found = batch.column_by_name(field.name()).ok_or_else(|| missing(&batch.schema(), field.name()))?;
            Ok(cast(found, field.data_type())?)
        };
        self.columns.iter().map(array).collect()
    }

    fn of(&self, arrays: &[ArrayRef]) -> Result<Vec<Digest>> {
        let rows = self.converter.convert_columns(arrays)?;
        let half = |salt: u8, row: &[u8]| {
            let mut hasher = DefaultHasher::new();
            hasher.write_u8(salt);
            hasher.write(row);
            u128::from(hasher.finish())
        };
        Ok(rows.iter().map(|row| half(0, row.as_ref()) << 64 | half(1, row.as_ref())).collect())
    }

    /// A key for messages: `user = 3, start = 128`.
    fn show(&self, arrays: &[ArrayRef], row: usize) -> String {
        let shown = |(field, array): (&Field, &ArrayRef)| {
            let value = match array.is_null(row) {
                true => "null".to_owned(),
                false => array_value_to_string(array, row).unwrap_or_default(),
            };
            format!("{} = {value}", field.name())
        };
        self.columns.iter().zip(arrays).map(shown).collect::<Vec<_>>().join(", ")
    }
}

/// The keys of the rows that a run writes. Without key columns every row is accepted.
#[derive(Debug, Default)]
pub(super) struct RunKeys {
    digests: Option<Digests>,
    seen: HashSet<Digest>,
}

impl RunKeys {
    /// An empty set for the columns `keys` of a table.
    pub(super) fn new(keys: &[String], table: &Schema) -> Result<Self> {
        let digests = (!keys.is_empty()).then(|| Digests::new(keys, table)).transpose()?;
        Ok(Self { digests, seen: HashSet::new() })
    }

    /// Adds the keys of a batch.
    ///
    /// # Errors
    /// Kind `Input`, naming the key, if an earlier row had it.
    pub(super) fn add(&mut self, batch: &RecordBatch) -> Result<()> {
        let Some(digests) = &self.digests else { return Ok(()) };
        let arrays = digests.arrays(batch)?;
        for (row, digest) in digests.of(&arrays)?.into_iter().enumerate() {
            if !self.seen.insert(digest) {
                let names: Vec<&str> = digests.columns.iter().map(|field| field.name().as_str()).collect();
                return Err(Error::input(format!(
                    "two rows have the key {}; the key columns {names:?} must tell rows apart: name others in keys, or \
                     remove the repeated rows; nothing was committed",
                    digests.show(&arrays, row)
                )));
            }
        }
        Ok(())
    }

    /// Whether there are key columns.
    pub(super) fn are_kept(&self) -> bool {
        self.digests.is_some() && !self.seen.is_empty()
    }

    /// Which rows of a batch of the table have a key that this run wrote.
    pub(super) fn written(&self, batch: &RecordBatch) -> Result<BooleanArray> {
        let Some(digests) = &self.digests else { return Ok(BooleanArray::from(vec![false; batch.num_rows()])) };
        let found = digests.of(&digests.arrays(batch)?)?;
        Ok(found.iter().map(|digest| Some(self.seen.contains(digest))).collect())
    }

    /// A key of this run that a row of `model` in `table` has, if there is one.
    pub(super) async fn met_in(&self, table: Arc<LabelTable>, model: &str) -> Result<Option<String>> {
        let Some(digests) = &self.digests else { return Ok(None) };
        let mut rows = keys_of(table, &digests.columns, Some(model)).await?;
        while let Some(batch) = rows.next().await {
            let batch = batch?;
            let arrays = digests.arrays(&batch)?;
            let found = digests.of(&arrays)?;
            if let Some(row) = found.iter().position(|digest| self.seen.contains(digest)) {
                return Ok(Some(digests.show(&arrays, row)));
            }
        }
        Ok(None)
    }
}

/// The key columns of a table, for the rows of one model or of all.
async fn keys_of(
    table: Arc<LabelTable>,
    columns: &[Field],
    model: Option<&str>,
) -> Result<datafusion::execution::SendableRecordBatchStream> {
    let by_model = table.snapshot().schema.field_with_name(MODEL).is_ok();
    let mut rows = SessionContext::new().read_table(table)?;
    if let Some(model) = model.filter(|_| by_model) {
        rows = rows.filter(col(MODEL).eq(lit(model)))?;
    }
    let columns = columns.iter().map(|field| Expr::Column(Column::from_name(field.name())));
    Ok(rows.select(columns)?.execute_stream().await?)
}

/// The keys that a table has already: rows with one of them are left out of a run, or are an error.
#[derive(Debug)]
pub struct ExistingKeys {
    digests: Digests,
    there: HashSet<Digest>,
    refuse: bool,
    skipped: AtomicU64,
}

impl ExistingKeys {
    /// The keys of the rows of `table` that `model` labelled, or any. About 32 bytes per row.
    pub(super) async fn read(
        table: Arc<LabelTable>,
        keys: &[String],
        model: Option<&str>,
        refuse: bool,
    ) -> Result<Self> {
        let digests = Digests::new(keys, &table.snapshot().schema)?;
        let mut there = HashSet::new();
        let mut rows = keys_of(table, &digests.columns, model).await?;
        while let Some(batch) = rows.next().await {
            let batch = batch?;
            there.extend(digests.of(&digests.arrays(&batch)?)?);
        }
        Ok(Self { digests, there, refuse, skipped: AtomicU64::new(0) })
    }

    /// Rows left out so far.
    pub fn skipped(&self) -> u64 {
        self.skipped.load(Ordering::Relaxed)
    }

    /// Which rows of these key columns are new. Counts the others.
    fn new_rows(&self, batch: &RecordBatch) -> Result<BooleanArray> {
        let arrays = self.digests.arrays(batch)?;
        let found = self.digests.of(&arrays)?;
        let new: BooleanArray = found.iter().map(|digest| Some(!self.there.contains(digest))).collect();
        if new.false_count() > 0 {
            if self.refuse {
                let row = (0..new.len()).find(|&row| !new.value(row)).unwrap_or_default();
                return Err(Error::input(format!(
                    "the table has a row with the key {} already (on_existing = \"error\"); \
                     on_existing = \"skip\" leaves such rows out, \"replace\" puts the new ones in their place",
                    self.digests.show(&arrays, row)
                )));
            }
            self.skipped.fetch_add(new.false_count() as u64, Ordering::Relaxed);
        }
        Ok(new)
    }

    /// The condition that a row is new, for a plan over rows with the key columns.
    pub fn is_new(self: &Arc<Self>) -> Expr {
        let columns = self.digests.columns.iter().map(|field| Expr::Column(Column::from_name(field.name())));
        ScalarUDF::new_from_impl(IsNew(Arc::clone(self))).call(columns.collect())
    }
}

/// [`ExistingKeys::new_rows`] as a function in a plan. It counts rows, so it must be evaluated once per row.
#[derive(Debug)]
struct IsNew(Arc<ExistingKeys>);

impl PartialEq for IsNew {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for IsNew {}

impl std::hash::Hash for IsNew {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.0).hash(state);
    }
}

impl ScalarUDFImpl for IsNew {
    fn name(&self) -> &str {
        "is_new_key"
    }

    fn signature(&self) -> &Signature {
        static ANY: std::sync::LazyLock<Signature> =
            std::sync::LazyLock::new(|| Signature::variadic_any(Volatility::Volatile));
        &ANY
    }

    fn return_type(&self, _: &[DataType]) -> datafusion::error::Result<DataType> {
        Ok(DataType::Boolean)
    }

    fn return_field_from_args(&self, _: ReturnFieldArgs<'_>) -> datafusion::error::Result<FieldRef> {
        Ok(Arc::new(Field::new(self.name(), DataType::Boolean, false)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> datafusion::error::Result<ColumnarValue> {
        let rows = args.number_rows;
        let named = self.0.digests.columns.iter().zip(&args.args);
        let columns = named.map(|(field, value)| Ok((field.name(), value.to_array(rows)?)));
        let columns = columns.collect::<datafusion::error::Result<Vec<_>>>()?;
        let batch =
            RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, array)| (name, array, true)))?;
        let new = self.0.new_rows(&batch).map_err(datafusion::error::DataFusionError::from)?;
        Ok(ColumnarValue::Array(Arc::new(new)))
    }
}
