//! How much of answers with many values is held at a time. Requests are bounded in number, and one
//! value is small; so many pages are not.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use plinth_api::ErrorCode;
use plinth_service::Failure;
use plinth_types::VALUE_LIMIT;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

/// What is counted together, in bytes.
const UNIT: usize = 1 << 10;

/// Bytes of keys and values that answers may have at a time, counted at the most they can have before
/// anything is read, and until they are sent. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Room {
    units: Arc<Semaphore>,
    bytes: usize,
}

/// A part of the room.
#[derive(Debug, Default)]
pub(crate) struct Taken {
    _units: Option<OwnedSemaphorePermit>,
}

impl Room {
    pub(crate) fn new(bytes: usize) -> Room {
        Room { units: Arc::new(Semaphore::new(bytes / UNIT)), bytes }
    }

    /// Waits for room, in the order of requests. One value needs none.
    ///
    /// # Errors
    /// `overloaded` where there is none in time.
    pub(crate) async fn take(&self, bytes: usize, within: Duration) -> Result<Taken, Failure> {
        if bytes <= VALUE_LIMIT {
            return Ok(Taken::default());
        }
        let units = u32::try_from(bytes.min(self.bytes) / UNIT).unwrap_or(u32::MAX);
        let units = Arc::clone(&self.units).acquire_many_owned(units);
        let Ok(Ok(units)) = timeout(within, units).await else {
            let detail = format!(
                "answers that are under way here may have {} bytes, which is all there is room for: \
                 read less at a time, or try again shortly",
                self.bytes
            );
            return Err(Failure::new(ErrorCode::Overloaded, detail));
        };
        Ok(Taken { _units: Some(units) })
    }
}

impl Taken {
    /// The same answer, which keeps its room until it is sent or given up.
    pub(crate) fn until_sent(self, response: Response) -> Response {
        response.map(|body| Body::new(Held { body, _taken: self }))
    }
}

/// A body with its room.
struct Held {
    body: Body,
    _taken: Taken,
}

impl http_body::Body for Held {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use axum::response::IntoResponse as _;
    use http_body::Body as _;

    use super::*;

    const SHORT: Duration = Duration::from_millis(10);

    #[tokio::test(start_paused = true)]
    async fn large_answers_wait_for_each_other_until_they_are_sent() {
        let room = Room::new(16 << 20);
        let first = room.take(8 << 20, SHORT).await.expect("room");
        let second = room.take(8 << 20, SHORT).await.expect("room");
        let refused = room.take(VALUE_LIMIT + UNIT, SHORT).await.expect_err("no room");
        assert_eq!(refused.0.code, ErrorCode::Overloaded);
        room.take(VALUE_LIMIT, SHORT).await.expect("one value needs none");

        let answer = first.until_sent("said".into_response());
        assert_eq!(answer.body().size_hint().exact(), Some(4), "its length is known");
        room.take(8 << 20, SHORT).await.expect_err("it is not sent yet");
        drop(answer);
        room.take(8 << 20, SHORT).await.expect("room again");
        drop(second);
        room.take(1 << 30, SHORT).await.expect("the whole room is enough for any");
    }
}
