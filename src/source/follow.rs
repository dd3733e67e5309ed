//! A source that is followed: what is new there since a position, portion by portion.
//!
//! A [`Follow`] lists the files of a source and compares them with a [`Position`], which says how much of each was read
//! and which recordings may go on. What is new becomes a [`Portion`]: a [`Source`] of its rows, and, once these were
//! read to their end, the position behind it. Who keeps the position together with the rows reads every row once,
//! whenever it stops.
//!
//! Files are read whole, once nothing has been written to them for a while ([`Files::Whole`]), or as far as they have
//! complete lines ([`Files::Growing`]). Standard input and the messages of an MQTT broker are read as they come. Windows reach across portions: however the lines of a recording are cut into
//! portions, its windows are the same, with the same features ([`part`](super::part)).

mod broker;
mod delivered;
mod growing;
mod input;
#[cfg(feature = "mqtt")]
mod mqtt;
mod seen;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, SystemTime};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::bad::{BadRows, Rejects};
use super::csv::{self, Courses, Csv, Going};
use super::location::{DataFile, blocking, list_there};
use super::parquet::{self, VectorFile};
use super::{OnBadRow, Source, SourceOptions, SourceSpec, of_recordings};
use crate::error::{Error, Kind, Result};
use crate::signal::features::{FeatureExtractor, FeatureSet};
use crate::signal::window::{WindowSpec, Within};
pub use broker::{Client, is_broker};
use delivered::Delivered;
use growing::{Grown, Most};
use input::{Input, Taken};
#[cfg(feature = "mqtt")]
use mqtt::Mqtt;
#[cfg(feature = "mqtt")]
pub(crate) use mqtt::Publisher;
use seen::{Seen, Stamp, milliseconds};

/// The most bytes of growing files in a portion: they are in memory.
const MOST_BYTES: u64 = 32 << 20;

/// How the files of a stream come to be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Files {
    /// Each is written once, and read as a whole once nothing has been written to it for a while.
    #[default]
    Whole,
    /// Lines are added to them. A line is read once it is complete, and a recording goes on in later lines.
    Growing,
}

/// How a source is followed.
#[derive(Debug, Clone, PartialEq)]
pub struct FollowSpec {
    /// How its files come to be.
    pub files: Files,
    /// How long nothing may have been written to a file that is read whole.
    pub settle: Duration,
    /// A recording that had no line for so long has ended.
    pub idle: Duration,
    /// A portion has at most so many lines or rows; more if they are those of one file that is read whole.
    pub rows: u64,
    /// How long is waited for the lines of standard input, or for messages.
    pub wait: Duration,
    /// Whether the stream ends where nothing more is there.
    pub once: bool,
    /// How to connect to a broker.
    pub client: Client,
}

impl Default for FollowSpec {
    fn default() -> Self {
        Self {
            files: Files::Whole,
            settle: Duration::from_secs(2),
            idle: Duration::from_secs(3600),
            rows: 100_000,
            wait: Duration::from_secs(1),
            once: false,
            client: Client::default(),
        }
    }
}

/// How far a source was read.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Position {
    /// What was read of each file, by its path below the source.
    files: BTreeMap<String, Seen>,
    /// The recordings that may go on.
    #[serde(default)]
    courses: Courses,
    /// The messages of a broker that were read and may be delivered once more.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    delivered: Vec<Delivered>,
}

impl Position {
    /// How many files were read, wholly or in part.
    pub fn files(&self) -> usize {
        self.files.len()
    }

    /// How many recordings may go on.
    pub fn open_recordings(&self) -> usize {
        self.courses.open()
    }
}

/// A source that is followed.
#[derive(Debug)]
pub struct Follow {
    spec: SourceSpec,
    options: SourceOptions,
    how: FollowSpec,
    /// The input that is followed, if it is not files.
    input: Option<Arc<Mutex<Input>>>,
    /// The messages that are followed, once they were asked for.
    #[cfg(feature = "mqtt")]
    messages: Option<Arc<Mutex<Mqtt>>>,
    /// Whole files that were found and are not yet in a portion: a directory of many is not listed for each portion.
    queue: Vec<DataFile>,
}

