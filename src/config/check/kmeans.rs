//! Checks of a kmeans stage.

use super::super::file::*;
use super::super::half_life::HalfLifeSetting;
use super::Check;
use crate::label::Begin;
use crate::normalize::Normalize;

impl Check<'_> {
    /// Keys of one method that another does not have.
    pub(super) fn kmeans(&mut self) {
        let draft = self.draft;
        let Some(at) = self.position("kmeans") else { return };
        let Some(StageTable::Kmeans(table)) = &draft.stages[at].1 else { return };
        let path = |key: &str| format!("stage[{at}].{key}");
        if table.batch_size.is_some() && table.method == KmeansMethodName::Lloyd {
            let message = "`batch_size` is given, but method \"lloyd\" uses all rows in every pass";
            self.at(&path("batch_size"), message, "method = \"mini_batch\" or \"online\"");
        }
        if table.method == KmeansMethodName::Online {
            return self.online(table, path);
        }
        for (key, given) in [("decay", table.decay.is_some()), ("half_life", table.half_life.is_some())] {
            if given {
                let message = format!("`{key}` is given, but only method \"online\" forgets rows");
                self.at(&path(key), message, "method = \"online\"");
            }
        }
    }

    /// Online k-means passes over the rows once.
    fn online(&mut self, table: &KmeansTable, path: impl Fn(&str) -> String) {
        // Defaults that are written out ask for nothing.
        for (key, given) in [
            ("max_iterations", table.max_iterations != default_max_iterations()),
            ("tolerance", table.tolerance != default_tolerance()),
        ] {
            if given {
                let message = format!("`{key}` is given, but method \"online\" passes over the rows once");
                self.at(&path(key), message, "leave the key out");
            }
        }
        for (key, value, repeats) in [
            ("begin", "layout", table.begin == Begin::Layout),
            ("normalize", "within", table.normalize == Normalize::Within),
        ] {
            if repeats {
                let message =
                    format!("`{key}` is \"{value}\", which takes several passes; method \"online\" takes one");
                self.at(&path(key), message, "method = \"lloyd\" or \"mini_batch\"");
            }
        }
        if table.decay.is_some() && table.half_life.is_some() {
            let help = "one of the two: a half-life of h batches is a decay of 2^(-1 / h)";
            self.at(&path("half_life"), "both `decay` and `half_life` are given", help);
        }
        if let Some(HalfLifeSetting::Time(span)) = table.half_life {
            let message = format!("a half-life of {span}, but the rows to learn from have no event times here");
            self.at(&path("half_life"), message, "a number of rows or batches: \"5000 rows\", \"20 batches\"");
        }
    }
}
