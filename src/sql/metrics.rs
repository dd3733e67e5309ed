//! The aggregates `ari(a, b)`, `nmi(a, b)` and `clustering_accuracy(a, b)`: how far two labellings of the same rows
//! agree.
//!
//! Labels may have any type that can be cast to text, and two are equal if their texts are. A row in which either label
//! is NULL or NaN does not count. Memory is one count for each pair of labels that occurs. The partial state is these
//! counts, so the result does not depend on how the rows were partitioned.

use std::fmt;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, ListArray, StringArray, UInt64Array};
use arrow::buffer::OffsetBuffer;
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Field, FieldRef, UInt32Type, UInt64Type};
use datafusion::common::{Result, ScalarValue, internal_datafusion_err, not_impl_err, plan_err};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{Accumulator, AggregateUDFImpl, Signature, Volatility};

use crate::column::label_texts;
use crate::metrics::{Contingency, Label, LabelRef};

/// A figure of agreement between two labellings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Metric {
    /// The Rand index adjusted for chance (Hubert & Arabie 1985): 1 for equal partitions, about 0 for random ones.
    AdjustedRandIndex,
    /// Mutual information over the arithmetic mean of the entropies: 0 to 1.
    NormalizedMutualInformation,
    /// The fraction of rows that agree under the best one-to-one matching of clusters to labels.
    Accuracy,
}

impl Metric {
    /// All metrics.
    pub const ALL: [Metric; 3] = [Metric::AdjustedRandIndex, Metric::NormalizedMutualInformation, Metric::Accuracy];

    /// Its name in SQL.
    pub fn name(self) -> &'static str {
        match self {
            Metric::AdjustedRandIndex => "ari",
            Metric::NormalizedMutualInformation => "nmi",
            Metric::Accuracy => "clustering_accuracy",
        }
    }

    fn of(self, table: &Contingency) -> crate::Result<f64> {
        match self {
            Metric::AdjustedRandIndex => Ok(table.ari()),
            Metric::NormalizedMutualInformation => Ok(table.nmi()),
            Metric::Accuracy => table.accuracy(),
        }
    }
}

impl fmt::Display for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A [`Metric`] as a SQL aggregate of two columns of labels.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct ClusteringMetric {
    metric: Metric,
    signature: Signature,
}

impl ClusteringMetric {
    /// The aggregate that computes `metric`.
    pub fn new(metric: Metric) -> Self {
        Self { metric, signature: Signature::any(2, Volatility::Immutable) }
    }
}

impl AggregateUDFImpl for ClusteringMetric {
    fn name(&self) -> &str {
        self.metric.name()
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        for (at, argument) in arguments.iter().enumerate() {
            if !arrow::compute::can_cast_types(argument, &DataType::Utf8) || argument.is_nested() {
                let name = self.name();
                return plan_err!("{name}: argument {} is {argument}; labels are numbers or text", at + 1);
            }
        }
        Ok(DataType::Float64)
    }

    fn accumulator(&self, arguments: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        if arguments.is_distinct {
            return not_impl_err!("{} counts every row; leave DISTINCT out", self.name());
        }
        let whole = |side: usize| arguments.expr_fields.get(side).is_some_and(|field| field.data_type().is_integer());
        let (a, b) = (Side { whole: whole(0) }, Side { whole: whole(1) });
        Ok(Box::new(PairCounts { metric: self.metric, a, b, table: Contingency::default() }))
    }

    fn state_fields(&self, arguments: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        let list = |suffix: &str, of: DataType| {
            let item = Arc::new(Field::new_list_field(of, true));
            Arc::new(Field::new(format!("{}[{suffix}]", arguments.name), DataType::List(item), true))
        };
        Ok(vec![list("a", DataType::Utf8), list("b", DataType::Utf8), list("count", DataType::UInt64)])
    }
}