/// The path that stands for standard input.
pub const STANDARD_INPUT: &str = "-";

/// What is new in a source.
#[derive(Debug)]
pub struct Portion {
    /// Its rows; `None` if none of its files can be used.
    pub source: Option<Source>,
    /// Lines or rows in it, as far as they were counted.
    pub rows: u64,
    /// Files that are in it.
    pub files: usize,
    /// Whether more was there than fits in a portion.
    pub more: bool,
    /// What is behind it, for who watches.
    pub behind: Behind,
    seen: BTreeMap<String, Seen>,
    courses: Option<Arc<Going>>,
    delivered: Vec<Delivered>,
}

/// How far a portion is behind its source.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Behind {
    /// Rows that were there and are not in it, estimated from the bytes of their files.
    pub rows: u64,
    /// When the oldest of its files was last written, in milliseconds since 1970, where that is known.
    pub arrived: Option<i64>,
}

impl Portion {
    /// The position behind it, once its rows were read to their end.
    ///
    /// # Errors
    /// Kind `Internal` if they were not.
    pub fn position(&self) -> Result<Position> {
        let courses = match &self.courses {
            None => Courses::default(),
            Some(going) => going.after().ok_or_else(|| Error::internal("a portion that was not read to its end"))?,
        };
        Ok(Position { files: self.seen.clone(), courses, delivered: self.delivered.clone() })
    }
}

/// What is there to read.
enum New {
    Nothing,
    Some { data: Vec<DataFile>, rows: u64, more: bool, behind: Behind },
}

impl Follow {
    /// Follows `spec`, whose recordings have a sampling rate if windows are cut.
    ///
    /// # Errors
    /// Kind `Config` for a source that cannot be followed so, with what would be accepted.
    pub fn new(spec: SourceSpec, options: SourceOptions, how: FollowSpec) -> Result<Self> {
        if how.rows == 0 {
            return Err(Error::config("rows is 0, expected at least 1 row in a portion"));
        }
        if let Some((message, help)) = conflict(&spec, how.files) {
            return Err(Error::config(format!("[stream]: {message}, expected {help}")));
        }
        if let SourceSpec::Csv(csv) = &spec
            && (csv.time.is_some() && csv.rate_hz.is_none() && options.window.is_some())
        {
            return Err(Error::internal("a stream of recordings without a sampling rate"));
        }
        let input = match &spec {
            SourceSpec::Csv(csv) if csv.path == STANDARD_INPUT => {
                Some(Arc::new(Mutex::new(Input::of(std::io::stdin())?)))
            }
            _ => None,
        };
        Ok(Self {
            spec,
            options,
            how,
            input,
            queue: Vec::new(),
            #[cfg(feature = "mqtt")]
            messages: None,
        })
    }

    /// Whether nothing will come any more; of files, whether nothing is there that is not being waited for; of a broker,
    /// whether it sent nothing for a while.
    pub fn is_over(&self) -> bool {
        #[cfg(feature = "mqtt")]
        if let Some(messages) = &self.messages {
            return lock(messages).is_over(self.how.settle);
        }
        match &self.input {
            Some(input) => lock(input).is_over(),
            None => true,
        }
    }

    /// Whether it follows an input that ends, and not files or messages.
    pub fn is_input(&self) -> bool {
        self.input.is_some()
    }

    /// Whether what it follows comes by itself, and is waited for while it is read.
    pub fn waits(&self) -> bool {
        self.input.is_some() || is_read_once(&self.spec)
    }

    /// Says that all portions so far are committed: messages are acknowledged then.
    pub fn committed(&self) {
        #[cfg(feature = "mqtt")]
        if let Some(messages) = &self.messages {
            lock(messages).acknowledge();
        }
    }

