//! A store that speaks enough of S3's protocol for a table and a source, and whose answers may be late, lost, cut short,
//! refused, or those of a request that was carried out twice.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt::Write;
use std::net::SocketAddr;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use datafusion::common::runtime::JoinSet;
use futures::stream::iter;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::header::{CONTENT_LENGTH, ETAG, HeaderValue, IF_NONE_MATCH, LAST_MODIFIED, RANGE};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

type Answer = Response<BoxBody<Bytes, std::io::Error>>;

/// Objects in one page of a listing: so few that listings have several.
const PAGE: usize = 7;

/// The store, as long as it is not dropped.
pub struct S3 {
    address: SocketAddr,
    store: Arc<Mutex<Store>>,
    faults: Arc<Mutex<Faults>>,
    _runtime: Runtime,
}

/// How often an answer goes wrong, and how often it did.
pub struct Faults {
    rng: StdRng,
    share: f64,
    /// Faults so far, by kind.
    pub seen: BTreeMap<Fault, usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    Refused,
    Lost,
    Short,
    Late,
    Twice,
}

#[derive(Default)]
struct Store {
    objects: BTreeMap<String, Object>,
    uploads: BTreeMap<String, BTreeMap<usize, Bytes>>,
    written: u64,
}

#[derive(Clone)]
struct Object {
    bytes: Bytes,
    etag: String,
}

impl S3 {
    /// A store without objects that answers at once.
    pub fn start(seed: u64) -> Self {
        let runtime = Runtime::new().unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let store = Arc::new(Mutex::new(Store::default()));
        let rng = StdRng::seed_from_u64(seed);
        let faults = Arc::new(Mutex::new(Faults { rng, share: 0.0, seen: BTreeMap::new() }));
        let (of_all, decides) = (Arc::clone(&store), Arc::clone(&faults));
        runtime.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let Ok((stream, _)) = listener.accept().await else { return };
                let (store, faults) = (Arc::clone(&of_all), Arc::clone(&decides));
                connections.spawn(async move {
                    let answer = |request| answer(request, Arc::clone(&store), Arc::clone(&faults));
                    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(answer)).await;
                });
            }
        });
        Self { address, store, faults, _runtime: runtime }
    }

    /// From now on, this share of the requests goes wrong.
    pub fn fail(&self, share: f64) {
        self.faults.lock().unwrap().share = share;
    }

    /// The faults so far.
    pub fn seen(&self) -> BTreeMap<Fault, usize> {
        self.faults.lock().unwrap().seen.clone()
    }

    /// Lets `command` use the store as `s3://bucket`.
    pub fn serve(&self, command: &mut Command) {
        let endpoint = format!("http://{}", self.address);
        command.envs([
            ("AWS_ENDPOINT", endpoint.as_str()),
            ("AWS_ALLOW_HTTP", "true"),
            ("AWS_ACCESS_KEY_ID", "key"),
            ("AWS_SECRET_ACCESS_KEY", "secret"),
            ("AWS_REGION", "us-east-1"),
        ]);
    }

    /// Puts an object, as another program would.
    pub fn put(&self, key: &str, text: &str) {
        self.store.lock().unwrap().put(key.to_owned(), text.to_owned().into());
    }

    /// The keys that begin with `prefix`.
    pub fn keys(&self, prefix: &str) -> Vec<String> {
        let store = self.store.lock().unwrap();
        store.objects.keys().filter(|key| key.starts_with(prefix)).cloned().collect()
    }
}

impl Faults {
    fn next(&mut self) -> Option<Fault> {
        if !self.rng.random_bool(self.share) {
            return None;
        }
        let all = [Fault::Refused, Fault::Lost, Fault::Short, Fault::Late, Fault::Twice];
        let fault = all[self.rng.random_range(0..all.len())];
        *self.seen.entry(fault).or_default() += 1;
        Some(fault)
    }
}

