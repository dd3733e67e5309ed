//! The page: makes one HTML file and its figures from the findings.

mod apart;
mod embedding;
mod learning;
mod overview;

use std::collections::BTreeMap;

use super::draw::{self, Figure, GENERATOR, Group, Ink};
use super::findings::{Findings, Part};
use super::markup::{self, Markup, element, literal, text};

/// The name of the page's file.
pub const PAGE: &str = "index.html";

/// A finished report.
#[derive(Debug, Clone, PartialEq)]
pub struct Page {
    /// The page, which needs no other file.
    pub html: String,
    /// Its figures, which are also in the page.
    pub figures: Vec<Figure>,
}

impl Page {
    /// Draws the findings.
    ///
    /// # Errors
    /// A figure that cannot be laid out.
    pub fn of(findings: &Findings) -> draw::Result<Self> {
        let mut figures = Figures::default();
        let body = [
            overview::header(findings),
            overview::scores(findings),
            embedding::section(findings, &mut figures)?,
            overview::sizes(findings, &mut figures)?,
            apart::section(findings, &mut figures)?,
            learning::section(findings, &mut figures)?,
            learning::rebuilt(findings, &mut figures)?,
            overview::footer(findings),
        ];
        let title = text(format!("{}: clusters", findings.name));
        let html = Markup::join([
            literal("<!doctype html>\n"),
            literal("<html lang=\"en\" "),
            literal(GENERATOR),
            literal("><head><meta charset=\"utf-8\">"),
            literal("<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">"),
            // Nothing is fetched and no script runs, whatever the data contain.
            literal(
                "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none';style-src 'unsafe-inline'\">",
            ),
            element("title", "", [title]),
            Markup::styles(&[include_str!("page.css"), &draw::styles()]),
            literal("</head><body>\n"),
            element("main", "", body),
            literal("\n</body></html>\n"),
        ]);
        Ok(Self { html: html.into_string(), figures: figures.0 })
    }

    /// The files of the report, by name.
    pub fn files(&self) -> BTreeMap<String, String> {
        let svgs = self.figures.iter().map(|figure| (format!("{}.svg", figure.name), figure.file()));
        svgs.chain([(PAGE.to_owned(), self.html.clone())]).collect()
    }
}

/// The figures drawn so far.
#[derive(Default)]
struct Figures(Vec<Figure>);

impl Figures {
    /// Keeps the figure and returns a card that shows it, with a heading and a note.
    fn card(&mut self, figure: Figure, note: &str) -> Markup {
        let shown = [heading(&figure.title), markup::figure(&figure), note_below(note)];
        self.0.push(figure);
        element("section", "card", shown)
    }
}

fn heading(title: &str) -> Markup {
    element("h3", "", [text(title)])
}

fn note_below(note: &str) -> Markup {
    match note {
        "" => Markup::default(),
        note => element("p", "", [text(note)]),
    }
}

/// The heading of a section.
fn titled(title: &'static str, intro: &str) -> Markup {
    Markup::join([element("h2", "", [literal(title)]), element("p", "", [text(intro)])])
}

/// The sentence that says why a part is missing.
fn missing<T>(part: &Part<T>) -> Markup {
    match part {
        Ok(_) => Markup::default(),
        Err(why) => element("p", "missing", [text(why)]),
    }
}

/// The clusters as groups of a figure, in order, and the index of each.
fn clusters(findings: &Findings) -> (Vec<Group>, BTreeMap<i32, usize>) {
    let groups = findings.sizes.keys().map(|&cluster| Group { name: cluster.to_string(), ink: ink(cluster) }).collect();
    (groups, findings.sizes.keys().enumerate().map(|(place, &cluster)| (cluster, place)).collect())
}

/// The ink of a cluster, the same in every figure.
fn ink(cluster: i32) -> Ink {
    Ink::of_group(usize::try_from(cluster).unwrap_or_default())
}

#[cfg(test)]
mod tests;
