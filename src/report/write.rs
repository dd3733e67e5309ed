//! Writes the files of a report.

use super::draw::GENERATOR;
use super::findings::Findings;
use super::gather::gather;
use super::page::{PAGE, Page};
use crate::error::{Error, Result};
use crate::secret::redacted;
use crate::store::Location;
use crate::unlinked;

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

/// The path of the page of a table's own report, for messages and `run.json`.
pub fn page_of(table: &Location) -> String {
    table.show(&format!("{DIRECTORY}/{PAGE}"))
}

/// Writes a report of the table at `table` into the directory `to`; `labels` names its column of labels.
///
/// # Errors
/// As [`gather`]; kind `Io` if a file cannot be written, `Config` if a file that is not dacpipe's, or a link, has the
/// name of one of the report. The files contain no secrets.
pub async fn write(table: &Location, labels: Option<&str>, to: &Location) -> Result<Written> {
    write_findings(&gather(table, labels).await?, to).await
}

/// Whether this can be the name of a figure of a report.
fn is_figure(name: &str) -> bool {
    const NAMES: [&str; 6] =
        ["embedding-clusters", "embedding-labels", "contingency", "sizes", "feature-weights", "reconstructions"];
    NAMES.contains(&name) || ["autoencoder-", "deep_clustering-"].iter().any(|stage| name.starts_with(stage))
}

/// Whether this name exists, also as a link.
async fn is_there(to: &Location, name: &str) -> Result<bool> {
    Ok(match to.local_path() {
        Some(dir) => dir.join(name).symlink_metadata().is_ok(),
        None => to.get(name).await?.is_some(),
    })
}

/// Whether the file of this name begins as a file of a report does; a link never counts.
async fn is_ours(to: &Location, name: &str) -> Result<bool> {
    const BEGINNING: usize = 1024;
    if to.local_path().is_some_and(|dir| !unlinked::is_file(&dir.join(name))) {
        return Ok(false);
    }
    let Some(content) = to.get(name).await? else { return Ok(false) };
    let beginning = String::from_utf8_lossy(&content[..content.len().min(BEGINNING)]);
    Ok(beginning.contains(GENERATOR))
}

async fn write_findings(findings: &Findings, to: &Location) -> Result<Written> {
    if let Some(dir) = to.local_path().filter(|dir| dir.symlink_metadata().is_ok() && !unlinked::is_dir(dir)) {
        return Err(Error::config(format!(
            "{} is a link, or no directory, and is left as it is; write the report elsewhere (dacpipe report --out)",
            dir.display()
        )));
    }
    let page = Page::of(findings).map_err(|e| Error::internal("a figure cannot be laid out").with_source(e))?;
    let mut files = page.files();
    files.values_mut().for_each(|content| *content = redacted(content).into_owned());
    let html = files.remove(PAGE).unwrap_or_default();
    let (figures, bytes) = (files.len(), html.len() as u64);
    for name in files.keys().map(String::as_str).chain([PAGE]) {
        if is_there(to, name).await? && !is_ours(to, name).await? {
            return Err(Error::config(format!(
                "{} is there and not by dacpipe, so it is left as it is; move it away, or write the report elsewhere \
                 (dacpipe report --out)",
                to.show(name)
            )));
        }
    }
    // Removes figures of an earlier page that this one does not have.
    for file in to.list("").await.unwrap_or_default() {
        let Some(name) = file.location.filename() else { continue };
        let like_ours = name.strip_suffix(".svg").is_some_and(is_figure);
        if like_ours && !files.contains_key(name) && to.path(name)? == file.location && is_ours(to, name).await? {
            to.delete(name).await?;
        }
    }
    // The page comes last, so that the figures it mentions exist.
    for (name, content) in files.into_iter().chain([(PAGE.to_owned(), html)]) {
        to.put(&name, content.into()).await?;
    }
    Ok(Written { page: to.show(PAGE), figures, bytes })
}
