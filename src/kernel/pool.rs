//! The one thread pool of the arithmetic, sized once.
//!
//! Work is cut by its shape and never by the number of threads, and every output is written by one task, so results
//! do not depend on how many threads there are.

/// A fixed set of compute threads.
#[derive(Debug)]
pub struct Pool {
    threads: usize,
}

impl Pool {
    /// A pool of `threads` compute threads, the caller counted as one.
    pub fn new(threads: usize) -> Self {
        Self { threads: threads.max(1) }
    }

    /// Number of threads, the caller counted.
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// Calls `task(0) … task(tasks - 1)`, each once, on the pool's threads, and returns when all are done.
    pub fn run(&self, tasks: usize, task: impl Fn(usize) + Sync) {
        let next = std::sync::atomic::AtomicUsize::new(0);
        let work = || {
            loop {
                let i = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                if i >= tasks {
                    break;
                }
                task(i);
            }
        };
        std::thread::scope(|scope| {
            for _ in 1..self.threads.min(tasks) {
                scope.spawn(work);
            }
            work();
        });
    }

    /// The results of `task(0) … task(tasks - 1)`, in that order.
    pub fn map<R: Send>(&self, tasks: usize, task: impl Fn(usize) -> R + Sync) -> Vec<R> {
        let slots: Vec<std::sync::Mutex<Option<R>>> = (0..tasks).map(|_| Default::default()).collect();
        self.run(tasks, |i| *slots[i].lock().expect("not poisoned: set once") = Some(task(i)));
        slots.into_iter().map(|s| s.into_inner().expect("not poisoned").expect("every task ran")).collect()
    }

    /// Calls `task(i, chunk)` for each chunk of `chunk_len` values of `values` (the last may be shorter), in parallel.
    pub fn for_each_chunk_mut<T: Send>(
        &self,
        values: &mut [T],
        chunk_len: usize,
        task: impl Fn(usize, &mut [T]) + Sync,
    ) {
        let chunks: Vec<_> = values.chunks_mut(chunk_len).map(std::sync::Mutex::new).collect();
        self.run(chunks.len(), |i| task(i, &mut chunks[i].lock().expect("each chunk is locked once")));
    }
}
