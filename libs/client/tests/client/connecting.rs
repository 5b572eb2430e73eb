//! Programs from outside, which know an address and perhaps the secret.

use std::time::Duration;

use plinth_client::{ConnectError, Database, Runtime, Secret};
use plinth_service::Secrets;
use plinth_types::{Epoch, Key, Value};

use crate::world::{WITHIN, World};

async fn connect(urls: &[String], secret: Option<Secret>) -> Result<Database, ConnectError> {
    Database::connect(&Runtime::real(), urls, secret, WITHIN).await
}

#[tokio::test]
async fn one_address_that_answers_is_enough() {
    let world = World::new().await;
    world.appoint(Epoch(5), 0);
    // Where there is no secret, any is taken.
    let any = Some(Secret::generate(&Runtime::real()));
    let database = connect(&["http://127.0.0.1:1".to_owned(), world.url()], any).await.unwrap();
    // The connection lasts as long as any clone.
    let clone = database.clone();
    drop(database);
    let read = clone.get(&Key::from("k"), WITHIN).await.unwrap();
    assert_eq!(read.value, Some(Value::from("v")));
}

#[tokio::test]
async fn only_the_clusters_secret_is_taken() {
    let secret = Secret::generate(&Runtime::real());
    let secrets = Secrets { cluster: Some(secret.clone()), administrator: None };
    let world = World::with(secrets).await;
    world.appoint(Epoch(5), 0);
    let urls = [world.url()];
    let database = connect(&urls, Some(secret)).await.unwrap();
    assert!(database.get(&Key::from("k"), WITHIN).await.is_ok());
    for wrong in [None, Some(Secret::generate(&Runtime::real()))] {
        let refused = connect(&urls, wrong).await.err();
        assert!(matches!(refused, Some(ConnectError::Refused(_))), "{refused:?}");
    }
}

#[tokio::test]
async fn an_address_where_nobody_answers_is_named() {
    let none: [&str; 0] = [];
    let within = Duration::from_millis(100);
    let failed = Database::connect(&Runtime::real(), &none, None, within).await.err();
    assert!(matches!(failed, Some(ConnectError::NoAddress)), "{failed:?}");
    let nobody = ["http://127.0.0.1:1/"];
    let failed = Database::connect(&Runtime::real(), &nobody, None, within).await.err();
    assert!(failed.is_some_and(|error| error.to_string().contains("127.0.0.1:1:")));
}
