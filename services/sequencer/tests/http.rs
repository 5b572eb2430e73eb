//! The sequencer alone, over HTTP.

use std::time::Duration;

use plinth_api::sequencer::{
    ASSIGN, Assignment, COMMIT_VERSION, COMMITTED, CommitVersion, CommitVersionRequest,
    CommittedRequest, READ_VERSION, ReadVersionQuery, STATUS,
};
use plinth_api::{Endpoint, ErrorCode, Nothing, Target};
use plinth_runtime::{Runtime, Scope};
use plinth_sequencer::Config;
use plinth_service::{Host, HostOptions, Peers, Secrets, Sender, Transport};
use plinth_types::{Epoch, Incarnation, VERSION_GAP, Version};
use serde::Serialize;
use serde::de::DeserializeOwned;

const RV: Version = Version(1_000);
const FIRST: Version = Version(1_000 + VERSION_GAP);

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

fn assignment(epoch: Epoch, director: u64) -> Assignment {
    Assignment {
        epoch,
        director: Incarnation(director),
        recovery_version: RV,
        first_version: FIRST,
    }
}

#[tokio::test]
async fn an_epoch_from_assignment_to_read_version() {
    let (scope, _end) = Scope::new();
    let options = HostOptions {
        service: "sequencer-1@node-1".parse().unwrap(),
        bind: "127.0.0.1:0".to_owned(),
        advertise: None,
        cluster: None,
        secrets: Secrets::default(),
    };
    let host = Host::bind(Runtime::real(), options).await.unwrap();
    let context = host.context();
    let target = Target::from(context.pid());
    let service = scope.spawn("sequencer", plinth_sequencer::serve(host, Config::default()));
    let sender = Sender {
        service: Some("commit-proxy-1@node-1".parse().unwrap()),
        secrets: Secrets::default(),
    };
    let transport = Transport::new(Runtime::real(), scope.clone(), &sender);
    let proxy = Asker { peers: Peers::new(transport), target: target.clone() };
    let nobody = Transport::new(Runtime::real(), scope.clone(), &Sender::default());
    let nobody = Asker { peers: Peers::new(nobody), target };

    let epoch = Epoch(3);
    let request = CommitVersionRequest { epoch, proxy: Incarnation(1), request: 1 };
    assert_eq!(proxy.ask(&COMMIT_VERSION, &request).await, Err(ErrorCode::NotReady));
    assert_eq!(nobody.ask(&ASSIGN, &assignment(epoch, 7)).await, Err(ErrorCode::Unauthenticated));
    assert_eq!(proxy.ask(&ASSIGN, &assignment(epoch, 7)).await, Ok(Nothing {}));
    assert_eq!(proxy.ask(&ASSIGN, &assignment(epoch, 8)).await, Err(ErrorCode::Superseded));
    assert_eq!(proxy.ask(&ASSIGN, &assignment(Epoch(2), 7)).await, Err(ErrorCode::StaleEpoch));

    let first = CommitVersion { prev: RV, version: FIRST };
    assert_eq!(proxy.ask(&COMMIT_VERSION, &request).await, Ok(first));
    assert_eq!(proxy.ask(&COMMIT_VERSION, &request).await, Ok(first), "the same request");
    let second = CommitVersionRequest { request: 2, ..request };
    assert_eq!(proxy.ask(&COMMIT_VERSION, &second).await.unwrap().prev, FIRST);

    let read = ReadVersionQuery { epoch };
    assert_eq!(proxy.ask(&READ_VERSION, &read).await.unwrap().version, RV);
    let report = CommittedRequest { epoch, version: FIRST };
    assert_eq!(proxy.ask(&COMMITTED, &report).await.unwrap().version, FIRST);
    assert_eq!(proxy.ask(&READ_VERSION, &read).await.unwrap().version, FIRST);
    let stale = ReadVersionQuery { epoch: Epoch(2) };
    assert_eq!(proxy.ask(&READ_VERSION, &stale).await, Err(ErrorCode::StaleEpoch));
    assert_eq!(nobody.ask(&STATUS, &Nothing {}).await.unwrap().committed, FIRST);

    context.request_stop();
    let exit = service.await.unwrap().unwrap();
    assert_eq!(exit.status, 0, "{exit:?}");
}