    /// The lines of standard input, or the messages, that come within the time to wait; `None` if files are followed.
    async fn taken(&mut self, position: &Position, rejects: &Rejects) -> Result<Option<New>> {
        let Some(csv) = self.csv().cloned() else { return Ok(None) };
        let (wait, most) = (self.how.wait, self.how.rows);
        if let Some(input) = self.input.clone() {
            let taken = blocking(move || lock(&input).take(&csv, wait, most)).await?;
            return Ok(Some(match taken {
                Taken { lines: Some((data, rows)), more } => {
                    New::Some { data: vec![data], rows, more, behind: Behind::default() }
                }
                Taken { lines: None, .. } => New::Nothing,
            }));
        }
        #[cfg(feature = "mqtt")]
        if is_broker(&csv.path) {
            let messages = match &self.messages {
                Some(messages) => Arc::clone(messages),
                None => {
                    let started = Mqtt::start(&csv.path, &self.how.client, &position.delivered)?;
                    Arc::clone(self.messages.insert(Arc::new(Mutex::new(started))))
                }
            };
            let (settle, rejects) = (self.how.once.then_some(self.how.settle), rejects.clone());
            let taken = blocking(move || lock(&messages).take(&csv, wait, most, settle, &rejects)).await?;
            return Ok(Some(match taken {
                Some(mqtt::Batch { data, lines, more }) => {
                    New::Some { data, rows: lines, more, behind: Behind::default() }
                }
                None => New::Nothing,
            }));
        }
        let _ = (position, rejects);
        Ok(None)
    }

    /// The messages that may come again after what was taken so far.
    fn delivered(&self, position: &Position) -> Vec<Delivered> {
        #[cfg(feature = "mqtt")]
        if let Some(messages) = &self.messages {
            return lock(messages).delivered();
        }
        position.delivered.clone()
    }

    /// What is new at `now` since `position`; `None` if there is nothing. Bad rows go to `bad`, or are errors, as the
    /// options say.
    ///
    /// # Errors
    /// As of [`open`](super::open), except that there may be no files; kind `Input` under [`OnBadRow::Fail`] for a file
    /// that was read and is another one now.
    pub async fn next(&mut self, position: &Position, now: SystemTime, bad: &Arc<BadRows>) -> Result<Option<Portion>> {
        let now = milliseconds(now);
        let rejects = Rejects::new(self.options.on_bad_row, Arc::clone(bad)).with_missing(self.options.missing);
        let (found, seen) = match self.taken(position, &rejects).await? {
            Some(found) => (found, position.files.clone()),
            None => self.look(position, now, rejects.clone()).await?,
        };
        let idle_since = match self.is_input() && self.is_over() {
            // What ended does not go on.
            true => i64::MAX,
            false => now.saturating_sub(milliseconds_of(self.how.idle)),
        };
        let (data, rows, more, behind) = match found {
            New::Some { data, rows, more, behind } => (data, rows, more, behind),
            New::Nothing if position.courses.idle_since(idle_since) => (Vec::new(), 0, false, Behind::default()),
            // A file that was found to be another one is remembered as such.
            New::Nothing if seen != position.files && !bad.is_empty() => (Vec::new(), 0, false, Behind::default()),
            New::Nothing => return Ok(None),
        };
        let files = data.len();
        // Nothing but what was set aside.
        let empty = data.is_empty() && !position.courses.idle_since(idle_since);
        let delivered = self.delivered(position);
        let mut portion = Portion { source: None, rows, files, more, behind, seen, courses: None, delivered };
        let opened = match &self.spec {
            SourceSpec::Parquet(spec) => {
                parquet::of_files(spec, data.into_iter().map(VectorFile::plain).collect(), rejects).await
            }
            SourceSpec::Csv(spec) => {
                let window = self.options.window;
                let cut = window.unwrap_or(WindowSpec { length: 1, stride: 1, within: Within::Recordings });
                let rate_hz = spec.rate_hz.unwrap_or(1.0);
                let set = self.options.features.clone().unwrap_or(FeatureSet::Samples);
                let ahead = FeatureExtractor::new(&set, &spec.channels, rate_hz, &cut)?.ahead();
                let going = Arc::new(Going {
                    window: cut,
                    ahead,
                    goes_on: self.how.files == Files::Growing || spec.continues() || self.waits(),
                    now,
                    idle_since,
                    before: position.courses.clone(),
                    times: OnceLock::new(),
                    after: Mutex::default(),
                });
                portion.courses = Some(Arc::clone(&going));
                let recordings = Csv::of_portion(spec, data, window.is_some(), going, rejects.clone()).await;
                recordings.and_then(|csv| {
                    let description = csv.describe();
                    of_recordings(Arc::new(csv), description, &self.options, rejects)
                })
            }
            SourceSpec::Hapt(_) => Err(Error::internal("a source that cannot be followed")),
        };
        match opened {
            Ok(source) if !empty => portion.source = Some(source),
            Ok(_) => {
                if let Some(going) = &portion.courses {
                    going.nothing_read();
                }
            }
            // All of its files were set aside.
            Err(e) if e.kind() == Kind::Input && self.options.on_bad_row == OnBadRow::Quarantine && !bad.is_empty() => {
                if let Some(going) = &portion.courses {
                    going.nothing_read();
                }
            }
            Err(e) => return Err(e),
        }
        Ok(Some(portion))
    }

