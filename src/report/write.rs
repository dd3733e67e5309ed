//! The files of a report.

use super::findings::Findings;
use super::gather::gather;
use super::page::{PAGE, Page};
use crate::error::{Error, Result};
use crate::store::Location;

/// The directory of a report, below its table.
pub const DIRECTORY: &str = "report";

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// The page.
    pub page: String,
    /// The figures beside it.
    pub figures: usize,
    /// Bytes of the page.
    pub bytes: u64,
}

/// Where the page of a table's own report is, for messages and `run.json`.
pub fn page_of(table: &Location) -> String {
    table.show(&format!("{DIRECTORY}/{PAGE}"))
}

/// Looks at the table at `table` and writes its report into the directory `to`; `labels` names its column of labels.
///
/// # Errors
/// As [`gather`]; kind `Io` if a file cannot be written.
pub async fn write(table: &Location, labels: Option<&str>, to: &Location) -> Result<Written> {
    write_findings(&gather(table, labels).await?, to).await
}

/// Whether a figure of a report may have this name.
fn is_figure(name: &str) -> bool {
    const NAMES: [&str; 6] =
        ["embedding-clusters", "embedding-labels", "contingency", "sizes", "feature-weights", "reconstructions"];
    NAMES.contains(&name) || name.starts_with("autoencoder-")
}

async fn write_findings(findings: &Findings, to: &Location) -> Result<Written> {
    let page = Page::of(findings).map_err(|e| Error::internal("a figure cannot be laid out").with_source(e))?;
    let mut files = page.files();
    let html = files.remove(PAGE).unwrap_or_default();
    let (figures, bytes) = (files.len(), html.len() as u64);
    // Figures of an earlier page that this one does not have.
    for file in to.list("").await.unwrap_or_default() {
        let Some(name) = file.location.filename() else { continue };
        let one_of_ours = name.strip_suffix(".svg").is_some_and(is_figure);
        if one_of_ours && !files.contains_key(name) && to.path(name)? == file.location {
            to.delete(name).await?;
        }
    }
    // The page last: what it says lies beside it does.
    for (name, content) in files.into_iter().chain([(PAGE.to_owned(), html)]) {
        to.put(&name, content.into()).await?;
    }
    Ok(Written { page: to.show(PAGE), figures, bytes })
}
