//! The connection to a broker, on a thread of its own: it is kept alive while rows are labelled and committed.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rumqttc::tokio_rustls::rustls::crypto::aws_lc_rs;
use rumqttc::tokio_rustls::rustls::pki_types::CertificateDer;
use rumqttc::tokio_rustls::rustls::pki_types::pem::PemObject;
use rumqttc::tokio_rustls::rustls::{ClientConfig, RootCertStore};
use rumqttc::{
    AsyncClient, ConnectReturnCode, ConnectionError, Event, EventLoop, MqttOptions, Outgoing, Packet, PingReq, Publish,
    QoS, Request, SubscribeReasonCode, TlsConfiguration, Transport,
};

use super::super::delivered::Delivered;
use super::address::Address;
use super::inbox::{Message, Shared};
use super::payload::lines;
use super::session::{Came, Handle};
use crate::error::{Error, Result};
use crate::terminal::shown_name;

/// How long is waited before the second try to connect; each further wait is twice as long.
const FIRST_WAIT: Duration = Duration::from_millis(100);
/// The longest wait between two tries.
const LONGEST_WAIT: Duration = Duration::from_secs(10);
/// A connection that ends sooner was perhaps taken over by another client.
const SHORT: Duration = Duration::from_secs(5);
/// After how long without traffic the broker is asked whether it is there.
const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// Requests that may wait to be sent: more than there are packet identifiers.
const REQUESTS: usize = 1 << 18;
/// The largest packet that MQTT knows. One that was refused here would be delivered again and again.
const LARGEST: usize = 268_435_455;
/// Where systems keep the certificates that they trust.
const CERTIFICATES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// How to connect.
pub(super) struct Connect {
    pub(super) address: Address,
    pub(super) client_id: String,
    pub(super) qos: QoS,
    /// A file of certificates to trust, instead of the system's.
    pub(super) trusted: Option<String>,
}

impl Connect {
    /// # Errors
    /// Kind `Config` if there are no certificates for an encrypted connection.
    pub(super) fn options(&self) -> Result<MqttOptions> {
        let Address { tls, host, port, login, .. } = &self.address;
        let mut options = MqttOptions::new(&self.client_id, host, *port);
        options.set_clean_session(false).set_manual_acks(true).set_keep_alive(KEEP_ALIVE);
        options.set_max_packet_size(LARGEST, LARGEST);
        if let Some((user, password)) = login {
            options.set_credentials(user, password);
        }
        if *tls {
            options.set_transport(Transport::tls_with_config(trusting(self.trusted.as_deref())?));
        }
        Ok(options)
    }
}

/// Trusts the certificates in the file `named`, or else the system's.
fn trusting(named: Option<&str>) -> Result<TlsConfiguration> {
    let set = std::env::var("SSL_CERT_FILE").ok();
    let usual = CERTIFICATES.into_iter().find(|path| Path::new(path).exists());
    let Some(path) = named.or(set.as_deref()).or(usual) else {
        return Err(Error::config("no certificates to trust; expected a PEM file of them: certificates in [stream]"));
    };
    let wrong = |e: String| Error::config(format!("{}: {e}; expected a PEM file of certificates", shown_name(path)));
    let mut roots = RootCertStore::empty();
    let found = CertificateDer::pem_file_iter(path).map_err(|e| wrong(e.to_string()))?;
    let (added, _) = roots.add_parsable_certificates(found.filter_map(std::result::Result::ok));
    if added == 0 {
        return Err(wrong("no certificates in it".into()));
    }
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|e| Error::internal("TLS").with_source(e))?;
    Ok(TlsConfiguration::Rustls(Arc::new(config.with_root_certificates(roots).with_no_client_auth())))
}

