//! Requests that schemathesis makes of the documents, right and wrong ones: no answer is a server
//! error or undocumented, and every operation is reached.
//!
//! The services are alone, as in the other tests here, and whoever is let in may tell them anything:
//! a director's assignment that makes no sense ends a service, as it should, and then the next one
//! takes its place. A panic is never an answer. A gateway alone would say no more than that it is
//! alone, so it has a cluster.

use std::process::{Command, Stdio};

use plinth_service::Exit;
use plinth_test_contract::{Alone, Caller, Schemathesis};
use plinth_test_processes::cluster::free_port;
use plinth_test_processes::{Cluster, executable};
use plinth_types::ServiceKind;

async fn holds(kind: ServiceKind) {
    let service = Alone::start(kind).await.expect("a service");
    for caller in [Caller::Anonymous, Caller::Service] {
        let url = service.url().to_owned();
        // Services take more of each other than they promise, so that two releases get on.
        let arguments = ["--exclude-checks", "negative_data_rejection"].map(str::to_owned).to_vec();
        let run = Schemathesis { kind, url, caller, arguments };
        let result = tokio::task::spawn_blocking(move || run.run()).await.expect("no panic");
        result.unwrap_or_else(|report| panic!("{report}"));
    }
    for end in service.ends() {
        assert_ne!(end.status, Exit::PANIC, "{}", end.reason);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn coordinator() {
    holds(ServiceKind::Coordinator).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn director() {
    holds(ServiceKind::Director).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn foreman() {
    holds(ServiceKind::Foreman).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sequencer() {
    holds(ServiceKind::Sequencer).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn commit_proxy() {
    holds(ServiceKind::CommitProxy).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn resolver() {
    holds(ServiceKind::Resolver).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn log() {
    holds(ServiceKind::Log).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn storage() {
    holds(ServiceKind::Storage).await;
}

/// The operations that end the epoch under all others, and again before the next one is ready: they
/// come last. Whatever parameters are made of it, the cluster serves.
const ENDING: [&str; 2] = ["patch_config", "begin_recovery"];

#[test]
fn gateway() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut dev = Command::new(executable().expect("the executable"));
    let port = free_port().expect("a port").to_string();
    dev.args(["dev", "--nodes", "1", "--json", "--gateway-port", &port, "--data-dir"]);
    dev.arg(directory.path()).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let cluster = Cluster::run(dev, directory.path()).expect("a cluster");
    let token = std::fs::read_to_string(directory.path().join("admin-token")).expect("a token");
    let administrator = Caller::Administrator(token.trim().to_owned());
    for caller in [Caller::Anonymous, administrator.clone()] {
        let run = Schemathesis {
            kind: ServiceKind::Gateway,
            url: cluster.gateway().expect("a gateway").to_owned(),
            caller,
            arguments: ENDING
                .iter()
                .flat_map(|id| ["--exclude-operation-id".to_owned(), (*id).to_owned()])
                .collect(),
        };
        run.run().unwrap_or_else(|report| panic!("{report}"));
    }
    for operation in ENDING {
        for caller in [Caller::Anonymous, administrator.clone()] {
            let run = Schemathesis {
                kind: ServiceKind::Gateway,
                url: cluster.gateway().expect("a gateway").to_owned(),
                caller,
                arguments: vec!["--include-operation-id".to_owned(), operation.to_owned()],
            };
            run.run().unwrap_or_else(|report| panic!("{report}"));
        }
    }
    // Whatever it was asked, it serves.
    cluster.ready_above(0).expect("ready");
    cluster.put(cluster.gateway().expect("a gateway"), "after", "all").expect("a write");
    cluster.stop().expect("a clean stop");
}