    /// What is new in the files, and what was read of them then.
    async fn look(&mut self, position: &Position, now: i64, rejects: Rejects) -> Result<(New, BTreeMap<String, Seen>)> {
        let mut seen = position.files.clone();
        let mut listed = std::mem::take(&mut self.queue);
        let queued = !listed.is_empty();
        if !queued {
            listed = self.listed().await?;
            let names: BTreeSet<&str> = listed.iter().map(DataFile::below).collect();
            // A file that is gone is forgotten: nothing of it can be read again.
            seen.retain(|name, _| names.contains(name.as_str()));
        }
        let tables =
            matches!(self.spec, SourceSpec::Parquet(_)) || listed.iter().all(|file| csv::is_parquet(file.name()));
        let (how, csv, rejecting) = (self.how.clone(), self.csv().cloned(), rejects.clone());
        let (found, seen, left) = blocking(move || {
            let (rejects, data, behind) = (rejecting, Vec::new(), Behind::default());
            let mut looked =
                Look { how, now, rejects, seen, rows: 0, bytes: 0, data, more: false, behind, taken: 0, waiting: 0 };
            let mut left = Vec::new();
            // Files that grow are looked at each time: any of them may have more.
            let whole = looked.how.files == Files::Whole;
            for file in listed {
                if !looked.more || !whole {
                    looked.at(file.clone(), csv.as_ref(), tables)?;
                }
                if looked.more && whole {
                    left.push(file);
                }
            }
            // After the last of them, new ones may have come.
            looked.waits(left.len());
            let behind = looked.behind();
            let Look { seen, rows, data, more, .. } = looked;
            let found = match data.is_empty() {
                true => New::Nothing,
                false => New::Some { data, rows, more: more || queued, behind },
            };
            Ok((found, seen, left))
        })
        .await?;
        self.queue = left;
        match found {
            New::Nothing if queued => {
                let position = Position { files: seen, ..position.clone() };
                Box::pin(self.look(&position, now, rejects)).await
            }
            found => Ok((found, seen)),
        }
    }

    fn csv(&self) -> Option<&csv::CsvSpec> {
        match &self.spec {
            SourceSpec::Csv(spec) => Some(spec),
            _ => None,
        }
    }

