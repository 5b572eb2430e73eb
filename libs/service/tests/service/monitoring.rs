//! The monitor stream, from both ends.

use std::time::Duration;

use plinth_api::Target;
use plinth_api::common::MonitorLine;
use plinth_runtime::Runtime;
use plinth_service::{Exit, MonitorEnd, watch};
use plinth_types::{Epoch, Incarnation};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::fixture::{Hosted, PATIENCE, host, within};

/// Longer than any test: an end that is seen was seen because the stream ended.
const SILENCE: Duration = PATIENCE;

type Watched = (mpsc::UnboundedReceiver<MonitorLine>, tokio::task::JoinHandle<Option<MonitorEnd>>);

fn watched(watcher: &Hosted, target: Target) -> Watched {
    let (lines, received) = mpsc::unbounded_channel();
    let context = watcher.context.clone();
    let task =
        async move { watch(&context, &target, || SILENCE, |line| lines.send(line).unwrap()).await };
    (received, watcher.context.scope().spawn("watch", task))
}

#[tokio::test]
async fn a_change_is_seen_and_lines_keep_coming() {
    let (watcher, hosted) = (host().await, host().await);
    let (mut lines, _end) = watched(&watcher, hosted.target());
    let first = within(lines.recv()).await.unwrap();
    assert_eq!((first.epoch, first.state.as_str()), (Epoch(0), "starting"));
    hosted.context.set_epoch(Epoch(4));
    hosted.context.set_state("locking");
    let wanted = MonitorLine { epoch: Epoch(4), state: "locking".to_owned(), exit: None };
    while within(lines.recv()).await.unwrap() != wanted {}
    for _ in 0..3 {
        assert_eq!(within(lines.recv()).await.unwrap(), wanted);
    }
}

#[tokio::test]
async fn an_exit_gives_its_reason_as_the_last_line() {
    let (watcher, hosted) = (host().await, host().await);
    let (mut lines, end) = watched(&watcher, hosted.target());
    within(lines.recv()).await.unwrap();
    hosted.end.send(Exit::failure("log-2@node-2 is gone")).unwrap();
    let end = within(end).await.unwrap().unwrap();
    assert_eq!(end, MonitorEnd::Exited { reason: "log-2@node-2 is gone".to_owned() });
    assert_eq!(within(hosted.exit).await.unwrap(), Some(Exit::failure("log-2@node-2 is gone")));
}

#[tokio::test]
async fn a_killed_process_is_noticed_by_the_end_of_its_stream() {
    let (watcher, hosted) = (host().await, host().await);
    let (mut lines, end) = watched(&watcher, hosted.target());
    within(lines.recv()).await.unwrap();
    let killed = Instant::now();
    drop(hosted.life);
    let end = within(end).await.unwrap().unwrap();
    assert!(matches!(end, MonitorEnd::Gone { .. }), "{end:?}");
    assert!(killed.elapsed() < SILENCE / 4, "the end itself was seen, not silence");
}

#[tokio::test]
async fn nobody_there_or_somebody_else_is_gone() {
    let (watcher, hosted) = (host().await, host().await);
    let mut target = hosted.target();
    target.incarnation = Some(Incarnation(1));
    let (_lines, end) = watched(&watcher, target);
    let MonitorEnd::Gone { detail } = within(end).await.unwrap().unwrap() else { panic!() };
    assert!(detail.contains("wrong_incarnation"), "{detail}");

    let target = hosted.target();
    drop(hosted.life);
    within(hosted.exit).await.unwrap();
    let (_lines, end) = watched(&watcher, target);
    assert!(matches!(within(end).await.unwrap().unwrap(), MonitorEnd::Gone { .. }));
}

#[tokio::test]
async fn a_mute_process_is_silent_whether_it_answered_once_or_never() {
    let watcher = host().await;
    for head in ["", "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"] {
        let mut listener = Runtime::real().network().bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let mute = watcher.context.scope().spawn("mute", async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            assert!(stream.read(&mut [0; 4096]).await.unwrap() > 0);
            stream.write_all(head.as_bytes()).await.unwrap();
            // Reads until the watcher hangs up.
            stream.read_to_end(&mut Vec::new()).await.unwrap();
        });
        let silence = Duration::from_millis(50);
        let target = Target::address(&address);
        let end = watch(&watcher.context, &target, || silence, |_| ());
        assert_eq!(within(end).await, MonitorEnd::Silent { after: silence }, "{head:?}");
        assert_eq!(within(mute).await.unwrap(), Some(()), "the watcher hung up");
    }
}
