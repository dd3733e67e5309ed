//! Which messages were received and not acknowledged, as the client knows it.

use std::collections::HashMap;

use super::super::delivered::Delivered;

/// The messages that the broker may deliver once more, by their packet identifiers.
#[derive(Debug, Default)]
pub(super) struct Session {
    held: HashMap<u16, Held>,
    /// How many messages were held so far.
    serials: u64,
    /// How many of them are not committed.
    open: usize,
    /// The number of the connection, from 1.
    connection: u64,
}

/// A message of which the broker need not know yet that it is done with.
#[derive(Debug)]
struct Held {
    hash: [u8; 16],
    /// Tells it from a later message with the same packet identifier.
    serial: u64,
    /// The connection on which it was delivered last; 0 for an earlier process.
    connection: u64,
    /// Whether its rows are in the table.
    committed: bool,
}

/// A held message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Handle {
    packet: u16,
    serial: u64,
}

/// What a delivery is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Came {
    /// A message that was not here before.
    New(Handle),
    /// One that is here and not yet committed.
    Again,
    /// One that was committed: it is to be acknowledged.
    Committed,
}

impl Session {
    /// After a commit of an earlier process, whose messages may come again.
    pub(super) fn after(delivered: &[Delivered]) -> Self {
        let mut session = Self::default();
        for &Delivered { packet, hash } in delivered {
            session.hold(packet, Held { hash, serial: 0, connection: 0, committed: true });
        }
        session
    }

    fn hold(&mut self, packet: u16, held: Held) -> Handle {
        self.serials += 1;
        self.open += usize::from(!held.committed);
        let before = self.held.insert(packet, Held { serial: self.serials, ..held });
        self.open -= usize::from(before.is_some_and(|before| !before.committed));
        Handle { packet, serial: self.serials }
    }

    /// A connection was made. If the broker has not `kept` the session, it delivers nothing again, and its packet
    /// identifiers begin anew. Returns whether anything was forgotten.
    pub(super) fn connected(&mut self, kept: bool) -> bool {
        self.connection += 1;
        let forgotten = !kept && (self.connection > 1 || !self.held.is_empty());
        if !kept {
            self.held.clear();
            self.open = 0;
        }
        forgotten
    }

    /// A message was delivered; `again` is what the broker says.
    pub(super) fn came(&mut self, message: Delivered, again: bool) -> Came {
        let connection = self.connection;
        let Delivered { packet, hash } = message;
        if let Some(held) = self.held.get_mut(&packet).filter(|held| again && held.hash == hash) {
            held.connection = connection;
            return if held.committed { Came::Committed } else { Came::Again };
        }
        // The broker gives a packet identifier to another message once it has the acknowledgement of the one before.
        Came::New(self.hold(packet, Held { hash, serial: 0, connection, committed: false }))
    }

    /// What the broker has not been told of, or may not have heard of, once `taken` are committed: they may come again.
    pub(super) fn may_come_again(&self, taken: &[Handle]) -> Vec<Delivered> {
        let taken: HashMap<u16, u64> = taken.iter().map(|handle| (handle.packet, handle.serial)).collect();
        let again = |(packet, held): &(&u16, &Held)| held.committed || taken.get(*packet) == Some(&held.serial);
        let held = self.held.iter().filter(again);
        let mut found: Vec<_> = held.map(|(&packet, held)| Delivered { packet, hash: held.hash }).collect();
        found.sort_by_key(|delivered| delivered.packet);
        found
    }

    /// `taken` were committed. Returns those that are to be acknowledged now; the others will be when they come again.
    pub(super) fn commit(&mut self, taken: &[Handle]) -> Vec<u16> {
        let mut due = Vec::new();
        for &Handle { packet, serial } in taken {
            if let Some(held) = self.held.get_mut(&packet).filter(|held| held.serial == serial) {
                self.open -= usize::from(!held.committed);
                held.committed = true;
                due.extend((held.connection == self.connection).then_some(packet));
            }
        }
        due
    }

    /// The message whose acknowledgement was sent under `packet`.
    pub(super) fn sent(&self, packet: u16) -> Option<Handle> {
        self.held.get(&packet).map(|held| Handle { packet, serial: held.serial })
    }

    /// The broker has the acknowledgements of `sent`: none of these comes again.
    pub(super) fn confirmed(&mut self, sent: &[Handle]) {
        for &Handle { packet, serial } in sent {
            if self.held.get(&packet).is_some_and(|held| held.serial == serial && held.committed) {
                self.held.remove(&packet);
            }
        }
    }

