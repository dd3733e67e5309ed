//! What counts say, compared with a reference.

use serde::{Deserialize, Serialize};

use super::psi::{by_chance, psi, used};
use super::reference::{Counts, Reference};
use super::{DriftSpec, Level, Measure};

/// How far one thing has drifted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// What it is.
    pub measure: Measure,
    /// The feature's name, or the cluster's id; `None` for all clusters, and for the distances.
    pub name: Option<String>,
    /// The feature's index, from 0, or the cluster's id.
    pub position: Option<i32>,
    /// The population stability index. Of one cluster, its part of that of all.
    pub psi: f64,
    /// What chance alone stays below: [`by_chance`]. `None` for one cluster.
    pub chance: Option<f64>,
    /// What that asks for. `None` for one cluster: all of them together are judged.
    pub level: Option<Level>,
    /// The share of the rows learned from that one cluster has.
    pub expected: Option<f64>,
    /// Its share of the rows.
    pub actual: Option<f64>,
}

/// What counts say: features first, then the clusters together, each cluster, and the distances.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Judgement {
    /// Rows that were counted.
    pub rows: u64,
    /// Rows that they were compared with.
    pub reference_rows: u64,
    /// What was found, whether anything has drifted or not.
    pub findings: Vec<Finding>,
}

impl Judgement {
    /// The gravest level.
    pub fn level(&self) -> Level {
        self.findings.iter().filter_map(|finding| finding.level).max().unwrap_or_default()
    }

    /// What has drifted, the furthest first.
    pub fn drifted(&self) -> Vec<&Finding> {
        let mut found: Vec<&Finding> =
            self.findings.iter().filter(|finding| finding.level.is_some_and(|level| level > Level::Stable)).collect();
        found.sort_by(|a, b| b.level.cmp(&a.level).then(b.psi.total_cmp(&a.psi)));
        found
    }

    /// The greatest index of `measure`; `None` if it was not measured.
    pub fn greatest(&self, measure: Measure) -> Option<&Finding> {
        let of = self.findings.iter().filter(|finding| finding.measure == measure && finding.level.is_some());
        of.max_by(|a, b| a.psi.total_cmp(&b.psi))
    }
}

pub(super) fn judge(reference: &Reference, counts: &Counts, spec: &DriftSpec) -> Judgement {
    let (before, rows) = (&reference.counts, counts.rows);
    let level = |expected: &[u64], actual: &[u64]| {
        let (psi, chance) = (psi(expected, actual), by_chance(used(expected, actual), rows, before.rows));
        let level = match psi >= chance {
            true if psi >= spec.act => Level::Act,
            true if psi >= spec.watch => Level::Watch,
            _ => Level::Stable,
        };
        (psi, Some(chance), Some(level))
    };
    let mut findings = Vec::new();
    let all = |measure, (psi, chance, level)| Finding {
        measure,
        name: None,
        position: None,
        psi,
        chance,
        level,
        expected: None,
        actual: None,
    };
    let measured = |measure| spec.measure.contains(&measure) && reference.has(measure);
    if measured(Measure::Features) {
        for (feature, (expected, actual)) in before.features.iter().zip(&counts.features).enumerate() {
            let name = reference.names.get(feature).cloned().unwrap_or_else(|| feature.to_string());
            let found = all(Measure::Features, level(expected, actual));
            findings.push(Finding { name: Some(name), position: i32::try_from(feature).ok(), ..found });
        }
    }
    if measured(Measure::Clusters) {
        // Clusters that are on one side only have no rows on the other.
        let ids: Vec<i32> = {
            let mut ids: Vec<i32> = before.clusters.keys().chain(counts.clusters.keys()).copied().collect();
            ids.sort_unstable();
            ids.dedup();
            ids
        };
        let of =
            |counts: &Counts| ids.iter().map(|id| counts.clusters.get(id).copied().unwrap_or(0)).collect::<Vec<u64>>();
        let (expected, actual) = (of(before), of(counts));
        let together = level(&expected, &actual);
        findings.push(all(Measure::Clusters, together));
        for (at, id) in ids.iter().enumerate() {
            let share = |counts: &[u64]| counts[at] as f64 / counts.iter().sum::<u64>().max(1) as f64;
            // Its term of the sum.
            let others = ids.len() as f64 / 2.0;
            let smooth = |counts: &[u64]| (counts[at] as f64 + 0.5) / (counts.iter().sum::<u64>() as f64 + others);
            let (e, a) = (smooth(&expected), smooth(&actual));
            findings.push(Finding {
                name: Some(id.to_string()),
                position: Some(*id),
                expected: Some(share(&expected)),
                actual: Some(share(&actual)),
                ..all(Measure::Clusters, ((a - e) * (a / e).ln(), None, None))
            });
        }
    }
    if measured(Measure::Distances) {
        findings.push(all(Measure::Distances, level(&before.distances, &counts.distances)));
    }
    Judgement { rows, reference_rows: before.rows, findings }
}
