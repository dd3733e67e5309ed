//! Reading from an object store.

use std::io::{self, Read};

use bytes::{Buf, Bytes};
use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::ObjectStoreExt;
use tokio::runtime::Handle;

use crate::error::{Error, Result};
use crate::store::Location;

/// An object as it arrives, one piece at a time. Blocks, so it belongs on a blocking task of the runtime.
pub(super) struct Remote {
    handle: Handle,
    stream: BoxStream<'static, object_store::Result<Bytes>>,
    ready: Bytes,
}

impl Remote {
    /// Opens the object at `place`, which messages call `name`.
    ///
    /// # Errors
    /// As in [`remote_error`].
    pub(super) fn open(place: &Location, name: &str) -> Result<Self> {
        let handle = Handle::current();
        let get = handle.block_on(place.store().get(place.prefix())).map_err(|e| remote_error(name, e))?;
        Ok(Self { handle, stream: get.into_stream(), ready: Bytes::new() })
    }
}

impl Read for Remote {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.ready.is_empty() {
            match self.handle.block_on(self.stream.next()) {
                Some(piece) => self.ready = piece.map_err(io::Error::other)?,
                None => return Ok(0),
            }
        }
        let n = out.len().min(self.ready.len());
        self.ready.copy_to_slice(&mut out[..n]);
        Ok(n)
    }
}

/// The error for `e` about the object `name`: of kind `Input` if it does not exist, else `Io`.
pub(super) fn remote_error(name: &str, e: object_store::Error) -> Error {
    match e {
        object_store::Error::NotFound { .. } => Error::input(format!("{name}: no such file")),
        e => Error::io(format!("{name}: cannot be read")).with_source(e),
    }
}