/// One of the two columns.
#[derive(Debug, Clone, Copy)]
struct Side {
    /// Whether its labels are integers, which are ordered differently from their texts.
    whole: bool,
}

impl Side {
    fn label(self, text: &str) -> LabelRef<'_> {
        match text.parse() {
            Ok(number) if self.whole => LabelRef::Int(number),
            _ => LabelRef::Text(text),
        }
    }
}

/// How often each pair of labels was seen.
#[derive(Debug)]
struct PairCounts {
    metric: Metric,
    a: Side,
    b: Side,
    table: Contingency,
}

/// A column of labels as text, with each distinct value once.
fn dictionary(column: &ArrayRef, metric: Metric) -> Result<ArrayRef> {
    let text: ArrayRef = Arc::new(label_texts(column, metric.name())?);
    let coded = DataType::Dictionary(Box::new(DataType::UInt32), Box::new(DataType::Utf8));
    Ok(cast_with_options(&text, &coded, &CastOptions::default())?)
}

impl Accumulator for PairCounts {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let [a, b] = values else { return Err(internal_datafusion_err!("{} takes two columns", self.metric)) };
        let (a, b) = (dictionary(a, self.metric)?, dictionary(b, self.metric)?);
        let (a, b) = (a.as_dictionary::<UInt32Type>(), b.as_dictionary::<UInt32Type>());
        let (names_a, names_b) = (a.values().as_string::<i32>(), b.values().as_string::<i32>());
        let (of_a, of_b) = (self.a, self.b);
        let numbers_a: Vec<_> = names_a.iter().map(|n| n.map(|n| self.table.cluster_number(of_a.label(n)))).collect();
        let numbers_b: Vec<_> = names_b.iter().map(|n| n.map(|n| self.table.class_number(of_b.label(n)))).collect();
        for (i, j) in a.keys().iter().zip(b.keys()) {
            if let (Some(i), Some(j)) = (i, j)
                && let (Some(a), Some(b)) = (numbers_a[i as usize], numbers_b[j as usize])
            {
                self.table.add_numbered(a, b, 1);
            }
        }
        Ok(())
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        Ok(ScalarValue::Float64(match self.table.rows() {
            0 => None,
            _ => Some(self.metric.of(&self.table)?),
        }))
    }

    fn size(&self) -> usize {
        size_of::<Self>() - size_of::<Contingency>() + self.table.memory_size()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        // Sorted by label, so that the state does not depend on the order of the rows.
        let entries = self.table.entries();
        let text = |label: &Label| Some(label.to_string());
        let a: StringArray = entries.iter().map(|entry| text(entry.0)).collect();
        let b: StringArray = entries.iter().map(|entry| text(entry.1)).collect();
        let counts: UInt64Array = entries.iter().map(|entry| Some(entry.2)).collect();
        Ok(vec![list_of(Arc::new(a)), list_of(Arc::new(b)), list_of(Arc::new(counts))])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let [a, b, counts] = states else {
            return Err(internal_datafusion_err!("the state of {} has three columns", self.metric));
        };
        let (a, b, counts) = (a.as_list::<i32>(), b.as_list::<i32>(), counts.as_list::<i32>());
        for row in (0..a.len()).filter(|&row| a.is_valid(row)) {
            let (a, b, counts) = (a.value(row), b.value(row), counts.value(row));
            let (a, b) = (a.as_string::<i32>(), b.as_string::<i32>());
            for (i, &count) in counts.as_primitive::<UInt64Type>().values().iter().enumerate() {
                self.table.add_count(self.a.label(a.value(i)), self.b.label(b.value(i)), count);
            }
        }
        Ok(())
    }
}

fn list_of(values: ArrayRef) -> ScalarValue {
    let item = Arc::new(Field::new_list_field(values.data_type().clone(), true));
    let offsets = OffsetBuffer::from_lengths([values.len()]);
    ScalarValue::List(Arc::new(ListArray::new(item, offsets, values, None)))
}
