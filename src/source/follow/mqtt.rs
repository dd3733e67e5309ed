//! The messages of an MQTT broker as a source that is followed.
//!
//! # Each message once
//! The session at the broker is persistent: it keeps the messages of the subscription while nobody is connected, and
//! delivers each (at QoS 1) until it is acknowledged. A message is acknowledged after the commit that holds its rows. A
//! process that dies before the commit gets it again; one that dies between the commit and the broker's receipt of the
//! acknowledgement gets it again as well, and must not take it twice. So a commit also lists the messages that may come
//! again: those that it holds, and earlier ones of which it is not known that the broker has their acknowledgement. That
//! is known once the broker answers a ping that was sent after them, since it takes the packets of a connection in their
//! order; there is a ping after every commit, so the list has about as many messages as a commit. A message is one of the
//! list if the broker marks it as delivered again (the flag DUP, which the standard demands), and if its packet
//! identifier and the SHA-256 of its topic and payload are the same. It is then acknowledged, and not taken.
//!
//! If the connection breaks, messages that were received and not committed stay in memory; they are committed, and
//! acknowledged when the broker delivers them again.
//!
//! # What no client can know
//! - A broker that forgets: messages that it loses in a crash before it stored them, that it drops as its queue is full
//!   (mosquitto's `max_queued_messages` is 1000), or whose session it ends. That it does not know the session is said.
//! - A broker that goes back to an older state of its own: acknowledged messages may then come again, also as new ones.
//! - Two messages of equal topic and payload, the second under the packet identifier of the first: if a process dies
//!   after it has received the second and before its commit, and the commit before did not yet know that the broker has
//!   the acknowledgement of the first, the second is taken for the first. Payloads with a time are never equal.
//! - Messages published or subscribed to at QoS 0 are delivered at most once.
//! - A retained message is sent anew with every subscription; it is left out.
//!
//! # How fast
//! The broker sends only so many messages before it has acknowledgements (mosquitto's `max_inflight_messages` is 20). If the
//! flow stops at the same number twice, the next portion ends as soon as so many have come.

pub(super) mod address;
mod inbox;
mod link;
mod payload;
mod publisher;
mod session;

use std::sync::Arc;
use std::time::{Duration, Instant};

use rumqttc::QoS;

use super::broker::Client;
use super::delivered::Delivered;
use crate::error::{Error, Result};
use crate::source::bad::Rejects;
use crate::source::csv::CsvSpec;
use crate::source::location::DataFile;
use crate::terminal::shown_name;
use address::Address;
use inbox::{MOST_BYTES, Message, Shared};
use link::Connect;
use payload::Payload;
pub(crate) use publisher::Publisher;
use session::Session;

/// After how long without a message the flow has stopped, where the broker's limit is known; and how often is looked.
const QUIET: Duration = Duration::from_millis(50);
/// How long a stream that is to end waits for a connection.
const MOST_AWAY: Duration = Duration::from_secs(10);
/// How long the end waits for the last acknowledgements to be sent.
const GOODBYE: Duration = Duration::from_secs(3);

/// The messages of a subscription.
pub(super) struct Mqtt {
    shared: Arc<Shared>,
    address: Address,
    /// Lines of the messages that were taken.
    passed: u64,
    flow: Flow,
}

/// The broker's limit of messages without an acknowledgement, as far as it shows.
#[derive(Debug, Default)]
struct Flow {
    /// How many there were when the flow stopped last.
    stopped: usize,
    /// The limit.
    most: Option<usize>,
}

impl Flow {
    /// The flow stopped with `open` messages.
    fn stopped_at(&mut self, open: usize) {
        self.most = Some(open).filter(|&open| open > 0 && (open == self.stopped || self.most == Some(open)));
        self.stopped = open;
    }

    /// Whether no more can come before some are acknowledged.
    fn is_full(&self, open: usize) -> bool {
        self.most == Some(open)
    }
}

/// What was taken.
pub(super) struct Batch {
    /// The texts of the messages that can be read, and how many lines they have.
    pub(super) data: Vec<DataFile>,
    pub(super) lines: u64,
    /// Whether more messages wait.
    pub(super) more: bool,
}

impl std::fmt::Debug for Mqtt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mqtt").field("broker", &self.address.broker()).finish_non_exhaustive()
    }
}

impl Mqtt {
    /// Connects, in the background, to the broker of `path`. The messages `delivered` were committed and may come again.
    ///
    /// # Errors
    /// Kind `Config` for an address that is none, or without certificates; `Io` if the system gives no thread.
    pub(super) fn start(path: &str, client: &Client, delivered: &[Delivered]) -> Result<Self> {
        let address = Address::parse(path).map_err(|wrong| Error::config(format!("{}: {wrong}", shown_name(path))))?;
        let shared = Arc::new(Shared::new(Session::after(delivered)));
        let connect = Connect {
            address: address.clone(),
            client_id: client.id.clone(),
            qos: if client.qos == 0 { QoS::AtMostOnce } else { QoS::AtLeastOnce },
            trusted: client.certificates.clone(),
        };
        link::start(connect, Arc::clone(&shared))?;
        Ok(Self { shared, address, passed: 0, flow: Flow::default() })
    }

