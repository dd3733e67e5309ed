//! The one thread pool of the arithmetic, sized once.
//!
//! Work is cut by its shape and never by the number of threads, and every output is written by one task, so results
//! do not depend on how many threads there are.
//!
//! The threads live as long as the pool. An idle one stays awake for a millisecond before it sleeps, so that the
//! steps of a training loop are handed over at once. A task that calls the pool again, and a caller that finds
//! the pool busy, work by themselves: there is nothing to wait for and so no deadlock.

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Rounds of waiting in which a thread keeps its core: some ten microseconds.
const SPINS: usize = 256;
/// How long it waits on after that, offering its core to others, before it sleeps: longer than one thread's task outlasts
/// another's in a training step. To wake a core that sleeps takes as long as a small step, the more so in a virtual machine.
const PATIENCE: Duration = Duration::from_millis(1);

/// The most threads of a pool.
pub const MOST_THREADS: usize = 1024;

/// Waits until `done` says so, for as long as it is worth to stay awake.
fn wait_awake(done: impl Fn() -> bool) {
    for _ in 0..SPINS {
        if done() {
            return;
        }
        std::hint::spin_loop();
    }
    let began = Instant::now();
    while !done() && began.elapsed() < PATIENCE {
        std::thread::yield_now();
    }
}

thread_local! {
    /// True while this thread works on a task of some pool.
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

/// A fixed set of compute threads.
///
/// ```
/// use dacpipe_kernel::Pool;
/// let pool = Pool::new(2);
/// assert_eq!(pool.map(4, |i| i * i), [0, 1, 4, 9]);
/// ```
pub struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
}

/// What a worker runs: it takes tasks of the current job until none is left.
type Work = dyn Fn() + Sync;

/// The current job's work, with its lifetime erased.
#[derive(Clone, Copy)]
struct JobPointer(*const Work);

// SAFETY: the pointee is `Sync`, and `Pool::run` keeps it alive until every worker that could see it has left it.
unsafe impl Send for JobPointer {}

#[derive(Default)]
struct State {
    job: Option<JobPointer>,
    /// Workers inside the current job.
    joined: usize,
    sleeping: usize,
    panic: Option<Box<dyn Any + Send>>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    /// Held by the caller whose job the workers are on.
    dispatching: Mutex<()>,
    /// Number of jobs published so far; idle workers watch it without the lock.
    published: AtomicUsize,
    /// A copy of `State::joined` that the caller watches without the lock.
    joined: AtomicUsize,
    closed: AtomicBool,
    work_arrived: Condvar,
    workers_left: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A worker's life: wait for a job, join it while it is open, leave it, until the pool closes.
    fn serve(&self) {
        INSIDE.set(true);
        let mut seen = 0;
        while let Some(job) = self.next_job(&mut seen) {
            // SAFETY: the job was open when this worker joined it under the lock, and `Pool::run` does not return
            // before every joined worker has left.
            let outcome = catch_unwind(AssertUnwindSafe(|| unsafe { (*job.0)() }));
            let mut state = self.lock();
            if let Err(payload) = outcome {
                state.panic.get_or_insert(payload);
            }
            state.joined -= 1;
            self.joined.store(state.joined, Ordering::Release);
            if state.joined == 0 {
                self.workers_left.notify_one();
            }
        }
    }

    /// Waits for a job that this worker has not seen and joins it; `None` once the pool closes.
    fn next_job(&self, seen: &mut usize) -> Option<JobPointer> {
        loop {
            wait_awake(|| self.published.load(Ordering::Acquire) != *seen || self.closed.load(Ordering::Acquire));
            let mut state = self.lock();
            while self.published.load(Ordering::Acquire) == *seen {
                if self.closed.load(Ordering::Acquire) {
                    return None;
                }
                state.sleeping += 1;
                state = self.work_arrived.wait(state).unwrap_or_else(PoisonError::into_inner);
                state.sleeping -= 1;
            }
            *seen = self.published.load(Ordering::Acquire);
            if let Some(job) = state.job {
                state.joined += 1;
                self.joined.store(state.joined, Ordering::Release);
                return Some(job);
            }
        }
    }

    /// Opens `job` to the workers.
    fn publish(&self, job: JobPointer) {
        let mut state = self.lock();
        state.job = Some(job);
        self.published.fetch_add(1, Ordering::Release);
        if state.sleeping > 0 {
            self.work_arrived.notify_all();
        }
    }

