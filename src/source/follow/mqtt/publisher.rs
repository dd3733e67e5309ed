//! Publishes messages, for a source that is simulated.

use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::Duration;

use rumqttc::{AsyncClient, Event, MqttOptions, Packet, QoS};
use tokio::runtime::Runtime;

use super::address::Address;
use super::link::Connect;
use crate::error::{Error, Result};
use crate::terminal::shown_name;

/// Messages without an acknowledgement: beyond, publishing waits.
const IN_FLIGHT: u16 = 1000;
/// How long is waited for an acknowledgement.
const PATIENCE: Duration = Duration::from_secs(30);

/// Publishes at QoS 1: a message that was published is at the broker once [`finish`](Self::finish) has returned.
pub(crate) struct Publisher {
    topic: String,
    broker: String,
    client: AsyncClient,
    runtime: Runtime,
    /// One sign for each acknowledgement, or why there will be none.
    acknowledged: Receiver<std::result::Result<(), String>>,
    waiting: u64,
    published: u64,
}

impl Publisher {
    /// Connects to the broker of `path`; a level `+` of the topic is filled in by each message.
    ///
    /// # Errors
    /// Kind `Config` for an address that is none; `Io` if there is no connection.
    pub(crate) fn connect(path: &str) -> Result<Self> {
        let address = Address::parse(path).map_err(|wrong| Error::config(format!("{}: {wrong}", shown_name(path))))?;
        let (topic, broker) = (address.filter.clone(), address.broker());
        if topic.contains('#') || topic.matches('+').count() > 1 || topic.starts_with("$share/") {
            return Err(Error::config(format!(
                "{:?} is no topic to publish to, expected one with at most one +, which becomes the sensor's name",
                shown_name(&topic)
            )));
        }
        let id = format!("dacpipe{}", std::process::id());
        let connect = Connect { address, client_id: id, qos: QoS::AtLeastOnce, trusted: None };
        let mut options: MqttOptions = connect.options()?;
        options.set_clean_session(true).set_inflight(IN_FLIGHT);
        let (client, mut events) = AsyncClient::new(options, usize::from(IN_FLIGHT));
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.map_err(|e| Error::io("cannot start the connection to a broker").with_source(e))?;
        let (to, acknowledged) = sync_channel(2 * usize::from(IN_FLIGHT));
        // It ends with the runtime, which the publisher holds.
        runtime.spawn(async move {
            loop {
                let said = match events.poll().await {
                    Ok(Event::Incoming(Packet::ConnAck(_) | Packet::PubAck(_))) => Ok(()),
                    Ok(_) => continue,
                    Err(e) => Err(e.to_string()),
                };
                let failed = said.is_err();
                if to.send(said).is_err() || failed {
                    return;
                }
            }
        });
        let mut publisher = Self { topic, broker, client, runtime, acknowledged, waiting: 1, published: 0 };
        publisher.wait(0)?;
        Ok(publisher)
    }

    /// Whether each message says a level of the topic.
    pub(crate) fn has_wildcard(&self) -> bool {
        self.topic.contains('+')
    }

    /// Publishes `payload` under the topic with `level` in the place of its wildcard. Waits while too many messages are
    /// without an acknowledgement.
    ///
    /// # Errors
    /// Kind `Io` if the connection ended.
    pub(crate) fn publish(&mut self, level: &str, payload: Vec<u8>) -> Result<()> {
        self.wait(u64::from(IN_FLIGHT) - 1)?;
        let topic = self.topic.replace('+', level);
        let published = self.runtime.block_on(self.client.publish(topic, QoS::AtLeastOnce, false, payload));
        published.map_err(|e| Error::io(format!("{}: cannot be written", self.broker)).with_source(e))?;
        self.waiting += 1;
        self.published += 1;
        Ok(())
    }

    /// Waits for all acknowledgements. Returns how many messages were published.
    ///
    /// # Errors
    /// As [`publish`](Self::publish).
    pub(crate) fn finish(mut self) -> Result<u64> {
        self.wait(0)?;
        Ok(self.published)
    }

    /// Waits until at most `most` messages are without an acknowledgement.
    fn wait(&mut self, most: u64) -> Result<()> {
        while let Ok(said) = self.acknowledged.try_recv() {
            self.take(said)?;
        }
        while self.waiting > most {
            match self.acknowledged.recv_timeout(PATIENCE) {
                Ok(said) => self.take(said)?,
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                    return Err(Error::io(format!("{}: no acknowledgement within {PATIENCE:?}", self.broker)));
                }
            }
        }
        Ok(())
    }

    fn take(&mut self, said: std::result::Result<(), String>) -> Result<()> {
        self.waiting = self.waiting.saturating_sub(1);
        said.map_err(|why| Error::io(format!("{}: no connection: {why}", self.broker)))
    }
}
