//! The error type of the crate: a kind, a message, and the cause.
//!
//! A message names the file, line, column or row, the value, and what would have been accepted. The [`Kind`] says what
//! has to be fixed (the pipeline file, the data, the disk, …) and decides the exit code of the command.

use std::borrow::Cow;
use std::fmt;

use crate::secret::redacted;

/// The crate's result type.
pub type Result<T, E = Error> = std::result::Result<T, E>;

type Source = Box<dyn std::error::Error + Send + Sync + 'static>;

/// What has to be fixed; it decides the exit code of the command.
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The pipeline file or a flag asks for something impossible (exit code 3).
    Config,
    /// The data is missing, malformed or does not fit the pipeline (exit code 4).
    Input,
    /// A saved model is missing, damaged or made for other data (exit code 5).
    Model,
    /// A labelled table is damaged, or another process is writing it (exit code 6).
    Table,
    /// The disk, the network or an object store failed (exit code 7).
    Io,
    /// The computation failed: a loss that is not finite, too little memory (exit code 8).
    Compute,
    /// A defect of dacpipe itself (exit code 70).
    Internal,
    /// The run was interrupted; `dacpipe run --resume` goes on from the last checkpoint (exit code 130).
    Cancelled,
}

impl Kind {
    /// The exit code of the command for an error of this kind. Zero is success and 2 a usage error.
    ///
    /// ```
    /// assert_eq!(dacpipe::Kind::Config.exit_code(), 3);
    /// assert_eq!(dacpipe::Kind::Cancelled.exit_code(), 130);
    /// ```
    pub fn exit_code(self) -> u8 {
        match self {
            Kind::Config => 3,
            Kind::Input => 4,
            Kind::Model => 5,
            Kind::Table => 6,
            Kind::Io => 7,
            Kind::Compute => 8,
            Kind::Internal => 70,
            Kind::Cancelled => 130,
        }
    }
}

/// An error with its [`Kind`], a message, and its cause. Secrets are redacted in all of it. Its debug form is readable
/// too, since that is what a program prints whose `main` returns it.
pub struct Error {
    kind: Kind,
    message: String,
    source: Option<Source>,
}

