//! Finds the model that an SQL function names, reads it once, and shares it.
//!
//! Planning a query is synchronous and object stores are asynchronous, so models are read by one thread with its own
//! runtime, and the planner waits for it. A model that was read stays in memory as long as the session.

use std::collections::{BTreeMap, HashMap};
use std::hash::{Hash, Hasher};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};

use datafusion::execution::runtime_env::RuntimeEnv;

use crate::error::{Error, Result};
use crate::model::Model;
use crate::registry::Registry;
use crate::store::Location;

/// The number of digits of a hash in the name of a model's directory.
const SHORT: usize = 16;
/// Fewer digits are taken as a path, not as a hash.
const SHORTEST_PREFIX: usize = 4;

/// The models that the functions of one session can find.
#[derive(Debug)]
pub struct Models {
    finder: Arc<Finder>,
    read: Mutex<HashMap<String, Arc<Model>>>,
    reader: OnceLock<Sender<Request>>,
}

/// Where models are found.
#[derive(Debug)]
struct Finder {
    directories: RwLock<Vec<Directory>>,
    runtime: Arc<RuntimeEnv>,
    /// What rebuilds their stages.
    registry: Registry,
}

/// A directory of models.
#[derive(Debug, Clone)]
struct Directory {
    /// The table that it belongs to, for messages.
    owner: String,
    location: Location,
}

struct Request {
    name: String,
    reply: Sender<Result<Arc<Model>>>,
}

// Two functions are equal if they find the same models.
impl PartialEq for Models {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.finder, &other.finder)
    }
}

impl Eq for Models {}

impl Hash for Models {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.finder).hash(state);
    }
}

impl Models {
    /// Finds models through the object stores of `runtime`, at first none by hash, with the stages that `registry` knows,
    /// to be applied on its device.
    pub fn new(runtime: Arc<RuntimeEnv>, registry: Registry) -> Self {
        let finder = Arc::new(Finder { directories: RwLock::default(), runtime, registry });
        Self { finder, read: Mutex::default(), reader: OnceLock::new() }
    }

    /// Looks for hashes in the directory `location` too, which belongs to `owner` (for messages).
    pub fn add_directory(&self, owner: &str, location: Location) {
        let mut directories = self.finder.directories.write().unwrap_or_else(PoisonError::into_inner);
        directories.push(Directory { owner: owner.to_owned(), location });
    }

    /// The model named by its hash, or enough of it, or by the path or URI of its directory.
    ///
    /// Reads it on first use, which blocks the calling thread.
    ///
    /// # Errors
    /// Kind `Model` if there is none (the known ones are listed), if the digits are ambiguous, or if it is damaged.
    pub fn get(&self, name: &str) -> Result<Arc<Model>> {
        if let Some(model) = self.lock().get(name) {
            return Ok(Arc::clone(model));
        }
        let wait = || {
            let (reply, answer) = channel();
            let request = Request { name: name.to_owned(), reply };
            self.reader().send(request).map_err(|_| gone())?;
            answer.recv().map_err(|_| gone())?
        };
        let model = match tokio::runtime::Handle::try_current() {
            // Other tasks of this worker, such as an object store's connection, go on meanwhile.
            Ok(handle) if handle.runtime_flavor() == tokio::runtime::RuntimeFlavor::MultiThread => {
                tokio::task::block_in_place(wait)?
            }
            _ => wait()?,
        };
        self.lock().insert(name.to_owned(), Arc::clone(&model));
        Ok(model)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Arc<Model>>> {
        self.read.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reader(&self) -> &Sender<Request> {
        self.reader.get_or_init(|| {
            let (requests, receiver) = channel();
            let finder = Arc::clone(&self.finder);
            std::thread::spawn(move || answer_requests(&finder, &receiver));
            requests
        })
    }
}

fn gone() -> Error {
    Error::internal("the thread that reads models has ended")
}

/// Runs until all senders of requests are dropped.
fn answer_requests(finder: &Finder, requests: &Receiver<Request>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    for Request { name, reply } in requests {
        let answer = match &runtime {
            Ok(runtime) => runtime.block_on(finder.read(&name)).map(Arc::new),
            Err(e) => Err(Error::io(format!("cannot start reading models: {e}"))),
        };
        // The receiver may have been cancelled.
        let _ = reply.send(answer);
    }
}

impl Finder {
    async fn read(&self, name: &str) -> Result<Model> {
        let digits = name.len() <= 64 && name.bytes().all(|b| b.is_ascii_hexdigit());
        if digits && name.len() >= SHORTEST_PREFIX {
            let hash = name.to_ascii_lowercase();
            let known = self.known().await?;
            let mut fitting = known.iter().filter(|(short, _)| short.starts_with(&hash[..hash.len().min(SHORT)]));
            match (fitting.next(), fitting.next()) {
                (Some((_, (_, directory))), None) => {
                    let model = Model::load_with(directory, &self.registry).await?;
                    if model.hash().as_str().starts_with(&hash) {
                        return Ok(model);
                    }
                }
                (Some((one, _)), Some((other, _))) => {
                    let message = format!(
                        "the hash {name:?} fits several models, {one} and {other} among them; give more digits"
                    );
                    return Err(Error::model(message));
                }
                (None, _) => {}
            }
        }
        let a_path = name.contains(['/', '\\', ':']) || std::path::Path::new(name).is_dir();
        if a_path {
            let directory = Location::in_session(name, &self.runtime)?;
            return Model::load_with(&directory, &self.registry).await;
        }
        Err(self.unknown(name).await)
    }

    /// The models by the name of their directory, with the table that they belong to.
    async fn known(&self) -> Result<BTreeMap<String, (String, Location)>> {
        let directories = self.directories.read().unwrap_or_else(PoisonError::into_inner).clone();
        let mut known = BTreeMap::new();
        for Directory { owner, location } in directories {
            let listed = location.store().list_with_delimiter(Some(location.prefix())).await;
            let listed = listed.map_err(|e| Error::from(e).while_doing(format_args!("listing {location}")))?;
            for model in listed.common_prefixes {
                if let Some(name) = model.filename() {
                    known.insert(name.to_owned(), (owner.clone(), location.join(name)?));
                }
            }
        }
        Ok(known)
    }

    async fn unknown(&self, name: &str) -> Error {
        let known = match self.known().await {
            Ok(known) => known,
            Err(e) => return e,
        };
        let list: Vec<String> = known.iter().map(|(hash, (owner, _))| format!("{hash} (of {owner})")).collect();
        let list = match list.is_empty() {
            true => "no registered table has one; give the path or URI of a model's directory".to_owned(),
            false => format!("there are {}; or give the path or URI of a model's directory", list.join(", ")),
        };
        let list = match name.len() < SHORTEST_PREFIX {
            true => format!("a hash is given by its first {SHORTEST_PREFIX} digits or more; {list}"),
            false => list,
        };
        Error::model(format!("no model {name:?}; {list}"))
    }
}