    /// The files that are there, if any.
    async fn listed(&self) -> Result<Vec<DataFile>> {
        match &self.spec {
            SourceSpec::Csv(spec) => {
                let text = list_there(&spec.path, spec.endings()).await?;
                if text.is_empty() { list_there(&spec.path, &csv::TABLE_ENDINGS).await } else { Ok(text) }
            }
            SourceSpec::Parquet(spec) => list_there(&spec.path, &csv::TABLE_ENDINGS).await,
            SourceSpec::Hapt(_) => Ok(Vec::new()),
        }
    }
}

/// Whether the source gives its rows once, so that nothing can be learned from them first.
pub fn is_read_once(spec: &SourceSpec) -> bool {
    matches!(spec, SourceSpec::Csv(csv) if csv.path == STANDARD_INPUT || is_broker(&csv.path))
}

fn lock<T>(what: &Mutex<T>) -> MutexGuard<'_, T> {
    what.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Why `spec` cannot be followed where files come to be like this, and what could be.
pub fn conflict(spec: &SourceSpec, files: Files) -> Option<(String, &'static str)> {
    match spec {
        SourceSpec::Hapt(_) => Some((
            "recordings of kind = \"hapt\" share one file of labels, so they cannot be followed".into(),
            "a source of kind = \"csv\" or kind = \"parquet\"",
        )),
        SourceSpec::Csv(csv) if is_broker(&csv.path) && broker::conflict(csv).is_some() => broker::conflict(csv),
        SourceSpec::Parquet(spec) if is_broker(&spec.path) => Some((
            "messages are samples of recordings".into(),
            "kind = \"csv\", without windows if each sample is a row",
        )),
        SourceSpec::Csv(csv)
            if csv.rules.resample && (files == Files::Growing || csv.continues() || is_read_once(spec)) =>
        {
            Some((
                "resample = true needs whole recordings, and these go on".into(),
                "files = \"whole\", without across_files = \"continue\"",
            ))
        }
        SourceSpec::Parquet(_) if files == Files::Growing => {
            Some(("Parquet files do not grow".into(), "files = \"whole\""))
        }
        SourceSpec::Csv(_) | SourceSpec::Parquet(_) => None,
    }
}

/// Why no model can be learned from `spec` while it is followed; `None` if its files can be read again.
pub fn learns_once(spec: &SourceSpec) -> Option<&'static str> {
    match spec {
        SourceSpec::Csv(csv) if csv.path == STANDARD_INPUT => Some("standard input is read once"),
        SourceSpec::Csv(csv) if is_broker(&csv.path) => Some("messages of a broker are read once"),
        SourceSpec::Hapt(_) | SourceSpec::Csv(_) | SourceSpec::Parquet(_) => None,
    }
}

/// A look at the files, one after the other.
struct Look {
    how: FollowSpec,
    now: i64,
    rejects: Rejects,
    seen: BTreeMap<String, Seen>,
    rows: u64,
    /// Bytes of growing files, which are in memory.
    bytes: u64,
    data: Vec<DataFile>,
    more: bool,
    behind: Behind,
    /// Bytes of what is taken, and of what is not.
    taken: u64,
    waiting: u64,
}

impl Look {
    /// Counts `files` that are left for later portions; the first was looked at. The others are taken to be as large as
    /// those that were taken, so that none is looked at for each portion before it.
    fn waits(&mut self, files: usize) {
        let each = self.taken / self.data.len().max(1) as u64;
        self.waiting += each * files.saturating_sub(1) as u64;
    }

    /// How far what is taken is behind.
    fn behind(&self) -> Behind {
        let rows = u128::from(self.waiting) * u128::from(self.rows) / u128::from(self.taken.max(1));
        Behind { rows: u64::try_from(rows).unwrap_or(u64::MAX), ..self.behind }
    }

    fn take(&mut self, stamp: Stamp, bytes: u64) {
        self.taken += bytes;
        self.behind.arrived = self.behind.arrived.into_iter().chain(stamp.written).min();
    }

