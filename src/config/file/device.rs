//! `device`: where networks are trained and applied.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::device::DeviceChoice;

/// A device: its name alone, or a table of its name and how it is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum DeviceSetting {
    /// Its name.
    Name(DeviceChoice),
    /// Its name, and how it is used.
    Table(DeviceTable),
}

/// A device and how it is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DeviceTable {
    /// Its name. Default "auto".
    #[serde(default)]
    pub name: DeviceChoice,
    /// Whether the CPU trains the autoencoder stage with its fused trainer; if false, it is trained on candle's tape,
    /// as other networks are. Default true.
    #[serde(default = "fused")]
    pub fused: bool,
}

fn fused() -> bool {
    true
}

impl Default for DeviceSetting {
    fn default() -> Self {
        Self::Name(DeviceChoice::default())
    }
}

impl DeviceSetting {
    /// The name, and whether the CPU's trainer is fused.
    pub fn parts(self) -> (DeviceChoice, bool) {
        match self {
            Self::Name(name) => (name, fused()),
            Self::Table(DeviceTable { name, fused }) => (name, fused),
        }
    }
}
