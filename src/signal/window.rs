//! Windows of a recording.

/// Where windows are cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Within {
    /// Inside each labelled interval, from its first sample on and never past its last.
    Labels,
    /// Over each whole recording, labelled or not.
    Recordings,
}

/// How a recording is cut into windows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct WindowSpec {
    /// Samples in a window.
    pub length: usize,
    /// Samples from the start of a window to the start of the next.
    pub stride: usize,
    /// Where windows are cut.
    pub within: Within,
}