    /// How many messages are held that are not committed.
    pub(super) fn open(&self) -> usize {
        self.open
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn message(packet: u16, payload: &str) -> Delivered {
        Delivered::new(packet, "t", payload.as_bytes())
    }

    fn new(came: Came) -> Handle {
        match came {
            Came::New(handle) => handle,
            Came::Again | Came::Committed => panic!("{came:?}"),
        }
    }

    #[test]
    fn a_message_that_was_committed_and_not_acknowledged_is_known_again() {
        let mut session = Session::default();
        assert!(!session.connected(false));
        let one = new(session.came(message(1, "a"), false));
        let two = new(session.came(message(2, "a"), false));
        assert_eq!(session.may_come_again(&[one]), [message(1, "a")]);
        assert_eq!(session.commit(&[one]), [1]);
        // Both come again on another connection; what was not committed is still held from before.
        assert!(!session.connected(true));
        assert_eq!(session.came(message(1, "a"), true), Came::Committed);
        // It is committed before it comes again, so it is acknowledged when it comes.
        assert_eq!(session.commit(&[two]), [0u16; 0]);
        assert_eq!(session.came(message(2, "a"), true), Came::Committed);
        // Another process begins with what the table says.
        let mut later = Session::after(&session.may_come_again(&[]));
        assert!(!later.connected(true));
        assert_eq!(later.came(message(2, "a"), true), Came::Committed);
        // The broker gave the packet identifier to another message, or the same text is sent anew.
        new(later.came(message(2, "b"), true));
        new(later.came(message(1, "a"), false));
    }

    #[test]
    fn a_broker_that_forgot_the_session_delivers_nothing_again() {
        let mut session = Session::after(&[message(1, "a")]);
        assert!(session.connected(false));
        let one = new(session.came(message(1, "a"), true));
        assert!(session.connected(false));
        assert_eq!(session.commit(&[one]), [0u16; 0]);
        assert!(session.may_come_again(&[one]).is_empty());
        assert!(!Session::after(&[]).connected(false));
    }

    /// A broker as MQTT 3.1.1 describes it: a packet identifier is free once the acknowledgement has come, and what is not
    /// acknowledged is delivered again on every connection.
    struct Broker {
        next: u32,
        /// Delivered and not acknowledged: packet identifiers and messages, in their order.
        flight: Vec<(u16, u32)>,
        /// Acknowledgements under way.
        acks: Vec<u16>,
    }

    proptest! {
        /// Whatever is lost and whenever the client dies, each message is committed once.
        #[test]
        fn each_message_is_committed_once(
            steps in prop::collection::vec(0u8..12, 1..300),
            window in 1usize..5,
        ) {
            let mut broker = Broker { next: 0, flight: vec![], acks: vec![] };
            let mut session = Session::default();
            session.connected(false);
            // The client's memory: what was received and not committed, and the acknowledgements sent.
            let (mut queue, mut sent): (Vec<(Handle, u32)>, Vec<Handle>) = (vec![], vec![]);
            let (mut committed, mut table): (Vec<u32>, Vec<Delivered>) = (vec![], vec![]);
            let text = |message: u32| message.to_string();
            let deliver = |session: &mut Session, broker: &mut Broker, queue: &mut Vec<_>, packet, id, again| {
                match session.came(message(packet, &text(id)), again) {
                    Came::New(handle) => queue.push((handle, id)),
                    Came::Again => {}
                    Came::Committed => broker.acks.push(packet),
                }
            };
            for step in steps {
                match step {
                    // A new message, if the window has room: under the least free packet identifier.
                    0..=4 if broker.flight.len() < window => {
                        let packet = (1..).find(|p| broker.flight.iter().all(|(taken, _)| taken != p)).unwrap();
                        let id = broker.next;
                        broker.next += 1;
                        broker.flight.push((packet, id));
                        deliver(&mut session, &mut broker, &mut queue, packet, id, false);
                    }
                    // A commit, and the acknowledgements after it, unless the client dies in between.
                    5 | 6 if !queue.is_empty() => {
                        let handles: Vec<Handle> = queue.iter().map(|(handle, _)| *handle).collect();
                        table = session.may_come_again(&handles);
                        committed.extend(queue.drain(..).map(|(_, id)| id));
                        if step == 5 {
                            broker.acks.extend(session.commit(&handles));
                        } else {
                            session = Session::after(&table);
                            session.connected(true);
                            (broker.acks, sent) = (vec![], vec![]);
                            for (packet, id) in broker.flight.clone() {
                                deliver(&mut session, &mut broker, &mut queue, packet, id, true);
                            }
                        }
                    }
                    // The broker gets the acknowledgements.
                    7 | 8 => {
                        for packet in std::mem::take(&mut broker.acks) {
                            sent.extend(session.sent(packet));
                            broker.flight.retain(|(taken, _)| *taken != packet);
                        }
                        if step == 8 {
                            session.confirmed(&std::mem::take(&mut sent));
                        }
                    }
                    // The connection breaks, and acknowledgements under way are lost; at times the client dies with it.
                    9..=11 => {
                        if step == 11 {
                            session = Session::after(&table);
                            queue.clear();
                        }
                        (broker.acks, sent) = (vec![], vec![]);
                        session.connected(true);
                        for (packet, id) in broker.flight.clone() {
                            deliver(&mut session, &mut broker, &mut queue, packet, id, true);
                        }
                    }
                    _ => {}
                }
            }
            let waiting = queue.iter().map(|(_, id)| *id);
            let mut all: Vec<u32> = committed.iter().copied().chain(waiting).collect();
            all.sort_unstable();
            prop_assert_eq!(all, (0..broker.next).collect::<Vec<_>>());
            prop_assert_eq!(session.open(), queue.len());
        }
    }
}