/// Connects, and connects again whenever the connection ends, until `shared` is closed.
///
/// # Errors
/// Kind `Config` as of the options; `Io` if the system gives no thread.
pub(super) fn start(connect: Connect, shared: Arc<Shared>) -> Result<()> {
    let (client, events) = AsyncClient::new(connect.options()?, REQUESTS);
    shared.lock().client = Some(client.clone());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|e| Error::io("cannot start the connection to a broker").with_source(e))?;
    let thread = std::thread::Builder::new().name("mqtt".into());
    let link = Link {
        broker: connect.address.broker(),
        connect,
        shared,
        client,
        events,
        subscribed: false,
        acks: Acks::default(),
        wait: FIRST_WAIT,
        since: None,
        told: false,
    };
    let run = move || {
        // Also if it panics.
        let _ended = Ended(Arc::clone(&link.shared));
        runtime.block_on(link.run());
    };
    thread.spawn(run).map_err(|e| Error::io("cannot start a thread").with_source(e))?;
    Ok(())
}

struct Ended(Arc<Shared>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.lock().ended = true;
        self.0.came.notify_all();
    }
}

/// Acknowledgements under way: the answer to a ping says that the broker has those that were sent before it.
#[derive(Default)]
struct Acks {
    /// Sent since the last ping.
    sent: Vec<Handle>,
    /// Sent before each ping that was not answered yet.
    asked: VecDeque<Vec<Handle>>,
    /// Whether a ping waits to be sent.
    waits: bool,
}

struct Link {
    connect: Connect,
    broker: String,
    shared: Arc<Shared>,
    client: AsyncClient,
    events: EventLoop,
    /// Whether the broker has confirmed the subscription, in this process.
    subscribed: bool,
    acks: Acks,
    /// The next wait before a try to connect.
    wait: Duration,
    /// When the connection was made.
    since: Option<Instant>,
    /// Whether it was said that there is no connection.
    told: bool,
}

impl Link {
    async fn run(mut self) {
        loop {
            self.shared.room().await;
            let going_on = match self.events.poll().await {
                Ok(event) => self.on(event),
                Err(e) => self.lost(e).await,
            };
            if let Err(e) = going_on {
                self.shared.lock().failed = Some(e);
                return;
            }
            let inbox = self.shared.lock();
            if inbox.closing && !inbox.connected {
                return;
            }
        }
    }

    fn on(&mut self, event: Event) -> Result<()> {
        match event {
            Event::Incoming(Packet::ConnAck(answer)) => self.connected(answer.session_present),
            Event::Incoming(Packet::SubAck(answer)) => self.subscribed(&answer.return_codes)?,
            Event::Incoming(Packet::Publish(publish)) => self.received(publish),
            Event::Outgoing(Outgoing::PubAck(packet)) => {
                self.acks.sent.extend(self.shared.lock().session.sent(packet));
                self.ask();
            }
            Event::Outgoing(Outgoing::PingReq) => {
                self.acks.asked.push_back(std::mem::take(&mut self.acks.sent));
                if std::mem::take(&mut self.acks.waits) {
                    // The one that keeps the connection alive may be sent before this one is answered.
                    self.events.state.await_pingresp = false;
                }
            }
            Event::Incoming(Packet::PingResp) => {
                if let Some(sent) = self.acks.asked.pop_front() {
                    let mut inbox = self.shared.lock();
                    inbox.session.confirmed(&sent);
                    inbox.moved = Instant::now();
                }
                self.ask();
            }
            Event::Incoming(_) | Event::Outgoing(_) => {}
        }
        Ok(())
    }

    /// Asks for a sign that the acknowledgements sent so far have come.
    fn ask(&mut self) {
        let under_way = self.acks.waits || !self.acks.asked.is_empty() || self.events.state.await_pingresp;
        if !self.acks.sent.is_empty() && !under_way {
            self.acks.waits = true;
            self.events.pending.push_back(Request::PingReq(PingReq));
        }
    }

    fn connected(&mut self, kept: bool) {
        self.acks = Acks::default();
        self.since = Some(Instant::now());
        let (forgotten, closing) = {
            let mut inbox = self.shared.lock();
            inbox.connected = true;
            inbox.subscribed = kept && self.subscribed;
            inbox.away = None;
            inbox.moved = Instant::now();
            (inbox.session.connected(kept), inbox.closing)
        };
        if closing {
            let _ = self.client.try_disconnect();
            return;
        }
        if std::mem::take(&mut self.told) {
            tracing::warn!("{}: connected again", self.broker);
        }
        if forgotten {
            tracing::warn!(
                "{}: the broker does not know the session of client {:?} any more: messages that it had for it are lost, \
                 if there were any",
                self.broker,
                self.connect.client_id
            );
        }
        if !(kept && self.subscribed) {
            let _ = self.client.try_subscribe(&self.connect.address.filter, self.connect.qos);
        }
    }