    /// The messages that come within `wait`, of at most `most` lines; sooner if there are as many, or if no more can come.
    /// With `settle`, it is an error to have no connection for long. `None` if there are none. Blocks.
    ///
    /// # Errors
    /// Kind `Io` if the broker refuses the client; `Input` where bad rows are errors.
    pub(super) fn take(
        &mut self,
        csv: &CsvSpec,
        wait: Duration,
        most: u64,
        settle: Option<Duration>,
        rejects: &Rejects,
    ) -> Result<Option<Batch>> {
        let until = Instant::now() + wait;
        let mut inbox = self.shared.lock();
        loop {
            if let Some(e) = inbox.failed.take() {
                return Err(e);
            }
            if inbox.ended && inbox.is_empty() {
                return Err(Error::io(format!("the connection to {} has ended", self.address.broker())));
            }
            if inbox.lines >= most || inbox.bytes >= MOST_BYTES {
                break;
            }
            let now = Instant::now();
            let left = until.saturating_duration_since(now);
            let still = now.saturating_duration_since(inbox.moved);
            let open = inbox.session.open();
            if left.is_zero() {
                if still >= QUIET {
                    self.flow.stopped_at(open);
                }
                break;
            }
            if !inbox.is_empty() && still >= QUIET && self.flow.is_full(open) {
                break;
            }
            match (settle, &inbox.away) {
                (Some(_), Some((since, why))) if since.elapsed() >= MOST_AWAY => {
                    return Err(Error::io(format!(
                        "{}: no connection within {MOST_AWAY:?}: {why}",
                        self.address.broker()
                    )));
                }
                (Some(settle), None) if inbox.subscribed && still >= settle => break,
                _ => {}
            }
            let waited = self.shared.came.wait_timeout(inbox, left.min(QUIET));
            inbox = waited.unwrap_or_else(std::sync::PoisonError::into_inner).0;
        }
        let taken = inbox.take(most);
        let more = !inbox.is_empty();
        drop(inbox);
        self.shared.wake();
        if taken.is_empty() {
            return Ok(None);
        }
        let mut payloads = Vec::with_capacity(taken.len());
        for Message { topic, bytes, lines, .. } in taken {
            if self.address.takes(&topic) {
                payloads.push(Payload { topic, bytes });
                continue;
            }
            let reason = format!(
                "a message of this topic, expected {:?}: the session has another subscription, too; another client_id in \
                 [stream] gives one of its own",
                shown_name(&self.address.filter)
            );
            rejects.reject_rows(&shown_name(&*topic), self.passed + 1, Some(lines), reason)?;
            self.passed += lines;
        }
        let (data, lines) = payload::texts(&payloads, csv, &mut self.passed, rejects)?;
        Ok(Some(Batch { data, lines, more }))
    }

    /// Whether the broker has nothing more that could come, as nothing came for `settle`.
    pub(super) fn is_over(&self, settle: Duration) -> bool {
        let inbox = self.shared.lock();
        inbox.subscribed && inbox.is_empty() && inbox.moved.elapsed() >= settle
    }

    /// The messages that may come again once what was taken is committed.
    pub(super) fn delivered(&self) -> Vec<Delivered> {
        let inbox = self.shared.lock();
        inbox.session.may_come_again(&inbox.taken)
    }

    /// Acknowledges what was taken, as it is committed.
    pub(super) fn acknowledge(&self) {
        self.shared.lock().acknowledge();
    }
}

impl Drop for Mqtt {
    /// Sends what is to be sent, and takes leave of the broker, which keeps the session.
    fn drop(&mut self) {
        let mut inbox = self.shared.lock();
        inbox.closing = true;
        if let (Some(client), true) = (&inbox.client, inbox.connected) {
            let _ = client.try_disconnect();
        }
        self.shared.wake();
        let until = Instant::now() + GOODBYE;
        while inbox.connected && !inbox.ended {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            let waited = self.shared.came.wait_timeout(inbox, left);
            inbox = waited.unwrap_or_else(std::sync::PoisonError::into_inner).0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_shows_when_the_flow_stops_twice_at_one_number() {
        let mut flow = Flow::default();
        for (open, full) in [(7, false), (20, false), (20, true), (20, true), (3, false), (20, false), (0, false)] {
            flow.stopped_at(open);
            assert_eq!(flow.is_full(open), full, "{open}");
        }
        assert!(!flow.is_full(20));
    }
}