    /// Closes the current job and waits for the workers inside it; returns the first panic among them.
    fn close_job(&self) -> Option<Box<dyn Any + Send>> {
        self.lock().job = None;
        wait_awake(|| self.joined.load(Ordering::Acquire) == 0);
        let mut state = self.lock();
        while state.joined > 0 {
            state = self.workers_left.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.panic.take()
    }
}

/// Marks this thread as inside a task for as long as it lives.
struct InsideTask;

impl InsideTask {
    fn enter() -> Self {
        INSIDE.set(true);
        Self
    }
}

impl Drop for InsideTask {
    fn drop(&mut self) {
        INSIDE.set(false);
    }
}

impl Pool {
    /// A pool of `threads` compute threads, the caller counted as one, at most [`MOST_THREADS`].
    ///
    /// Where the system gives fewer threads than asked for, the pool works with those it got.
    pub fn new(threads: usize) -> Self {
        let shared = Arc::<Shared>::default();
        let spawn = |i: usize| {
            let shared = Arc::clone(&shared);
            std::thread::Builder::new().name(format!("compute-{i}")).spawn(move || shared.serve())
        };
        let workers = (1..threads.min(MOST_THREADS)).map_while(|i| spawn(i).ok()).collect();
        Self { shared, workers }
    }

    /// Number of threads, the caller counted.
    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Calls `task(0) … task(tasks - 1)`, each once, on the pool's threads, and returns when all are done.
    ///
    /// Called from inside a task, or while another thread has the workers, it runs the tasks on the calling thread.
    /// A panic in a task reaches the caller after the tasks that were under way have ended.
    pub fn run(&self, tasks: usize, task: impl Fn(usize) + Sync) {
        let alone = tasks <= 1 || self.workers.is_empty() || INSIDE.get();
        let turn = if alone { None } else { self.shared.dispatching.try_lock().ok() };
        if turn.is_none() {
            (0..tasks).for_each(task);
            return;
        }
        let next = AtomicUsize::new(0);
        let work = || {
            loop {
                let i = next.fetch_add(1, Ordering::Relaxed);
                if i >= tasks {
                    break;
                }
                if let Err(payload) = catch_unwind(AssertUnwindSafe(|| task(i))) {
                    next.store(tasks, Ordering::Relaxed);
                    resume_unwind(payload);
                }
            }
        };
        let job: *const (dyn Fn() + Sync + '_) = &work;
        // SAFETY: only the lifetime changes. `close_job` below runs on every way out and returns when no worker holds
        // the pointer and none can get it any more.
        let job = JobPointer(unsafe { std::mem::transmute::<*const (dyn Fn() + Sync + '_), *const Work>(job) });
        self.shared.publish(job);
        let own = {
            let _inside = InsideTask::enter();
            catch_unwind(AssertUnwindSafe(&work))
        };
        let theirs = self.shared.close_job();
        drop(turn);
        if let Some(payload) = own.err().or(theirs) {
            resume_unwind(payload);
        }
    }

    /// The results of `task(0) … task(tasks - 1)`, in that order.
    pub fn map<R: Send>(&self, tasks: usize, task: impl Fn(usize) -> R + Sync) -> Vec<R> {
        let mut slots: Vec<Option<R>> = std::iter::repeat_with(|| None).take(tasks).collect();
        self.for_each_chunk_mut(&mut slots, 1, |i, slot| slot[0] = Some(task(i)));
        slots.into_iter().map(|slot| slot.expect("every task ran")).collect()
    }

    /// Calls `task(i, chunk)` for each chunk of `chunk_len` values of `values` (the last may be shorter), in parallel.
    ///
    /// ```
    /// use dacpipe_kernel::Pool;
    /// let mut values = [0; 5];
    /// Pool::new(2).for_each_chunk_mut(&mut values, 2, |i, chunk| chunk.fill(i));
    /// assert_eq!(values, [0, 0, 1, 1, 2]);
    /// ```
    pub fn for_each_chunk_mut<T: Send>(
        &self,
        values: &mut [T],
        chunk_len: usize,
        task: impl Fn(usize, &mut [T]) + Sync,
    ) {
        let shared = SharedMut::new(values);
        let len = shared.len();
        self.run(len.div_ceil(chunk_len), |i| {
            let start = i * chunk_len;
            // SAFETY: chunks of different tasks do not overlap, and each task runs once.
            let chunk = unsafe { shared.slice(start..len.min(start + chunk_len)) };
            task(i, chunk);
        });
    }

    /// As [`for_each_chunk_mut`](Self::for_each_chunk_mut), for tasks that can fail: every chunk gets its task all the
    /// same, and of several failures the one of the first chunk is told, whichever thread came first.
    ///
    /// # Errors
    /// The failure of the first chunk that has one.
    ///
    /// ```
    /// use dacpipe_kernel::Pool;
    /// let odd = |i: usize, chunk: &mut [i32]| if chunk[0] % 2 == 0 { Ok(()) } else { Err(i) };
    /// assert_eq!(Pool::new(2).try_for_each_chunk_mut(&mut [0, 1, 2, 3], 1, odd), Err(1));
    /// ```
    pub fn try_for_each_chunk_mut<T: Send, E: Send>(
        &self,
        values: &mut [T],
        chunk_len: usize,
        task: impl Fn(usize, &mut [T]) -> Result<(), E> + Sync,
    ) -> Result<(), E> {
        let failures = FirstFailure::new();
        self.for_each_chunk_mut(values, chunk_len, |i, chunk| failures.keep(i, task(i, chunk)));
        failures.into_result()
    }

    /// Calls `task(i, parts)` for each `i`, in parallel, where part `j` is `values[j][bounds[i][j]..bounds[i + 1][j]]`:
    /// several arrays cut at places of their own, with one task for the parts that belong together.
    ///
    /// Panics if a bound lies before the one above it or past the end of its array.
    ///
    /// ```
    /// use dacpipe_kernel::Pool;
    /// let (mut a, mut b) = ([0; 3], [0; 4]);
    /// let bounds = [[0, 0], [1, 3], [3, 4]];
    /// Pool::new(2).for_each_part_mut([&mut a, &mut b], &bounds, |i, [a, b]| {
    ///     a.fill(i + 1);
    ///     b.fill(i + 5);
    /// });
    /// assert_eq!((a, b), ([1, 2, 2], [5, 5, 5, 6]));
    /// ```
    pub fn for_each_part_mut<T: Send, const N: usize>(
        &self,
        values: [&mut [T]; N],
        bounds: &[[usize; N]],
        task: impl Fn(usize, [&mut [T]; N]) + Sync,
    ) {
        let ordered = bounds.windows(2).all(|w| (0..N).all(|j| w[0][j] <= w[1][j]));
        assert!(ordered, "bounds go backwards");
        let shared = values.map(SharedMut::new);
        self.run(bounds.len().saturating_sub(1), |i| {
            // SAFETY: bounds never go backwards, so parts of different tasks do not overlap; each task runs once.
            task(i, std::array::from_fn(|j| unsafe { shared[j].slice(bounds[i][j]..bounds[i + 1][j]) }));
        });
    }

    /// [`for_each_part_mut`](Self::for_each_part_mut) with tasks that can fail: every task is called, and of the errors
    /// the one of the first part is returned.
    ///
    /// ```
    /// use dacpipe_kernel::Pool;
    /// let odd = |i, _: [&mut [i32]; 1]| if i % 2 == 1 { Err(i) } else { Ok(()) };
    /// let bounds = [[0], [1], [2], [4]];
    /// assert_eq!(Pool::new(2).try_for_each_part_mut([&mut [0, 1, 2, 3]], &bounds, odd), Err(1));
    /// ```
    pub fn try_for_each_part_mut<T: Send, E: Send, const N: usize>(
        &self,
        values: [&mut [T]; N],
        bounds: &[[usize; N]],
        task: impl Fn(usize, [&mut [T]; N]) -> Result<(), E> + Sync,
    ) -> Result<(), E> {
        let failures = FirstFailure::new();
        self.for_each_part_mut(values, bounds, |i, parts| failures.keep(i, task(i, parts)));
        failures.into_result()
    }
}

/// The error of the first task that failed, in the order of their numbers and not of time.
struct FirstFailure<E>(Mutex<Option<(usize, E)>>);

impl<E> FirstFailure<E> {
    fn new() -> Self {
        Self(Mutex::new(None))
    }

    fn keep(&self, task: usize, result: Result<(), E>) {
        if let Err(e) = result {
            let mut failure = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if failure.as_ref().is_none_or(|(first, _)| task < *first) {
                *failure = Some((task, e));
            }
        }
    }

    fn into_result(self) -> Result<(), E> {
        match self.0.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some((_, e)) => Err(e),
            None => Ok(()),
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.closed.store(true, Ordering::Release);
        // The lock orders the flag before the sleep of a worker that is just about to wait.
        drop(self.shared.lock());
        self.shared.work_arrived.notify_all();
        for worker in self.workers.drain(..) {
            // A worker's panics were handed to the callers of `run`; its own end carries nothing.
            let _ = worker.join();
        }
    }
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool").field("threads", &self.threads()).finish_non_exhaustive()
    }
}

/// A slice whose parts are written by different tasks.
#[derive(Clone, Copy)]
struct SharedMut<'a, T> {
    start: *mut T,
    len: usize,
    _slice: std::marker::PhantomData<&'a mut [T]>,
}

// SAFETY: it is a `&mut [T]` whose users promise not to overlap (see `slice`).
unsafe impl<T: Send> Send for SharedMut<'_, T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for SharedMut<'_, T> {}

impl<'a, T> SharedMut<'a, T> {
    fn new(values: &'a mut [T]) -> Self {
        Self { start: values.as_mut_ptr(), len: values.len(), _slice: std::marker::PhantomData }
    }

    fn len(&self) -> usize {
        self.len
    }

    /// The part `range`. Panics if it is not inside the slice.
    ///
    /// # Safety
    /// No two parts that are alive at the same time overlap.
    #[allow(clippy::mut_from_ref)]
    unsafe fn slice(&self, range: std::ops::Range<usize>) -> &'a mut [T] {
        assert!(range.start <= range.end && range.end <= self.len, "{range:?} of {}", self.len);
        // SAFETY: inside the slice by the assertion, not overlapping by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(range.start), range.len()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU64;

    #[test]
    fn every_task_runs_once_on_any_number_of_threads() {
        for threads in 1..5 {
            let pool = Pool::new(threads);
            assert_eq!(pool.threads(), threads);
            for tasks in [0, 1, 2, 3, 17, 1000] {
                let counts: Vec<AtomicUsize> = (0..tasks).map(|_| AtomicUsize::new(0)).collect();
                pool.run(tasks, |i| {
                    counts[i].fetch_add(1, Ordering::Relaxed);
                });
                assert!(counts.iter().all(|c| c.load(Ordering::Relaxed) == 1));
            }
        }
    }

    #[test]
    fn many_short_jobs_leave_nothing_behind() {
        let pool = Pool::new(3);
        let sum = AtomicU64::new(0);
        for _ in 0..5_000 {
            pool.run(4, |i| {
                sum.fetch_add(i as u64, Ordering::Relaxed);
            });
        }
        assert_eq!(sum.into_inner(), 5_000 * 6);
    }

    #[test]
    fn a_task_may_call_the_pool_again() {
        let pool = Pool::new(2);
        let sums = pool.map(4, |i| pool.map(3, |j| i * j).into_iter().sum::<usize>());
        assert_eq!(sums, [0, 3, 6, 9]);
    }

    #[test]
    fn callers_on_several_threads_share_the_pool() {
        let pool = Pool::new(2);
        std::thread::scope(|scope| {
            for k in 0..4_usize {
                let pool = &pool;
                scope.spawn(move || {
                    for _ in 0..200 {
                        assert_eq!(pool.map(5, |i| i + k).len(), 5);
                    }
                });
            }
        });
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_pool_goes_on() {
        let pool = Pool::new(3);
        for _ in 0..50 {
            let caught = catch_unwind(AssertUnwindSafe(|| pool.run(64, |i| assert_ne!(i, 40, "task 40"))));
            let message = caught.expect_err("task 40 panics");
            assert!(message.downcast_ref::<String>().expect("a formatted message").contains("task 40"));
            assert_eq!(pool.map(3, |i| i), [0, 1, 2]);
        }
    }

    #[test]
    fn of_several_failures_the_first_chunks_is_told() {
        let fails = |i: usize, chunk: &mut [usize]| {
            chunk.fill(i);
            if i < 3 { Ok(()) } else { Err(i) }
        };
        for threads in 1..5 {
            let mut values = vec![0; 100];
            assert_eq!(Pool::new(threads).try_for_each_chunk_mut(&mut values, 2, fails), Err(3));
            assert!(values.iter().enumerate().all(|(i, value)| *value == i / 2), "every chunk got its task");
            assert_eq!(Pool::new(threads).try_for_each_chunk_mut(&mut values[..6], 2, fails), Ok(()));
        }
    }

    #[test]
    fn chunks_cover_the_slice_and_the_last_may_be_short() {
        let pool = Pool::new(2);
        let mut values = vec![0_usize; 10];
        pool.for_each_chunk_mut(&mut values, 4, |i, chunk| {
            let value = 100 * i + chunk.len();
            chunk.fill(value);
        });
        assert_eq!(values, [4, 4, 4, 4, 104, 104, 104, 104, 202, 202]);
        pool.for_each_chunk_mut(&mut [0_u8; 0], 4, |_, _| unreachable!("no chunk of nothing"));
    }
}