    fn subscribed(&mut self, codes: &[SubscribeReasonCode]) -> Result<()> {
        let (broker, filter) = (&self.broker, shown_name(&self.connect.address.filter));
        match codes.first() {
            None | Some(SubscribeReasonCode::Failure) => {
                return Err(Error::io(format!(
                    "{broker} refuses the subscription to {filter:?}; is it allowed for the user?"
                )));
            }
            Some(SubscribeReasonCode::Success(QoS::AtMostOnce)) if self.connect.qos != QoS::AtMostOnce => {
                tracing::warn!("{broker} grants {filter:?} with QoS 0 alone: messages may be lost");
            }
            Some(SubscribeReasonCode::Success(_)) => {}
        }
        self.subscribed = true;
        let mut inbox = self.shared.lock();
        inbox.subscribed = true;
        inbox.moved = Instant::now();
        Ok(())
    }

    fn received(&self, publish: Publish) {
        let identity = Delivered::new(publish.pkid, &publish.topic, &publish.payload);
        let acknowledged = publish.qos != QoS::AtMostOnce;
        let mut inbox = self.shared.lock();
        inbox.moved = Instant::now();
        // The broker sends what it retained with every subscription: these are values of before, perhaps taken before.
        if publish.retain {
            if !std::mem::replace(&mut inbox.retained, true) {
                tracing::warn!("{}: retained messages are left out: they are sent again and again", self.broker);
            }
            let _ = self.client.try_ack(&publish);
            return;
        }
        let handle = match acknowledged.then(|| inbox.session.came(identity, publish.dup)) {
            Some(Came::Again) => return,
            Some(Came::Committed) => {
                tracing::debug!("a message of {:?} came again; it was committed before", publish.topic);
                let _ = self.client.try_ack(&publish);
                return;
            }
            Some(Came::New(handle)) => Some(handle),
            None => None,
        };
        let lines = lines(&publish.payload).max(1);
        inbox.push(Message { handle, topic: publish.topic.into(), bytes: publish.payload, lines });
    }

    /// The connection ended, or could not be made: waits for a while.
    async fn lost(&mut self, e: ConnectionError) -> Result<()> {
        {
            let mut inbox = self.shared.lock();
            (inbox.connected, inbox.subscribed) = (false, false);
            inbox.away.get_or_insert_with(|| (Instant::now(), e.to_string()));
            if inbox.closing {
                return Ok(());
            }
        }
        // What waits to be sent belongs to the session as it was: acknowledgements are due once messages come again.
        self.events.clean();
        self.events.pending.clear();
        self.acks = Acks::default();
        let up = self.since.take().map(|since| since.elapsed());
        if let ConnectionError::ConnectionRefused(code) = &e
            && *code != ConnectReturnCode::ServiceUnavailable
        {
            return Err(Error::io(format!("{} refuses the connection: {code:?}", self.broker)));
        }
        if let (ConnectionError::Tls(_), None, false) = (&e, up, self.subscribed) {
            return Err(Error::io(format!("{}: no encrypted connection", self.broker)).with_source(e));
        }
        if !std::mem::replace(&mut self.told, true) {
            let hint = match up {
                Some(up) if up < SHORT => format!(" (is there another client {:?}?)", self.connect.client_id),
                _ => String::new(),
            };
            tracing::warn!("{}: no connection: {e}{hint}; trying until there is one", self.broker);
        }
        if up.is_some_and(|up| up > LONGEST_WAIT) {
            self.wait = FIRST_WAIT;
        }
        self.shared.wait_or_close(self.wait).await;
        self.wait = (2 * self.wait).min(LONGEST_WAIT);
        Ok(())
    }
}
