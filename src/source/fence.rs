//! A fence around the reading of one file: a panic in a third-party decoder becomes an error of that file.
//!
//! On a damaged file, some decoders index past an end or ask for more memory than there is. That ends the reading of
//! the file and not the run, and only our own message reaches the terminal.

use std::any::Any;
use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::pin::pin;
use std::sync::Once;
use std::task::Poll;

use super::bad::shown;
use crate::error::{Error, Result};

thread_local! {
    /// True while this thread is inside a fence, where panics are not printed.
    static FENCED: Cell<bool> = const { Cell::new(false) };
}

/// Keeps the panics of this thread from being printed for as long as it lives.
struct Quiet {
    before: bool,
}

impl Quiet {
    fn enter() -> Self {
        static HOOK: Once = Once::new();
        HOOK.call_once(|| {
            let loud = take_hook();
            set_hook(Box::new(move |panic| {
                // A thread that is ending has no thread-locals left, and is in no fence.
                if !FENCED.try_with(Cell::get).unwrap_or(false) {
                    loud(panic);
                }
            }));
        });
        Self { before: FENCED.replace(true) }
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        FENCED.set(self.before);
    }
}

/// The result of `work`, or the message with which it panicked: one line, not too long. The caller must drop whatever
/// `work` was changing.
pub fn caught<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    let _quiet = Quiet::enter();
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic| message_of(&*panic))
}

/// Runs `work`, which reads `file`.
///
/// # Errors
/// What `work` returns; kind `Input`, naming the file, if it panics.
///
/// ```
/// use dacpipe::source::fence::fenced;
/// let first = |bytes: &[u8]| fenced("a.bin", || Ok(bytes[0]));
/// assert_eq!(first(&[7])?, 7);
/// assert!(first(&[]).unwrap_err().to_string().starts_with("a.bin: damaged: its decoder gave up"));
/// # Ok::<(), dacpipe::Error>(())
/// ```
pub fn fenced<T>(file: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    caught(work).unwrap_or_else(|message| Err(gave_up(file, &message)))
}

/// [`fenced`] for work that waits in between.
///
/// # Errors
/// As [`fenced`].
pub async fn fenced_async<T>(file: &str, work: impl Future<Output = Result<T>>) -> Result<T> {
    let mut work = pin!(work);
    // A future that panicked is not polled again: the error returned here ends it.
    poll_fn(|cx| match caught(|| work.as_mut().poll(cx)) {
        Ok(poll) => poll,
        Err(message) => Poll::Ready(Err(gave_up(file, &message))),
    })
    .await
}

fn gave_up(file: &str, message: &str) -> Error {
    Error::input(format!("{file}: damaged: its decoder gave up ({message})"))
}

fn message_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    shown(text.unwrap_or("for a reason of its own").as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Kind;

    #[test]
    fn a_panic_is_an_error_of_the_file() {
        let e = fenced::<()>("d/a.bin", || panic!("index {} out of range", 7)).unwrap_err();
        assert_eq!(e.kind(), Kind::Input);
        assert_eq!(e.to_string(), "d/a.bin: damaged: its decoder gave up (\"index 7 out of range\")");
        let long = "x".repeat(1 << 20);
        let e = fenced::<()>("a", || panic!("{long}\x1b[2J")).unwrap_err().to_string();
        assert!(e.len() < 200 && !e.contains('\x1b'), "{e}");
        let e = fenced::<()>("a", || Err(Error::io("no disk"))).unwrap_err();
        assert_eq!((e.kind(), e.to_string().as_str()), (Kind::Io, "no disk"));
        assert_eq!(fenced("a", || Ok(1)).unwrap(), 1);
    }

    #[test]
    fn a_fence_in_a_fence_leaves_the_outer_one_standing() {
        let inner = fenced("outer", || {
            assert!(fenced::<()>("inner", || panic!("one")).is_err());
            assert!(FENCED.get());
            Ok(())
        });
        assert!(inner.is_ok() && !FENCED.get());
    }

    #[tokio::test]
    async fn work_that_waits_is_fenced_at_every_step() {
        let e = fenced_async::<()>("a", async {
            tokio::task::yield_now().await;
            panic!("late")
        });
        assert!(e.await.unwrap_err().to_string().contains("\"late\""));
        assert!(!FENCED.get());
    }
}