async fn answer(
    request: Request<Incoming>,
    store: Arc<Mutex<Store>>,
    faults: Arc<Mutex<Faults>>,
) -> Result<Answer, std::io::Error> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map_err(std::io::Error::other)?.to_bytes();
    let fault = faults.lock().unwrap().next();
    let answer = || store.lock().unwrap().answer(&head, body.clone());
    let whole = |(status, headers, bytes): Said| said(status, headers, Full::new(bytes).map_err(never).boxed());
    Ok(match fault {
        None => whole(answer()),
        Some(Fault::Refused) => whole((StatusCode::SERVICE_UNAVAILABLE, Vec::new(), Bytes::from("busy"))),
        Some(Fault::Lost) => {
            answer();
            return Err(std::io::Error::other("the answer is lost"));
        }
        Some(Fault::Late) => {
            tokio::time::sleep(Duration::from_millis(40)).await;
            whole(answer())
        }
        Some(Fault::Twice) => {
            answer();
            whole(answer())
        }
        Some(Fault::Short) => {
            let (status, mut headers, bytes) = answer();
            if bytes.is_empty() || head.method == Method::HEAD {
                return Err(std::io::Error::other("the answer is lost"));
            }
            headers.push((CONTENT_LENGTH, bytes.len().to_string()));
            let half = Ok(Frame::data(bytes.slice(..bytes.len() / 2)));
            let broken = Err(std::io::Error::other("the connection is gone"));
            let body = StreamBody::new(iter([half, broken]));
            said(status, headers, BodyExt::boxed(body))
        }
    })
}

fn never(never: Infallible) -> std::io::Error {
    match never {}
}

/// Status, headers and body of an answer.
type Said = (StatusCode, Vec<(hyper::header::HeaderName, String)>, Bytes);

fn said(
    status: StatusCode,
    headers: Vec<(hyper::header::HeaderName, String)>,
    body: BoxBody<Bytes, std::io::Error>,
) -> Answer {
    let mut answer = Response::new(body);
    *answer.status_mut() = status;
    for (name, value) in headers {
        answer.headers_mut().insert(name, HeaderValue::from_str(&value).unwrap());
    }
    answer
}

fn xml(text: String) -> Said {
    (StatusCode::OK, Vec::new(), format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>{text}").into())
}

fn error(status: StatusCode, code: &str) -> Said {
    let (_, headers, body) = xml(format!("<Error><Code>{code}</Code><Message>{code}</Message></Error>"));
    (status, headers, body)
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// What stands between the tags `name` in `text`.
fn values<'a>(text: &'a str, name: &str) -> Vec<&'a str> {
    let (open, close) = (format!("<{name}>"), format!("</{name}>"));
    text.split(&open).skip(1).filter_map(|rest| rest.split(&close).next()).collect()
}

