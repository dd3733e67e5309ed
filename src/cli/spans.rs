//! Spans to an OpenTelemetry collector, over OTLP by HTTP.
//!
//! `OTEL_EXPORTER_OTLP_ENDPOINT` (or `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT`) says where the collector is; without it nothing is
//! sent. The other variables of OpenTelemetry's exporter and batches hold as well, `OTEL_SERVICE_NAME` among them.

use opentelemetry::trace::TracerProvider;
use opentelemetry_otlp::SpanExporter;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing::Subscriber;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::registry::LookupSpan;

use crate::error::{Error, Result};

/// Sends spans for as long as it lives; what is left is sent when it is dropped.
#[derive(Debug)]
pub struct Exporting(SdkTracerProvider);

impl Exporting {
    /// An exporter to the collector that the environment names; `None` if it names none.
    ///
    /// # Errors
    /// Kind `Config` for an endpoint that is no URL.
    pub fn begin() -> Result<Option<Self>> {
        let set = |name: &str| std::env::var(name).is_ok_and(|value| !value.trim().is_empty());
        if !["OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"].into_iter().any(set) {
            return Ok(None);
        }
        let cannot = |e| Error::config("OTEL_EXPORTER_OTLP_ENDPOINT: spans cannot be sent there").with_source(e);
        let exporter = SpanExporter::builder().with_http().build().map_err(|e| cannot(e.to_string()))?;
        let resource = Resource::builder();
        let resource = if set("OTEL_SERVICE_NAME") { resource } else { resource.with_service_name("dacpipe") };
        let provider = SdkTracerProvider::builder().with_resource(resource.build()).with_batch_exporter(exporter);
        Ok(Some(Self(provider.build())))
    }

    /// What gives it the spans of dacpipe.
    pub fn layer<S: Subscriber + for<'a> LookupSpan<'a>>(&self) -> impl Layer<S> + use<S> {
        let own = Targets::new().with_target(env!("CARGO_PKG_NAME"), LevelFilter::INFO);
        tracing_opentelemetry::layer().with_tracer(self.0.tracer("dacpipe")).with_filter(own)
    }
}

impl Drop for Exporting {
    fn drop(&mut self) {
        // A collector that is gone is no reason to fail.
        let _ = self.0.shutdown();
    }
}