    /// Takes what is new in `file`.
    fn at(&mut self, file: DataFile, csv: Option<&csv::CsvSpec>, tables: bool) -> Result<()> {
        let stamp = match Stamp::of(&file) {
            Ok(stamp) => stamp,
            // It went while the directory was read.
            Err(e) if e.kind() == Kind::Input && file.local_path().is_some_and(|path| !path.exists()) => return Ok(()),
            Err(e) => return Err(e),
        };
        match (self.how.files, csv) {
            (Files::Growing, Some(csv)) => self.grown(file, csv, stamp),
            _ => self.whole(file, stamp, tables),
        }
    }

    fn whole(&mut self, file: DataFile, stamp: Stamp, tables: bool) -> Result<()> {
        if let Some(seen) = self.seen.get_mut(file.below()) {
            return match seen.changed(&file, stamp) {
                Some(reason) => self.rejects.reject(file.name(), 0, reason),
                None => Ok(()),
            };
        }
        if !stamp.is_settled(self.now, milliseconds_of(self.how.settle)) {
            return Ok(());
        }
        if self.rows >= self.how.rows {
            self.more = true;
            self.waiting += stamp.bytes;
            return Ok(());
        }
        let rows = seen::rows_in(&file, tables);
        if !self.data.is_empty() && self.rows + rows > self.how.rows {
            self.more = true;
            // Files are read in their order, so that the result does not depend on what fits.
            self.rows = self.how.rows;
            self.waiting += stamp.bytes;
            return Ok(());
        }
        self.rows += rows;
        self.take(stamp, stamp.bytes);
        self.seen.insert(file.below().to_owned(), Seen::whole(stamp));
        self.data.push(file);
        Ok(())
    }

    fn grown(&mut self, file: DataFile, csv: &csv::CsvSpec, stamp: Stamp) -> Result<()> {
        let left = Most {
            lines: self.how.rows.saturating_sub(self.rows),
            bytes: MOST_BYTES.saturating_sub(self.bytes).max(growing::LEAST_BYTES),
        };
        if left.lines == 0 || self.bytes >= MOST_BYTES {
            self.more = true;
            self.waiting += stamp.bytes.saturating_sub(self.seen.get(file.below()).map_or(0, Seen::bytes));
            return Ok(());
        }
        let idle = stamp.is_settled(self.now, milliseconds_of(self.how.idle));
        let before = self.seen.get(file.below()).cloned();
        let Grown { seen, new, problem, more } = match growing::read(&file, csv, stamp, before, idle, left) {
            Ok(grown) => grown,
            Err(e) if e.kind() == Kind::Input => {
                self.seen.insert(file.below().to_owned(), Seen::whole(stamp));
                return self.rejects.reject_file(file.name(), e);
            }
            Err(e) => return Err(e),
        };
        self.more |= more;
        if let (true, Some(seen)) = (more, &seen) {
            self.waiting += stamp.bytes.saturating_sub(seen.bytes());
        }
        if let Some(seen) = seen {
            self.seen.insert(file.below().to_owned(), seen);
        }
        if let Some(reason) = problem {
            self.rejects.reject(file.name(), 0, reason)?;
        }
        if let Some((data, rows)) = new {
            self.rows += rows;
            let bytes = data.size()?;
            self.bytes += bytes;
            self.take(stamp, bytes);
            self.data.push(data);
        }
        Ok(())
    }
}

fn milliseconds_of(span: Duration) -> i64 {
    i64::try_from(span.as_millis()).unwrap_or(i64::MAX)
}

impl Going {
    /// The recordings after the portion, once it was read to its end.
    fn after(&self) -> Option<Courses> {
        let mut after = lock(&self.after).clone()?;
        after.take_left();
        Some(after)
    }

    /// Leaves the recordings as they were.
    fn nothing_read(&self) {
        *lock(&self.after) = Some(self.before.clone());
    }
}
