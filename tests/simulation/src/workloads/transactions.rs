//! The workloads of transactions ([`plinth_test_histories::workloads`]), over the simulated network.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt as _};
use plinth_api::TransportError;
use plinth_test_histories::users::{Answer, Lost, User, World};

use crate::scene::Scene;

/// The longest pause between two transactions of a user.
const PAUSE: Duration = Duration::from_millis(120);

/// A user of the scene's gateways.
pub(crate) fn user(scene: &Scene) -> User {
    User::new(Arc::new(Gateways(scene.clone())), scene.journal.clone(), "users")
}

struct Gateways(Scene);

impl World for Gateways {
    fn gateways(&self) -> usize {
        self.0.gateways.len()
    }

    fn random(&self) -> u64 {
        self.0.random.next_u64()
    }

    fn is_working(&self) -> bool {
        self.0.is_working()
    }

    fn pause(&self) -> Duration {
        PAUSE.saturating_mul(self.0.pace)
    }

    fn post(
        &self,
        gateway: usize,
        path: String,
        body: Bytes,
    ) -> BoxFuture<'static, Result<Answer, Lost>> {
        let gateway = self.0.gateways[gateway].1.clone();
        async move {
            match gateway.post(&path, body).await {
                Ok(answer) => {
                    Ok(Answer { status: answer.status().as_u16(), body: answer.into_body() })
                }
                Err(error @ TransportError::Connect { .. }) => {
                    Err(Lost::NotSent(error.to_string()))
                }
                Err(error) => Err(Lost::Unanswered(error.to_string())),
            }
        }
        .boxed()
    }
}