impl Store {
    fn answer(&mut self, head: &hyper::http::request::Parts, body: Bytes) -> Said {
        let path = url::form_urlencoded::parse(format!("p={}", head.uri.path().replace('+', "%2B")).as_bytes())
            .next()
            .map(|(_, path)| path.into_owned())
            .unwrap_or_default();
        let key = path.trim_start_matches('/').split_once('/').map(|(_, key)| key.to_owned()).unwrap_or_default();
        let query: BTreeMap<String, String> =
            url::form_urlencoded::parse(head.uri.query().unwrap_or_default().as_bytes()).into_owned().collect();
        let (upload, part) = (query.get("uploadId"), query.get("partNumber").and_then(|part| part.parse().ok()));
        match (&head.method, upload) {
            (&Method::GET, _) if query.contains_key("list-type") => self.list(&query),
            (&Method::GET | &Method::HEAD, _) => self.get(&key, head),
            (&Method::PUT, Some(upload)) => {
                let (Some(parts), Some(part)) = (self.uploads.get_mut(upload), part) else {
                    return error(StatusCode::NOT_FOUND, "NoSuchUpload");
                };
                parts.insert(part, body);
                (StatusCode::OK, vec![(ETAG, format!("\"part-{part}\""))], Bytes::new())
            }
            (&Method::PUT, None) => {
                if head.headers.get(IF_NONE_MATCH).is_some_and(|value| value == "*") && self.objects.contains_key(&key)
                {
                    return error(StatusCode::PRECONDITION_FAILED, "PreconditionFailed");
                }
                let etag = self.put(key, body);
                (StatusCode::OK, vec![(ETAG, etag)], Bytes::new())
            }
            (&Method::POST, _) if query.contains_key("delete") => {
                let text = String::from_utf8_lossy(&body).into_owned();
                let mut gone = String::new();
                for key in values(&text, "Key") {
                    self.objects.remove(key);
                    let _ = write!(gone, "<Deleted><Key>{key}</Key></Deleted>");
                }
                xml(format!("<DeleteResult>{gone}</DeleteResult>"))
            }
            (&Method::POST, None) => {
                self.written += 1;
                let upload = format!("upload-{}", self.written);
                self.uploads.insert(upload.clone(), BTreeMap::new());
                xml(format!(
                    "<InitiateMultipartUploadResult><UploadId>{upload}</UploadId></InitiateMultipartUploadResult>"
                ))
            }
            (&Method::POST, Some(upload)) => {
                let Some(parts) = self.uploads.remove(upload) else {
                    return error(StatusCode::NOT_FOUND, "NoSuchUpload");
                };
                let etag = self.put(key, parts.into_values().flatten().collect());
                let etag = etag.replace('"', "&quot;");
                xml(format!("<CompleteMultipartUploadResult><ETag>{etag}</ETag></CompleteMultipartUploadResult>"))
            }
            (&Method::DELETE, upload) => {
                match upload {
                    Some(upload) => drop(self.uploads.remove(upload)),
                    None => drop(self.objects.remove(&key)),
                }
                (StatusCode::NO_CONTENT, Vec::new(), Bytes::new())
            }
            _ => error(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed"),
        }
    }

    fn put(&mut self, key: String, bytes: Bytes) -> String {
        self.written += 1;
        let etag = format!("\"{}\"", self.written);
        self.objects.insert(key, Object { bytes, etag: etag.clone() });
        etag
    }

    fn get(&self, key: &str, head: &hyper::http::request::Parts) -> Said {
        let Some(Object { bytes, etag }) = self.objects.get(key) else {
            return error(StatusCode::NOT_FOUND, "NoSuchKey");
        };
        let mut headers = vec![(ETAG, etag.clone()), (LAST_MODIFIED, "Wed, 01 Jan 2025 00:00:00 GMT".to_owned())];
        if head.method == Method::HEAD {
            headers.push((CONTENT_LENGTH, bytes.len().to_string()));
            return (StatusCode::OK, headers, Bytes::new());
        }
        let range = head.headers.get(RANGE).and_then(|range| range.to_str().ok()?.strip_prefix("bytes="));
        let Some((from, to)) = range.and_then(|range| range.split_once('-')) else {
            return (StatusCode::OK, headers, bytes.clone());
        };
        let size = bytes.len();
        let (from, to) = match (from.parse::<usize>(), to.parse::<usize>()) {
            (Ok(from), Ok(to)) => (from, (to + 1).min(size)),
            (Ok(from), Err(_)) => (from, size),
            (Err(_), Ok(last)) => (size.saturating_sub(last), size),
            (Err(_), Err(_)) => (0, size),
        };
        if from >= to {
            return error(StatusCode::RANGE_NOT_SATISFIABLE, "InvalidRange");
        }
        headers.push((hyper::header::CONTENT_RANGE, format!("bytes {from}-{}/{size}", to - 1)));
        (StatusCode::PARTIAL_CONTENT, headers, bytes.slice(from..to))
    }

    fn list(&self, query: &BTreeMap<String, String>) -> Said {
        let of = |name: &str| query.get(name).map(String::as_str).unwrap_or_default();
        let (prefix, delimiter) = (of("prefix"), of("delimiter"));
        let after = [of("start-after"), of("continuation-token")].into_iter().max().unwrap_or_default();
        // A key, or what is common to several keys: up to the delimiter behind the prefix.
        let entry = |key: &str| match key[prefix.len()..].find(delimiter).filter(|_| !delimiter.is_empty()) {
            Some(at) => key[..prefix.len() + at + delimiter.len()].to_owned(),
            None => key.to_owned(),
        };
        let below = self.objects.keys().filter(|key| key.starts_with(prefix));
        let mut entries: Vec<String> = below.map(|key| entry(key)).filter(|entry| entry.as_str() > after).collect();
        entries.dedup();
        let more = entries.len() > PAGE;
        entries.truncate(PAGE);
        let mut text = format!("<ListBucketResult><IsTruncated>{more}</IsTruncated>");
        for entry in &entries {
            let _ = match self.objects.get(entry) {
                Some(Object { bytes, etag }) => write!(
                    text,
                    "<Contents><Key>{}</Key><LastModified>2025-01-01T00:00:00.000Z</LastModified><ETag>{etag}</ETag>\
                     <Size>{}</Size></Contents>",
                    escaped(entry),
                    bytes.len()
                ),
                None => write!(text, "<CommonPrefixes><Prefix>{}</Prefix></CommonPrefixes>", escaped(entry)),
            };
        }
        if let Some(last) = entries.last().filter(|_| more) {
            let _ = write!(text, "<NextContinuationToken>{}</NextContinuationToken>", escaped(last));
        }
        xml(text + "</ListBucketResult>")
    }
}
