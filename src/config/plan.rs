//! What runs.
use super::file::*;
/// Plan.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan { pub name: String }
impl Plan { pub(super) fn of(file: &PipelineFile) -> Result<Self, String> { Ok(Plan { name: file.name.clone() }) } }
