//! A service's task tree: everything that it spawns dies with it, and a panic in any of its tasks
//! is the service's failure, nobody else's.

use std::any::Any;
use std::future::Future;
use std::panic::AssertUnwindSafe;

use futures::FutureExt as _;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

tokio::task_local! {
    static CURRENT: Scope;
}

/// A task that panicked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("task {task} panicked: {message}")]
pub struct TaskFailure {
    /// The name it was spawned under.
    pub task: &'static str,
    /// What the panic said.
    pub message: String,
}

/// Where a service spawns its tasks. Cheap to clone; the [`ScopeGuard`] decides its end.
#[derive(Clone, Debug)]
pub struct Scope {
    end: CancellationToken,
    failure: watch::Sender<Option<TaskFailure>>,
}

/// Ends the scope's tasks when it is dropped.
#[derive(Debug)]
pub struct ScopeGuard(Scope);

impl Scope {
    /// A new scope and what ends it.
    #[must_use]
    pub fn new() -> (Scope, ScopeGuard) {
        let scope = Scope { end: CancellationToken::new(), failure: watch::Sender::new(None) };
        (scope.clone(), ScopeGuard(scope))
    }

    /// The scope of the task that asks, if it was spawned in one.
    #[must_use]
    pub fn current() -> Option<Scope> {
        CURRENT.try_with(Clone::clone).ok()
    }

    /// Starts a task. It is dropped, wherever it stands, when the scope ends.
    #[expect(clippy::disallowed_methods, reason = "this is what the others shall use")]
    pub fn spawn<F>(
        &self,
        name: &'static str,
        task: F,
    ) -> tokio::task::JoinHandle<Option<F::Output>>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let scope = self.clone();
        tokio::spawn(CURRENT.scope(self.clone(), async move {
            tokio::select! {
                biased;
                () = scope.end.cancelled() => None,
                result = AssertUnwindSafe(task).catch_unwind() => match result {
                    Ok(output) => Some(output),
                    Err(panic) => {
                        scope.fail(name, &*panic);
                        None
                    }
                },
            }
        }))
    }

    /// Runs a future as part of this scope, on the task that asks.
    pub async fn enter<F: Future>(&self, future: F) -> F::Output {
        CURRENT.scope(self.clone(), future).await
    }

    fn fail(&self, task: &'static str, panic: &(dyn Any + Send)) {
        let message = panic
            .downcast_ref::<&str>()
            .map(|text| (*text).to_owned())
            .or_else(|| panic.downcast_ref::<String>().cloned())
            .unwrap_or_else(|| "no message".to_owned());
        self.failure.send_if_modified(|first| {
            let is_first = first.is_none();
            if is_first {
                *first = Some(TaskFailure { task, message });
            }
            is_first
        });
    }

    /// Waits for the first panic among the scope's tasks.
    pub async fn failed(&self) -> TaskFailure {
        let mut failure = self.failure.subscribe();
        loop {
            if let Some(first) = failure.borrow_and_update().clone() {
                return first;
            }
            if failure.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Waits for the scope's end.
    pub async fn ended(&self) {
        self.end.cancelled().await;
    }
}

impl Drop for ScopeGuard {
    fn drop(&mut self) {
        self.0.end.cancel();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[tokio::test]
    async fn a_panic_is_reported_and_the_end_drops_every_task() {
        let (scope, guard) = Scope::new();
        let held = Arc::new(());
        let inner = Arc::clone(&held);
        let waiting = scope.spawn("waiting", async move {
            let _held = inner;
            std::future::pending::<()>().await;
        });
        let _ = scope.spawn("panicking", async { panic!("on purpose") }).await;
        assert_eq!(
            scope.failed().await,
            TaskFailure { task: "panicking", message: "on purpose".to_owned() }
        );
        drop(guard);
        assert_eq!(waiting.await.expect("not aborted"), None);
        assert_eq!(Arc::strong_count(&held), 1);
    }

    #[tokio::test]
    async fn tasks_know_their_scope() {
        let (scope, _guard) = Scope::new();
        assert!(Scope::current().is_none());
        let nested = scope.spawn("outer", async { Scope::current().is_some() }).await;
        assert_eq!(nested.expect("ran"), Some(true));
    }
}