macro_rules! constructors {
    ($($(#[$doc:meta])* $name:ident => $kind:ident,)*) => {$(
        $(#[$doc])*
        pub fn $name(message: impl Into<String>) -> Self {
            Self { kind: Kind::$kind, message: redacted(&message.into()).into_owned(), source: None }
        }
    )*};
}

impl Error {
    constructors! {
        /// An error of the pipeline file or of a flag.
        config => Config,
        /// An error of the input data.
        input => Input,
        /// An error of a saved model.
        model => Model,
        /// An error of a labelled table.
        table => Table,
        /// An error of the disk, the network or an object store.
        io => Io,
        /// An error of the computation.
        compute => Compute,
        /// A defect of dacpipe itself.
        internal => Internal,
        /// The run was interrupted.
        cancelled => Cancelled,
    }

    /// The same error with its cause; [`Display`](fmt::Display) shows both.
    pub fn with_source(mut self, source: impl Into<Source>) -> Self {
        let source = source.into();
        let text = source.to_string();
        let said = without_store(&text);
        self.source = Some(match shows_secrets(source.as_ref()) || said != text {
            true => redacted(&said).into_owned().into(),
            false => source,
        });
        self
    }

    /// The same error, prefixed with what was being done (`"stage kmeans"`, `"reading a.csv"`).
    pub fn while_doing(mut self, what: impl fmt::Display) -> Self {
        self.message = redacted(&format!("{what}: {}", self.message)).into_owned();
        self
    }

    /// The kind of the error.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The message without the cause.
    pub fn message(&self) -> &str {
        &self.message
    }
}

/// Whether the message of an error or of one of its causes contains a secret.
fn shows_secrets(e: &(dyn std::error::Error + 'static)) -> bool {
    let text = e.to_string();
    redacted(&text) != text.as_str() || e.source().is_some_and(shows_secrets)
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match &self.source {
            Some(source) => write!(f, ": {source}"),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {self}", self.kind)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|e| e as _)
    }
}

/// The message of an object store's error, without a prefix such as `Generic LocalFileSystem error: `.
fn without_store(text: &str) -> Cow<'_, str> {
    let Some((before, rest)) = text.split_once("Generic ") else { return text.into() };
    match rest.split_once(" error: ") {
        Some((name, said)) if name.bytes().all(|b| b.is_ascii_alphanumeric()) => {
            format!("{before}{}", without_store(said)).into()
        }
        _ => format!("{before}Generic {}", without_store(rest)).into(),
    }
}

impl From<std::io::Error> for Error {
    fn from(e: std::io::Error) -> Self {
        Error::io(without_store(&e.to_string()))
    }
}

impl From<dacpipe_kernel::Error> for Error {
    fn from(e: dacpipe_kernel::Error) -> Self {
        use dacpipe_kernel::Error as K;
        match e {
            K::NotFinite { .. } => Error::input(e.to_string()),
            K::Overflow => Error::internal(e.to_string()),
            K::Other(inner) => from_boxed(inner),
        }
    }
}

/// For whoever reads or visits rows on a kernel's behalf.
impl From<Error> for dacpipe_kernel::Error {
    fn from(e: Error) -> Self {
        dacpipe_kernel::Error::Other(Box::new(e))
    }
}

impl From<arrow::error::ArrowError> for Error {
    fn from(e: arrow::error::ArrowError) -> Self {
        use arrow::error::ArrowError;
        match e {
            ArrowError::ExternalError(inner) => from_boxed(inner),
            ArrowError::IoError(message, _) => Error::io(without_store(&message)),
            ArrowError::CastError(message)
            | ArrowError::ComputeError(message)
            | ArrowError::CsvError(message)
            | ArrowError::InvalidArgumentError(message)
            | ArrowError::JsonError(message)
            | ArrowError::NotYetImplemented(message)
            | ArrowError::ParseError(message)
            | ArrowError::SchemaError(message) => Error::input(message),
            ArrowError::ParquetError(message) => Error::input(parquet_message(&message)),
            other => Error::input(other.to_string()),
        }
    }
}

/// The message of a Parquet error, without the name of its variant.
fn parquet_message(message: &str) -> &str {
    const VARIANTS: [&str; 5] = ["External: ", "Parquet error: ", "Arrow: ", "EOF: ", "NYI: "];
    VARIANTS.iter().find_map(|variant| message.strip_prefix(variant)).unwrap_or(message)
}

impl From<parquet::errors::ParquetError> for Error {
    fn from(e: parquet::errors::ParquetError) -> Self {
        use parquet::errors::ParquetError;
        match e {
            ParquetError::External(inner) => from_boxed(inner),
            ParquetError::General(message) | ParquetError::ArrowError(message) => Error::input(message),
            other => Error::input(parquet_message(&other.to_string())),
        }
    }
}

impl From<object_store::Error> for Error {
    fn from(e: object_store::Error) -> Self {
        match &e {
            // A file that refers to bytes after its own end is damaged; this is not an I/O error.
            object_store::Error::Generic { source, .. } if source.to_string().starts_with("Out of range") => {
                Error::input(format!("damaged or cut off: {source}"))
            }
            _ => Error::io(without_store(&e.to_string())),
        }
    }
}

impl From<datafusion::error::DataFusionError> for Error {
    fn from(e: datafusion::error::DataFusionError) -> Self {
        use datafusion::error::DataFusionError as D;
        match e {
            D::External(inner) => from_boxed(inner),
            D::SchemaError(inner, _) => Error::input(inner.to_string()),
            D::Configuration(message) => Error::input(message),
            D::ArrowError(inner, _) => (*inner).into(),
            D::ParquetError(inner) => (*inner).into(),
            D::ObjectStore(inner) => (*inner).into(),
            D::IoError(inner) => inner.into(),
            // The name of the optimizer rule does not help the author of the query.
            D::Context(what, inner) if what.starts_with("Optimizer rule") => Error::from(*inner),
            D::Context(what, inner) => Error::from(*inner).while_doing(what),
            D::Diagnostic(_, inner) => Error::from(*inner),
            D::Collection(mut all) if !all.is_empty() => Error::from(all.swap_remove(0)),
            D::Shared(shared) => match std::sync::Arc::try_unwrap(shared) {
                Ok(inner) => Error::from(inner),
                Err(shared) => from_shared(&shared),
            },
            D::SQL(inner, _) => Error::input(parser_message(*inner)),
            D::Plan(message) | D::Execution(message) => Error::input(without_backtrace(&message)),
            D::NotImplemented(message) => Error::input(format!("not supported: {}", without_backtrace(&message))),
            D::ResourcesExhausted(message) => Error::compute(message),
            D::Internal(message) => Error::internal(message),
            other => Error::input(other.strip_backtrace()),
        }
    }
}

impl From<Error> for datafusion::error::DataFusionError {
    fn from(e: Error) -> Self {
        datafusion::error::DataFusionError::External(Box::new(e))
    }
}

/// The message of the parser, without the name of its type.
fn parser_message(e: datafusion::sql::sqlparser::parser::ParserError) -> String {
    use datafusion::sql::sqlparser::parser::ParserError as P;
    match e {
        P::ParserError(message) | P::TokenizerError(message) => message,
        P::RecursionLimitExceeded => "the statement is nested too deeply: too many levels of parentheses".into(),
    }
}

fn without_backtrace(message: &str) -> &str {
    message.split(datafusion::error::DataFusionError::BACK_TRACE_SEP).next().unwrap_or(message)
}

/// A copy of an error that several receivers share, as text; our own errors keep their kind.
fn from_shared(e: &datafusion::error::DataFusionError) -> Error {
    use datafusion::error::DataFusionError as D;
    match e {
        D::Shared(inner) => from_shared(inner),
        D::Context(_, inner) | D::Diagnostic(_, inner) => from_shared(inner),
        D::External(inner) => match inner.downcast_ref::<Error>() {
            Some(ours) => Error { kind: ours.kind, message: ours.to_string(), source: None },
            None => Error::input(without_store(&inner.to_string())),
        },
        D::ResourcesExhausted(message) => Error::compute(message.clone()),
        D::Internal(message) => Error::internal(message.clone()),
        other => Error::input(without_store(&other.strip_backtrace())),
    }
}

/// Our own error that was wrapped by DataFusion or Arrow is unwrapped.
fn from_boxed(e: Source) -> Error {
    match e.downcast::<Error>() {
        Ok(ours) => *ours,
        Err(e) => match e.downcast::<datafusion::error::DataFusionError>() {
            Ok(inner) => Error::from(*inner),
            Err(e) => match e.downcast::<object_store::Error>() {
                Ok(inner) => Error::from(*inner),
                Err(e) => Error::input(without_store(&e.to_string())),
            },
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::error::DataFusionError;

    #[test]
    fn a_parquet_error_does_not_name_its_variant() {
        use parquet::errors::ParquetError;
        let snappy = || ParquetError::External("snappy: corrupt input".into());
        assert_eq!(Error::from(snappy()).to_string(), "snappy: corrupt input");
        assert_eq!(Error::from(arrow::error::ArrowError::from(snappy())).to_string(), "snappy: corrupt input");
        assert_eq!(Error::from(ParquetError::EOF("too short".into())).to_string(), "too short");
    }

    #[test]
    fn our_error_survives_the_way_through_datafusion() {
        let ours = Error::model("made for 561 features, got 560");
        let theirs = DataFusionError::from(ours).context("scan");
        let back = Error::from(theirs);
        assert_eq!(back.kind(), Kind::Model);
        assert_eq!(back.to_string(), "scan: made for 561 features, got 560");
    }

    #[test]
    fn our_error_survives_the_way_through_a_kernel() {
        let back = Error::from(dacpipe_kernel::Error::from(Error::io("no room").while_doing("reading a")));
        assert_eq!((back.kind(), back.to_string()), (Kind::Io, "reading a: no room".into()));
    }

    #[test]
    fn messages_of_datafusion_have_no_debug_forms_and_no_names_of_layers() {
        use datafusion::prelude::SessionContext;
        let ask = |sql: &'static str| {
            let run = async move { SessionContext::new().sql(sql).await?.collect().await.map(drop) };
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            Error::from(runtime.block_on(run).unwrap_err()).to_string()
        };
        for sql in ["SELECT (1", "SELECT 'x", "SELECT nope", "SELECT 1 + 'a'", "SELECT f(1)", "SELECT CAST('a' AS INT)"]
        {
            let said = ask(sql);
            for debris in
                ["ParserError", "TokenizerError", "SQL error", "Error during planning", "Schema error", "Arrow error"]
            {
                assert!(!said.contains(debris), "{sql}: {said}");
            }
        }
    }

    #[test]
    fn no_message_names_the_type_of_a_store() {
        let store =
            || object_store::Error::Generic { store: "LocalFileSystem", source: "no room (os error 28)".into() };
        let boxed = || DataFusionError::External(Box::new(store()));
        let parquet = parquet::errors::ParquetError::External(Box::new(store()));
        for e in [
            Error::from(store()),
            Error::from(std::io::Error::other(store())),
            Error::from(boxed()),
            Error::from(DataFusionError::ObjectStore(Box::new(store()))),
            Error::from(DataFusionError::Shared(std::sync::Arc::new(boxed()))),
            Error::from(parquet),
        ] {
            assert_eq!(e.to_string(), "no room (os error 28)");
        }
        assert_eq!(Error::io("writing a").with_source(store()).to_string(), "writing a: no room (os error 28)");
        assert_eq!(without_store("a Generic drug, Generic S3 error: x"), "a Generic drug, x");
    }

    #[test]
    fn secrets_are_in_no_part_of_an_error() {
        let inner = std::io::Error::other("GET https://joe:pa55w0rd@host/x failed");
        let e = Error::io("reading https://host/x?sig=hush-hush").with_source(inner).while_doing("https://t0ken@host/");
        let source = std::error::Error::source(&e).unwrap().to_string();
        for text in [e.to_string(), format!("{e:?}"), source] {
            assert!(!["pa55w0rd", "hush-hush", "t0ken"].iter().any(|secret| text.contains(secret)), "{text}");
        }
    }

    #[test]
    fn exit_codes_differ() {
        let kinds = [
            Kind::Config,
            Kind::Input,
            Kind::Model,
            Kind::Table,
            Kind::Io,
            Kind::Compute,
            Kind::Internal,
            Kind::Cancelled,
        ];
        let codes: std::collections::BTreeSet<u8> = kinds.iter().map(|k| k.exit_code()).collect();
        assert_eq!(codes.len(), kinds.len());
        assert!(!codes.contains(&0) && !codes.contains(&1) && !codes.contains(&2));
    }
}
