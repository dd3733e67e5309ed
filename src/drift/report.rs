//! Drift in a few words, for reports.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Finding, Judgement, Level, Measure};

/// The most things that a report names.
const MOST_NAMED: usize = 10;
/// The most that one line names.
const MOST_SAID: usize = 3;

/// What a judgement says: the gravest level, and what has drifted the furthest.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct DriftReport {
    /// The hash of the model that learned from the rows that these were compared with.
    pub model: String,
    /// Rows that were compared.
    pub rows: u64,
    /// The gravest level.
    pub level: Level,
    /// How many things were judged.
    pub judged: usize,
    /// How many have drifted.
    pub drifted: usize,
    /// Those that have drifted the furthest, at most ten.
    pub furthest: Vec<Finding>,
}

impl DriftReport {
    /// The report of a judgement on rows against those of `model`.
    pub fn of(judgement: &Judgement, model: &str) -> Self {
        let drifted = judgement.drifted();
        Self {
            model: model.to_owned(),
            rows: judgement.rows,
            level: judgement.level(),
            judged: judgement.findings.iter().filter(|finding| finding.level.is_some()).count(),
            drifted: drifted.len(),
            furthest: drifted.into_iter().take(MOST_NAMED).cloned().collect(),
        }
    }
}

/// One line, such as `4 of 120 drifted: feature x 0.512 (act), distances 0.214 (watch), … in 2000 rows`.
impl fmt::Display for DriftReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rows, judged, drifted, furthest, .. } = self;
        if *drifted == 0 {
            return write!(f, "none of {judged} drifted in {rows} rows");
        }
        write!(f, "{drifted} of {judged} drifted in {rows} rows: ")?;
        for (at, finding) in furthest.iter().take(MOST_SAID).enumerate() {
            let comma = if at > 0 { ", " } else { "" };
            let what = match (finding.measure, &finding.name) {
                (Measure::Features, Some(name)) => format!("feature {name}"),
                (Measure::Features, None) => "a feature".to_owned(),
                (Measure::Clusters, _) => "cluster shares".to_owned(),
                (Measure::Distances, _) => "distances".to_owned(),
            };
            write!(f, "{comma}{what} {:.3} ({})", finding.psi, finding.level.unwrap_or_default().name())?;
        }
        if *drifted > MOST_SAID {
            f.write_str(", …")?;
        }
        Ok(())
    }
}
