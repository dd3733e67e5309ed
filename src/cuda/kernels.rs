//! The kernels by name, and the texts that they are in.

/// What stands before every text.
#[cfg(feature = "cuda")]
const COMMON: &str = include_str!("kernels/common.cu");

/// A text of kernels that are compiled together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Family {
    Dense,
    Rows,
    Loss,
    Adam,
    Nearest,
    Student,
}

impl Family {
    /// All of them.
    #[cfg(test)]
    pub const ALL: [Family; 6] =
        [Family::Dense, Family::Rows, Family::Loss, Family::Adam, Family::Nearest, Family::Student];

    /// Its name, for messages and files.
    pub fn name(self) -> &'static str {
        match self {
            Family::Dense => "dense",
            Family::Rows => "rows",
            Family::Loss => "loss",
            Family::Adam => "adam",
            Family::Nearest => "nearest",
            Family::Student => "student",
        }
    }

    /// Its text, without what it shares with the others.
    pub fn own_text(self) -> &'static str {
        match self {
            Family::Dense => include_str!("kernels/dense.cu"),
            Family::Rows => include_str!("kernels/rows.cu"),
            Family::Loss => include_str!("kernels/loss.cu"),
            Family::Adam => include_str!("kernels/adam.cu"),
            Family::Nearest => include_str!("kernels/nearest.cu"),
            Family::Student => include_str!("kernels/student.cu"),
        }
    }

    /// All that is compiled.
    #[cfg(feature = "cuda")]
    pub fn text(self) -> String {
        format!("{COMMON}\n{}", self.own_text())
    }
}

/// A kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Kernel {
    /// Where it is.
    pub family: Family,
    /// Its name there.
    pub name: &'static str,
}

macro_rules! kernels {
    ($($constant:ident = $family:ident $name:literal;)*) => {
        impl Kernel {
            $(pub const $constant: Kernel = Kernel { family: Family::$family, name: $name };)*

            /// All of them.
            #[cfg(test)]
            pub const ALL: &[Kernel] = &[$(Kernel::$constant,)*];
        }
    };
}

kernels! {
    BIAS_ACTIVATION = Dense "bias_activation";
    ACTIVATION_GRADIENT = Dense "activation_gradient";
    SUM_PARTS = Dense "sum_parts";
    GATHER_ROWS = Rows "gather_rows";
    WEIGHTED_ERROR = Loss "weighted_error";
    PLACED_ERROR = Loss "placed_error";
    ADD_TO = Loss "add_to";
    SUM_OF_SQUARES = Loss "sum_of_squares";
    BEGIN_STEP = Adam "begin_step";
    ADAM = Adam "adam";
    ADAM_TOLD = Adam "adam_told";
    NEAREST = Nearest "nearest";
    CLUSTER_SUMS = Nearest "cluster_sums";
    SUM_WIDE_PARTS = Nearest "sum_wide_parts";
    STUDENT = Student "student";
    STUDENT_CENTROIDS = Student "student_centroids";
    SUM_LOSSES = Student "sum_losses";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kernel_is_in_its_text_and_every_text_s_kernels_are_known() {
        for family in Family::ALL {
            let text = family.own_text();
            let said: Vec<&str> = text
                .split("extern \"C\" __global__ void ")
                .skip(1)
                .map(|rest| rest.split('(').next().unwrap_or_default())
                .collect();
            let known: Vec<&str> = Kernel::ALL.iter().filter(|k| k.family == family).map(|k| k.name).collect();
            assert_eq!(said, known, "{}", family.name());
        }
    }
}
