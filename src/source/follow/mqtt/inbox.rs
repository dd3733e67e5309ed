//! What the connection has received and the stream has not yet taken.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use rumqttc::{AsyncClient, Publish, QoS};
use tokio::sync::Notify;

use super::session::{Handle, Session};
use crate::error::Error;

/// The most bytes of payloads that wait: beyond, the connection is not read.
pub(super) const MOST_BYTES: usize = 32 << 20;

/// A message that waits.
#[derive(Debug)]
pub(super) struct Message {
    /// Under which it is acknowledged; `None` at QoS 0.
    pub(super) handle: Option<Handle>,
    pub(super) topic: Arc<str>,
    pub(super) bytes: Bytes,
    pub(super) lines: u64,
}

/// What the connection and the stream share.
pub(super) struct Inbox {
    pub(super) session: Session,
    pub(super) client: Option<AsyncClient>,
    queue: VecDeque<Message>,
    /// Lines and bytes in the queue.
    pub(super) lines: u64,
    pub(super) bytes: usize,
    /// Messages that were taken and not yet committed.
    pub(super) taken: Vec<Handle>,
    pub(super) connected: bool,
    /// Whether the broker has confirmed the subscription on this connection.
    pub(super) subscribed: bool,
    /// Since when there is no connection, and why.
    pub(super) away: Option<(Instant, String)>,
    /// When anything was received, or acknowledged, last.
    pub(super) moved: Instant,
    /// Whether a retained message came.
    pub(super) retained: bool,
    /// Why the connection was given up.
    pub(super) failed: Option<Error>,
    /// Whether the stream ends.
    pub(super) closing: bool,
    /// Whether the connection's thread has ended.
    pub(super) ended: bool,
}

impl Inbox {
    pub(super) fn push(&mut self, message: Message) {
        self.lines += message.lines;
        self.bytes += message.bytes.len();
        self.queue.push_back(message);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Takes messages of at most `most` lines in all, but one at least, if there is one.
    pub(super) fn take(&mut self, most: u64) -> Vec<Message> {
        let (mut found, mut lines) = (Vec::new(), 0);
        while let Some(message) = self.queue.pop_front() {
            if !found.is_empty() && lines + message.lines > most {
                self.queue.push_front(message);
                break;
            }
            lines += message.lines;
            self.lines -= message.lines;
            self.bytes -= message.bytes.len();
            self.taken.extend(message.handle);
            found.push(message);
        }
        found
    }

    /// What was taken is committed: acknowledges it.
    pub(super) fn acknowledge(&mut self) {
        let taken = std::mem::take(&mut self.taken);
        let due = self.session.commit(&taken);
        self.moved = Instant::now();
        // Without a connection they are acknowledged when they come again.
        let (Some(client), true) = (&self.client, self.connected) else { return };
        let mut publish = Publish::new("", QoS::AtLeastOnce, Vec::new());
        for packet in due {
            publish.pkid = packet;
            let _ = client.try_ack(&publish);
        }
    }
}

pub(super) struct Shared {
    inbox: Mutex<Inbox>,
    /// Something came, or the connection was given up.
    pub(super) came: Condvar,
    /// There is room again, or the stream ends.
    changed: Notify,
}

impl Shared {
    pub(super) fn new(session: Session) -> Self {
        let inbox = Inbox {
            session,
            client: None,
            queue: VecDeque::new(),
            lines: 0,
            bytes: 0,
            taken: Vec::new(),
            connected: false,
            subscribed: false,
            away: Some((Instant::now(), "it did not answer yet".into())),
            moved: Instant::now(),
            retained: false,
            failed: None,
            closing: false,
            ended: false,
        };
        Self { inbox: Mutex::new(inbox), came: Condvar::new(), changed: Notify::new() }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Inbox> {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until there is room for more messages, or the stream ends.
    pub(super) async fn room(&self) {
        let full = || {
            let inbox = self.lock();
            inbox.bytes >= MOST_BYTES && !inbox.closing
        };
        while full() {
            self.changed.notified().await;
        }
    }

    /// Waits for `wait`, or until the stream ends.
    pub(super) async fn wait_or_close(&self, wait: Duration) {
        let closed = async {
            while !self.lock().closing {
                self.changed.notified().await;
            }
        };
        let _ = tokio::time::timeout(wait, closed).await;
    }

    /// Says that there is room again, or that the stream ends.
    pub(super) fn wake(&self) {
        self.changed.notify_one();
    }
}
