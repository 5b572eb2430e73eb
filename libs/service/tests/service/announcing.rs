//! Announcing oneself to a foreman.

use std::sync::{Arc, Mutex};

use axum::extract::State;
use plinth_api::Target;
use plinth_api::foreman::{Announcement, Welcome};
use plinth_runtime::{Runtime, Scope};
use plinth_service::{Answer, Exit, Host, HostOptions, Json, Routes, Secrets, announce};
use plinth_types::{ClusterId, StoreId};
use tokio::sync::{mpsc, watch};
use utoipa_axum::routes;

use crate::fixture::within;

type Announcements = mpsc::UnboundedSender<Announcement>;
type Foreman = (Announcements, Arc<Mutex<Welcome>>);

#[utoipa::path(post, path = "/v1/workers/announce", request_body = Announcement, responses((status = 200, body = Welcome)))]
async fn take(
    State((announcements, welcome)): State<Foreman>,
    Json(announcement): Json<Announcement>,
) -> Answer<Welcome> {
    announcements.send(announcement).unwrap();
    Ok(Json(welcome.lock().unwrap().clone()))
}

fn options(service: &str) -> HostOptions {
    HostOptions {
        service: service.parse().unwrap(),
        bind: "127.0.0.1:0".to_owned(),
        advertise: None,
        cluster: None,
        secrets: Secrets::default(),
    }
}

#[tokio::test]
async fn a_worker_announces_itself_until_it_has_a_cluster_and_again_with_its_store() {
    let (announcements, mut received) = mpsc::unbounded_channel();
    let welcome = Arc::new(Mutex::new(Welcome::default()));
    let foreman = Host::bind(Runtime::real(), options("foreman-1@node-1")).await.unwrap();
    let target = Target::from(foreman.context().pid());
    let routes =
        Routes::new().service(routes!(take)).with_state((announcements, Arc::clone(&welcome)));
    let (scope, _life) = Scope::new();
    drop(scope.spawn("foreman", foreman.run(routes, std::future::pending::<Exit>())));

    let worker = Host::bind(Runtime::real(), options("log-1@node-1")).await.unwrap();
    let context = worker.context();
    let (store, announced) = watch::channel(None);
    let mut welcomed = announce(&context, target, announced);

    let first = within(received.recv()).await.unwrap();
    assert_eq!((first.name, first.store), (context.service().name, None));
    assert_eq!(first.pid, *context.pid());
    within(welcomed.wait_for(|answer| *answer == Some(Welcome::default()))).await.unwrap();
    assert_eq!(context.cluster(), None);

    let cluster = Some(ClusterId(9));
    *welcome.lock().unwrap() = Welcome { cluster, ..Welcome::default() };
    within(welcomed.wait_for(|answer| *answer == Some(Welcome { cluster, ..Welcome::default() })))
        .await
        .unwrap();
    assert_eq!(context.cluster(), cluster);

    store.send_replace(Some(StoreId(5)));
    while within(received.recv()).await.unwrap().store != Some(StoreId(5)) {}
}
