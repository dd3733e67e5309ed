//! The pages of a running stream, over HTTP/1.1.
//!
//! A client is waited for a few seconds, whatever it does, and there are few at a time; more are turned away. A page is
//! written into memory first, so that none of them holds the stream up.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use datafusion::common::runtime::SpawnedTask;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use super::Live;
use crate::error::{Error, Result};

/// Clients at a time.
const MOST_CLIENTS: usize = 16;
/// How long a client may take to send its request.
const REQUEST: Duration = Duration::from_secs(5);
/// How long it may take in all.
const CLIENT: Duration = Duration::from_secs(15);
/// The most bytes of a request's head.
const MOST_HEAD: usize = 16 << 10;
/// What OpenMetrics text is called.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Serves the pages of a stream for as long as it lives.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    _task: SpawnedTask<()>,
}

impl Server {
    /// Serves `live` at `address`, such as `127.0.0.1:9464`. Port 0 takes a free one.
    ///
    /// # Errors
    /// Kind `Config` if that is no address, or its port is in use.
    pub async fn begin(address: &str, live: Arc<Live>) -> Result<Self> {
        let cannot = |e: std::io::Error| {
            Error::config(format!(
                "cannot serve /metrics at {address:?}; expected a free port of this machine, such as 127.0.0.1:9464"
            ))
            .with_source(e)
        };
        let listener = TcpListener::bind(address).await.map_err(cannot)?;
        let address = listener.local_addr().map_err(cannot)?;
        Ok(Self { address, _task: SpawnedTask::spawn(serve(listener, live)) })
    }

    /// Where it serves.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

async fn serve(listener: TcpListener, live: Arc<Live>) {
    let clients = Arc::new(Semaphore::new(MOST_CLIENTS));
    // Dropped with this task, all at once.
    let mut tasks = tokio::task::JoinSet::new();
    loop {
        while tasks.try_join_next().is_some() {}
        let client = match listener.accept().await {
            Ok((client, _)) => client,
            // No file descriptors are left, say.
            Err(e) => {
                tracing::warn!("/metrics: {e}");
                tokio::time::sleep(Duration::from_millis(200)).await;
                continue;
            }
        };
        let Ok(one) = Arc::clone(&clients).try_acquire_owned() else { continue };
        let live = Arc::clone(&live);
        tasks.spawn(async move {
            // Whatever became of it, the stream goes on.
            let _ = tokio::time::timeout(CLIENT, answer(client, &live)).await;
            drop(one);
        });
    }
}

async fn answer(client: TcpStream, live: &Live) -> hyper::Result<()> {
    let pages = service_fn(|request: Request<Incoming>| async move { Ok::<_, Infallible>(page(&request, live)) });
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(REQUEST)
        .max_buf_size(MOST_HEAD)
        .keep_alive(false)
        .serve_connection(TokioIo::new(client), pages)
        .await
}

fn page(request: &Request<Incoming>, live: &Live) -> Response<Full<Bytes>> {
    const PLAIN: &str = "text/plain; charset=utf-8";
    let text = |status, kind: &'static str, text: String| {
        let mut response = Response::new(Full::new(Bytes::from(text)));
        *response.status_mut() = status;
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response
    };
    let reads = matches!(*request.method(), Method::GET | Method::HEAD);
    match (request.uri().path(), reads) {
        ("/metrics", true) => text(StatusCode::OK, OPEN_METRICS, live.page()),
        ("/health", true) => {
            let health = live.health();
            let status = if health.is_well() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
            let json = serde_json::to_string_pretty(&health).unwrap_or_default();
            text(status, "application/json", json + "\n")
        }
        ("/metrics" | "/health", false) => {
            let mut response = text(StatusCode::METHOD_NOT_ALLOWED, PLAIN, "expected GET or HEAD\n".into());
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            response
        }
        _ => text(StatusCode::NOT_FOUND, PLAIN, "there is /metrics and /health\n".into()),
    }
}
