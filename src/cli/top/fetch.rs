//! Fetches the figures of a stream: one GET over HTTP.

use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::live::exposition::{self, Exposition};

/// How long a server may take, for each step.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long it may take in all.
const IN_ALL: Duration = Duration::from_secs(6);
/// The most bytes of a page.
const MOST_BYTES: u64 = 8 << 20;

/// Where figures are fetched from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    /// Host and port.
    host: String,
    path: String,
}

impl Place {
    /// Reads `127.0.0.1:9464`, or a URL such as `http://127.0.0.1:9464/metrics`.
    ///
    /// # Errors
    /// Kind `Config` for another text.
    pub fn parse(text: &str) -> Result<Self> {
        let wrong = |why: &str| {
            Error::config(format!(
                "{text:?} {why}; expected an address such as 127.0.0.1:9464, or http://127.0.0.1:9464/metrics"
            ))
        };
        if text.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return Err(wrong("has spaces"));
        }
        if text.starts_with("https://") {
            return Err(wrong("is of https, which a stream does not serve"));
        }
        let rest = text.strip_prefix("http://").unwrap_or(text);
        let (host, path) = match rest.find('/') {
            Some(at) => rest.split_at(at),
            None => (rest, ""),
        };
        let path = if matches!(path, "" | "/") { "/metrics" } else { path };
        let port = host.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
        match port {
            Some(_) => Ok(Self { host: host.to_owned(), path: path.to_owned() }),
            None => Err(wrong("has no port")),
        }
    }

    /// It as a URL, in short.
    pub fn shown(&self) -> String {
        match self.path.as_str() {
            "/metrics" => self.host.clone(),
            path => format!("{}{path}", self.host),
        }
    }
}

/// The figures, or why there are none.
pub(super) fn fetch(place: &Place) -> Result<Exposition, String> {
    let page = get(place).map_err(|e| match e.kind() {
        std::io::ErrorKind::ConnectionRefused => "nobody serves there".to_owned(),
        std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut => "it does not answer".to_owned(),
        _ => e.to_string(),
    })?;
    let (head, body) = page.split_once("\r\n\r\n").ok_or("it does not speak HTTP")?;
    let status = head.split(' ').nth(1).unwrap_or_default();
    if status != "200" {
        return Err(format!("it answers with status {status}"));
    }
    exposition::parse(body).map_err(|e| e.to_string())
}

fn get(place: &Place) -> std::io::Result<String> {
    let began = Instant::now();
    let mut last = std::io::Error::other("the host has no address");
    for address in place.host.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, PATIENCE) {
            Ok(mut server) => {
                server.set_read_timeout(Some(PATIENCE))?;
                server.set_write_timeout(Some(PATIENCE))?;
                let Place { host, path } = place;
                // Without a version that sends a body in chunks.
                let request =
                    format!("GET {path} HTTP/1.0\r\nHost: {host}\r\nAccept: application/openmetrics-text\r\n\r\n");
                server.write_all(request.as_bytes())?;
                let (mut page, mut part) = (Vec::new(), [0; 16 << 10]);
                loop {
                    match server.read(&mut part)? {
                        0 => break,
                        _ if began.elapsed() > IN_ALL => return Err(std::io::ErrorKind::TimedOut.into()),
                        n if (page.len() + n) as u64 > MOST_BYTES => {
                            return Err(std::io::Error::other("its page is too long"));
                        }
                        n => page.extend_from_slice(&part[..n]),
                    }
                }
                return String::from_utf8(page).map_err(|_| std::io::Error::other("its page is not UTF-8"));
            }
            Err(e) => last = e,
        }
    }
    Err(last)
}
