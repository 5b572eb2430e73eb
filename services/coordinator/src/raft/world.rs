//! The world as openraft sees it: tasks in the service's scope, tokio's clock, and the runtime's
//! randomness, so that a simulation decides all three.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use openraft::{AsyncRuntime, OptionalSend, TokioInstant, TokioRuntime};
use plinth_runtime::{Random, Runtime, Scope};
use rand_core_06::{Error, RngCore};

tokio::task_local! {
    static RANDOM: Arc<dyn Random>;
}

/// Runs a future, and whatever openraft spawns from it, with this source of randomness.
pub(crate) async fn with_random<F: Future>(random: Arc<dyn Random>, future: F) -> F::Output {
    RANDOM.scope(random, future).await
}

/// A source of randomness. Outside of [`with_random`] it is the operating system's.
fn random() -> Arc<dyn Random> {
    RANDOM.try_with(Arc::clone).unwrap_or_else(|_| Runtime::real().random())
}

/// The runtime's randomness in the form that openraft takes.
pub(crate) struct WorldRng(Arc<dyn Random>);

impl RngCore for WorldRng {
    fn next_u32(&mut self) -> u32 {
        (self.0.next_u64() >> 32) as u32
    }

    fn next_u64(&mut self) -> u64 {
        self.0.next_u64()
    }

    fn fill_bytes(&mut self, bytes: &mut [u8]) {
        rand_core_06::impls::fill_bytes_via_next(self, bytes);
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Error> {
        self.fill_bytes(bytes);
        Ok(())
    }
}

/// Why a task gave no result.
#[derive(Debug, thiserror::Error)]
pub(crate) enum JoinError {
    /// Its scope has ended, or it panicked; the scope reports which.
    #[error("the task's scope has ended")]
    Ended,
    /// The runtime has ended it.
    #[error(transparent)]
    Runtime(#[from] tokio::task::JoinError),
}

/// A task's result.
pub(crate) struct JoinHandle<T>(tokio::task::JoinHandle<Option<T>>);

impl<T> Future for JoinHandle<T> {
    type Output = Result<T, JoinError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(context).map(|result| result?.ok_or(JoinError::Ended))
    }
}

/// Our [`AsyncRuntime`].
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct World;

impl AsyncRuntime for World {
    type JoinError = JoinError;
    type JoinHandle<T: OptionalSend + 'static> = JoinHandle<T>;
    type Sleep = tokio::time::Sleep;
    type Instant = TokioInstant;
    type TimeoutError = tokio::time::error::Elapsed;
    type Timeout<R, T: Future<Output = R> + OptionalSend> = tokio::time::Timeout<T>;
    type ThreadLocalRng = WorldRng;
    type OneshotSender<T: OptionalSend> = <TokioRuntime as AsyncRuntime>::OneshotSender<T>;
    type OneshotReceiver<T: OptionalSend> = tokio::sync::oneshot::Receiver<T>;
    type OneshotReceiverError = tokio::sync::oneshot::error::RecvError;

    fn spawn<T>(future: T) -> Self::JoinHandle<T::Output>
    where
        T: Future + OptionalSend + 'static,
        T::Output: OptionalSend + 'static,
    {
        let task = with_random(random(), future);
        JoinHandle(match Scope::current() {
            Some(scope) => scope.spawn("raft", task),
            // Outside of a service a task has a scope of its own, which ends with it.
            None => {
                let (scope, guard) = Scope::new();
                scope.spawn("raft", async move {
                    let _guard = guard;
                    task.await
                })
            }
        })
    }

    fn sleep(duration: Duration) -> Self::Sleep {
        tokio::time::sleep(duration)
    }

    fn sleep_until(deadline: Self::Instant) -> Self::Sleep {
        tokio::time::sleep_until(deadline)
    }

    fn timeout<R, F: Future<Output = R> + OptionalSend>(
        duration: Duration,
        future: F,
    ) -> Self::Timeout<R, F> {
        tokio::time::timeout(duration, future)
    }

    fn timeout_at<R, F: Future<Output = R> + OptionalSend>(
        deadline: Self::Instant,
        future: F,
    ) -> Self::Timeout<R, F> {
        tokio::time::timeout_at(deadline, future)
    }

    fn is_panic(error: &Self::JoinError) -> bool {
        matches!(error, JoinError::Runtime(error) if error.is_panic())
    }

    fn thread_rng() -> Self::ThreadLocalRng {
        WorldRng(random())
    }

    fn oneshot<T>() -> (Self::OneshotSender<T>, Self::OneshotReceiver<T>)
    where
        T: OptionalSend,
    {
        TokioRuntime::oneshot()
    }
}

impl fmt::Debug for WorldRng {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WorldRng")
    }
}
