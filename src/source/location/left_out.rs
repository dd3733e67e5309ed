//! What a directory has and a source does not read.

use std::fmt;

/// What a source does not read of a directory, hidden names apart.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct LeftOut {
    /// Files whose names end otherwise than those of its kind.
    pub files: u64,
    /// The first of them by name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first: Option<String>,
    /// Links to what is not there.
    pub links: u64,
    /// The first of them by name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_link: Option<String>,
    /// How the names of its kind end.
    pub endings: Vec<String>,
}

impl LeftOut {
    /// True if nothing is left out.
    pub fn is_empty(&self) -> bool {
        self.files == 0 && self.links == 0
    }

    /// The same, for a source whose files' names end like this.
    pub(super) fn of(self, endings: &[&str]) -> Self {
        Self { endings: endings.iter().map(|&ending| ending.to_owned()).collect(), ..self }
    }

    /// Counts a file.
    pub(super) fn add(&mut self, below: &str) {
        self.files += 1;
        keep_least(&mut self.first, below);
    }

    /// Counts a link to what is not there.
    pub(super) fn add_link(&mut self, below: &str) {
        self.links += 1;
        keep_least(&mut self.first_link, below);
    }
}

fn keep_least(first: &mut Option<String>, name: &str) {
    if first.as_deref().is_none_or(|first| name < first) {
        *first = Some(name.to_owned());
    }
}

/// `2 files are not read, as names do not end with .csv, .tsv: b.log, …; a glob reads them`; empty if nothing is left out.
impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let more = |count: u64| if count == 1 { "" } else { ", …" };
        if let Some(first) = &self.first {
            let (count, ends) = (self.files, self.endings.join(", "));
            let files = if count == 1 { "file is" } else { "files are" };
            let more = more(count);
            write!(f, "{count} {files} not read, as names do not end with {ends}: {first}{more}; a glob reads them")?;
        }
        if let Some(first) = &self.first_link {
            let count = self.links;
            let links = if count == 1 { "link leads" } else { "links lead" };
            let and = if self.first.is_some() { "; " } else { "" };
            write!(f, "{and}{count} {links} to a missing file and {}: {first}{}", ignored(count), more(count))?;
        }
        Ok(())
    }
}

fn ignored(count: u64) -> &'static str {
    if count == 1 { "is ignored" } else { "are ignored" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_says_how_many_and_which_is_the_first() {
        let mut left_out = LeftOut::default().of(&[".csv", ".txt"]);
        assert!(left_out.is_empty() && left_out.to_string().is_empty());
        left_out.add("c.log");
        assert_eq!(
            left_out.to_string(),
            "1 file is not read, as names do not end with .csv, .txt: c.log; a glob reads them"
        );
        left_out.add("b.log");
        left_out.add("d.log");
        let files = "3 files are not read, as names do not end with .csv, .txt: b.log, …; a glob reads them";
        assert_eq!(left_out.to_string(), files);
        left_out.add_link("latest");
        assert_eq!(left_out.to_string(), format!("{files}; 1 link leads to a missing file and is ignored: latest"));
        let links = LeftOut { links: 2, first_link: Some("a".into()), ..LeftOut::default() };
        assert!(!links.is_empty());
        assert_eq!(links.to_string(), "2 links lead to a missing file and are ignored: a, …");
    }
}
