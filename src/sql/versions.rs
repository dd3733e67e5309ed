//! `table_at('hapt', 3)`: a registered table as it was at a version or a time.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use datafusion::catalog::{TableFunctionArgs, TableFunctionImpl, TableProvider};
use datafusion::common::{ScalarValue, plan_err};
use datafusion::logical_expr::Expr;

use super::register::{At, open_at};
use crate::error::{Error, Result};
use crate::store::Location;

/// The function's name.
pub(super) const NAME: &str = "table_at";

/// The table function. It takes the name of a registered table, and a version as a number or a time as text
/// (`2026-03-01T12:00:00Z`), and gives the table's rows at that version.
#[derive(Debug, Default)]
pub struct TableAt {
    tables: RwLock<BTreeMap<String, Location>>,
}

impl TableAt {
    /// Lets the function find the table at `location` under `name`.
    pub(super) fn add(&self, name: &str, location: Location) {
        self.tables.write().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), location);
    }
}

impl TableFunctionImpl for TableAt {
    fn call_with_args(&self, args: TableFunctionArgs) -> datafusion::error::Result<Arc<dyn TableProvider>> {
        let usage = || plan_err!("{NAME} takes a table's name and a version or a time: {NAME}('hapt', 3)");
        let [Expr::Literal(name, _), Expr::Literal(when, _)] = args.exprs() else { return usage() };
        let (ScalarValue::Utf8(Some(name)) | ScalarValue::Utf8View(Some(name))) = name else { return usage() };
        let at = match when {
            ScalarValue::Int64(Some(version)) => match u64::try_from(*version) {
                Ok(version) => At::Version(version),
                Err(_) => return plan_err!("{NAME}: version {version}; expected 0 or more"),
            },
            ScalarValue::UInt64(Some(version)) => At::Version(*version),
            ScalarValue::Utf8(Some(time)) | ScalarValue::Utf8View(Some(time)) => {
                match humantime::parse_rfc3339_weak(time) {
                    Ok(time) => At::Time(time),
                    Err(e) => return plan_err!("{NAME}: {time:?}: {e}; expected a time such as 2026-03-01T12:00:00Z"),
                }
            }
            _ => return usage(),
        };
        let tables = self.tables.read().unwrap_or_else(PoisonError::into_inner);
        let Some(location) = tables.get(name) else {
            let there: Vec<&str> = tables.keys().map(String::as_str).collect();
            return plan_err!("{NAME}: no labelled table {name:?}; there are {}", there.join(", "));
        };
        let table = wait(location.clone(), at).map_err(datafusion::error::DataFusionError::from)?;
        Ok(Arc::new(table))
    }
}

/// Opens the table on a thread of its own, since planning is synchronous.
fn wait(location: Location, at: At) -> Result<crate::table::LabelTable> {
    let failed = |e: std::io::Error| Error::io("cannot start a thread to open a table").with_source(e);
    let open = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
        runtime.block_on(open_at(&location, at))
    };
    std::thread::spawn(open).join().unwrap_or_else(|_| Err(Error::internal("a thread that opened a table panicked")))
}
