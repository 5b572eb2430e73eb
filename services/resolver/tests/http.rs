//! The resolver alone, over HTTP.

use std::time::Duration;

use plinth_api::resolver::{ASSIGN, Assignment, Footprint, RESOLVE, Resolution, STATUS, Verdict};
use plinth_api::{Endpoint, ErrorCode, Nothing, Target};
use plinth_resolver::Config;
use plinth_runtime::{Runtime, Scope};
use plinth_service::{Host, HostOptions, Peers, Secrets, Sender, Transport};
use plinth_types::{Epoch, Incarnation, Key, KeyRange, VERSION_GAP, Version};
use serde::Serialize;
use serde::de::DeserializeOwned;

const RV: Version = Version(1_000);
const FIRST: Version = Version(1_000 + VERSION_GAP);
const EPOCH: Epoch = Epoch(3);

#[derive(Clone)]
struct Asker {
    peers: Peers,
    target: Target,
}

impl Asker {
    async fn ask<Req: Serialize, Resp: DeserializeOwned>(
        &self,
        endpoint: &Endpoint<Req, Resp>,
        request: &Req,
    ) -> Result<Resp, ErrorCode> {
        let limit = Duration::from_secs(10);
        let answer = self.peers.call(&self.target, endpoint, request, None, limit).await;
        answer.map_err(|error| error.code().unwrap_or_else(|| panic!("{error}")))
    }
}

fn footprint(read: Option<(&str, Version)>, write: &str) -> Footprint {
    let single = |key: &str| KeyRange::single(&Key::from(key));
    Footprint {
        read_version: read.map(|(_, version)| version),
        reads: read.map(|(key, _)| single(key)).into_iter().collect(),
        writes: vec![single(write)],
    }
}

#[tokio::test]
async fn batches_are_decided_in_order_and_once() {
    let (scope, _end) = Scope::new();
    let options = HostOptions {
        service: "resolver-1@node-1".parse().unwrap(),
        bind: "127.0.0.1:0".to_owned(),
        advertise: None,
        cluster: None,
        secrets: Secrets::default(),
    };
    let host = Host::bind(Runtime::real(), options).await.unwrap();
    let context = host.context();
    let target = Target::from(context.pid());
    let service = scope.spawn("resolver", plinth_resolver::serve(host, Config::default()));
    let sender = Sender {
        service: Some("commit-proxy-1@node-1".parse().unwrap()),
        secrets: Secrets::default(),
    };
    let transport = Transport::new(Runtime::real(), scope.clone(), &sender);
    let proxy = Asker { peers: Peers::new(transport), target };

    let assignment = Assignment {
        epoch: EPOCH,
        director: Incarnation(7),
        recovery_version: RV,
        first_version: FIRST,
        range: KeyRange::all(),
        window_versions: 5_000_000,
    };
    assert_eq!(proxy.ask(&ASSIGN, &assignment).await, Ok(Nothing {}));
    let rival = Assignment { director: Incarnation(8), ..assignment.clone() };
    assert_eq!(proxy.ask(&ASSIGN, &rival).await, Err(ErrorCode::Superseded));

    // The second batch comes first, and waits for the first.
    let second = Resolution {
        epoch: EPOCH,
        prev: FIRST,
        version: FIRST.plus(5),
        transactions: vec![
            footprint(Some(("a", FIRST)), "x"),
            footprint(Some(("x", FIRST)), "y"),
            footprint(Some(("z", RV)), "z"),
        ],
    };
    let early = scope.spawn("early", {
        let (proxy, second) = (proxy.clone(), second.clone());
        async move { proxy.ask(&RESOLVE, &second).await }
    });
    let first = Resolution {
        epoch: EPOCH,
        prev: RV,
        version: FIRST,
        transactions: vec![footprint(None, "a")],
    };
    assert_eq!(proxy.ask(&RESOLVE, &first).await.unwrap().verdicts, [Verdict::Commit]);
    let verdicts = early.await.unwrap().unwrap().unwrap();
    assert_eq!(verdicts.verdicts, [Verdict::Commit, Verdict::Conflict, Verdict::TooOld]);
    assert_eq!(proxy.ask(&RESOLVE, &second).await, Ok(verdicts), "the same batch");

    let stale = Resolution { epoch: Epoch(2), ..first };
    assert_eq!(proxy.ask(&RESOLVE, &stale).await, Err(ErrorCode::StaleEpoch));
    assert_eq!(proxy.ask(&STATUS, &Nothing {}).await.unwrap().version, FIRST.plus(5));

    context.request_stop();
    let exit = service.await.unwrap().unwrap();
    assert_eq!(exit.status, 0, "{exit:?}");
}
