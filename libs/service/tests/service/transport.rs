//! Calls to peers: what can go wrong, told apart.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use plinth_api::common::INFO;
use plinth_api::{Nothing, Target, TransportError};
use plinth_runtime::{Runtime, Scope, ScopeGuard, Stream};
use plinth_service::{Secrets, Sender};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::sync::mpsc;

use crate::fixture::{Asker, PATIENCE, host, host_with, secret, within};

/// A peer that does as the test says with each connection.
struct Peer {
    url: String,
    address: String,
    accepted: Arc<AtomicUsize>,
    _life: ScopeGuard,
}

async fn peer<F>(serve: impl Fn(Stream) -> F + Send + 'static) -> Peer
where
    F: Future<Output = io::Result<()>> + Send + 'static,
{
    let mut listener = Runtime::real().network().bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let accepted = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&accepted);
    let (scope, life) = Scope::new();
    let inner = scope.clone();
    drop(scope.spawn("peer", async move {
        while let Ok((stream, _)) = listener.accept().await {
            count.fetch_add(1, Ordering::SeqCst);
            drop(inner.spawn("conversation", serve(stream)));
        }
    }));
    Peer { url: format!("http://{address}/"), address, accepted, _life: life }
}

async fn request_head(stream: &mut BufReader<Stream>) -> io::Result<Vec<String>> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if line.trim().is_empty() {
            return Ok(lines);
        }
        lines.push(line.trim().to_owned());
    }
}

async fn try_get(peer: &Peer, limit: Duration) -> Result<http::StatusCode, TransportError> {
    let request = Request::get(&peer.url).body(Bytes::new()).unwrap();
    Asker::anonymous().try_ask(request, limit).await.map(|answer| answer.status())
}

#[tokio::test]
async fn nobody_listening_is_a_failed_connection() {
    let closed = peer(async |_| Ok(())).await;
    let Peer { url, address, _life, .. } = closed;
    drop(_life);
    let answer = async {
        // The port is free once the peer's task has ended.
        loop {
            let request = Request::get(&url).body(Bytes::new()).unwrap();
            match Asker::anonymous().try_ask(request, PATIENCE).await {
                Err(TransportError::Connect { peer, .. }) => return peer,
                _ => tokio::task::yield_now().await,
            }
        }
    };
    assert_eq!(within(answer).await, address);
}

#[tokio::test]
async fn a_peer_that_never_answers_is_a_timeout() {
    let mute =
        peer(async |mut stream: Stream| stream.read_to_end(&mut Vec::new()).await.map(|_| ()))
            .await;
    let error = try_get(&mute, Duration::from_millis(50)).await.unwrap_err();
    assert_eq!(error, TransportError::Timeout { peer: mute.address, after_ms: 50 });
}

#[tokio::test]
async fn a_peer_that_stops_within_its_answer_is_a_timeout() {
    let halting = peer(async |stream: Stream| {
        let mut stream = BufReader::new(stream);
        request_head(&mut stream).await?;
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf").await?;
        stream.flush().await?;
        stream.read_to_end(&mut Vec::new()).await.map(|_| ())
    })
    .await;
    let error = try_get(&halting, Duration::from_millis(50)).await.unwrap_err();
    assert!(matches!(error, TransportError::Timeout { .. }), "{error:?}");
}

#[tokio::test]
async fn a_peer_that_hangs_up_breaks_the_connection() {
    let answers: [&[u8]; 3] =
        [b"", b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf", b"rubbish\r\n\r\n"];
    for answer in answers {
        let rude = peer(move |stream: Stream| async move {
            let mut stream = BufReader::new(stream);
            request_head(&mut stream).await?;
            stream.write_all(answer).await?;
            stream.shutdown().await
        })
        .await;
        let error = try_get(&rude, PATIENCE).await.unwrap_err();
        assert!(matches!(error, TransportError::Broken { .. }), "{error:?}");
        assert_eq!(rude.accepted.load(Ordering::SeqCst), 1, "it may have had an effect: once only");
    }
}

#[tokio::test]
async fn connections_are_kept_and_a_dead_one_is_replaced() {
    let (closed, mut was_closed) = mpsc::unbounded_channel();
    // Answers two requests, then hangs up, and tells when the other side has noticed.
    let polite = peer(move |stream: Stream| {
        let closed = closed.clone();
        async move {
            let mut stream = BufReader::new(stream);
            for _ in 0..2 {
                request_head(&mut stream).await?;
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}").await?;
                stream.flush().await?;
            }
            stream.shutdown().await?;
            stream.read_to_end(&mut Vec::new()).await?;
            closed.send(()).map_err(io::Error::other)
        }
    })
    .await;
    let asker = Asker::anonymous();
    for connections in 1..=3 {
        for _ in 0..2 {
            assert_eq!(asker.get(polite.url.clone()).await.status(), 200);
            assert_eq!(polite.accepted.load(Ordering::SeqCst), connections);
        }
        within(was_closed.recv()).await.unwrap();
    }
}

#[tokio::test]
async fn a_service_proves_itself_to_its_peers() {
    let secrets =
        Secrets { cluster: Some(secret("the-cluster's-own-secret")), administrator: None };
    let (caller, callee) = (host_with(secrets.clone()).await, host_with(secrets).await);
    let client = caller.context.peers();
    let told = client.call(&callee.target(), &INFO, &Nothing {}, None, PATIENCE).await.unwrap();
    assert_eq!(told.pid, *callee.context.pid());

    let heads = Arc::new(std::sync::Mutex::new(Vec::new()));
    let seen = Arc::clone(&heads);
    let recorder = peer(move |stream: Stream| {
        let seen = Arc::clone(&seen);
        async move {
            let mut stream = BufReader::new(stream);
            let head = request_head(&mut stream).await?;
            seen.lock().unwrap().extend(head);
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}").await?;
            stream.flush().await
        }
    })
    .await;
    let target = Target::address(&recorder.address);
    // The answer is of no form that counts: the request is.
    let _ = client.call(&target, &INFO, &Nothing {}, None, PATIENCE).await;
    let heads = heads.lock().unwrap();
    assert_eq!(heads[0], "GET /v1/info HTTP/1.1");
    for wanted in [
        format!("host: {}", recorder.address),
        "plinth-from: storage-1@node-1".to_owned(),
        "plinth-secret: the-cluster's-own-secret".to_owned(),
        "plinth-cluster: 00000000000000000000000000000007".to_owned(),
    ] {
        assert!(heads.contains(&wanted), "{wanted} in {heads:#?}");
    }
    assert!(heads.iter().any(|line| line.starts_with("x-request-id: ")), "{heads:#?}");
}

#[tokio::test]
async fn a_command_sends_the_administrators_token_and_no_secret() {
    let token = secret("the-administrator's-token");
    let hosted = host_with(Secrets {
        cluster: Some(secret("the-cluster's-own-secret")),
        administrator: Some(token.clone()),
    })
    .await;
    let secrets = Secrets { cluster: None, administrator: Some(token) };
    let command = Asker::new(&Sender { service: None, secrets });
    let answer = command.get(hosted.url("/v1/for/administrator")).await;
    assert_eq!(answer.body().as_ref(), b"\"Administrator\"");
    let hosted = host().await;
    assert_eq!(command.get(hosted.url("/v1/for/administrator")).await.status(), 200);
}
