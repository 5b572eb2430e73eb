//! How a host ends, and what it leaves behind.

use bytes::Bytes;
use http::Request;
use plinth_runtime::Runtime;
use plinth_service::{Exit, Host, HostError, Secrets};

use crate::fixture::{Asker, Counted, Hosted, PATIENCE, host, options, routes, within};

async fn exit_of(hosted: Hosted) -> Exit {
    within(hosted.exit).await.unwrap().unwrap()
}

/// Calls a route that ends the service; whether an answer still comes is not the point.
async fn provoke(hosted: &Hosted, path: &str) {
    let request = Request::post(hosted.url(path)).header("plinth-from", "director-1@node-1");
    let _ = Asker::anonymous().try_ask(request.body(Bytes::new()).unwrap(), PATIENCE).await;
}

#[tokio::test]
async fn a_panic_in_a_task_ends_the_host_with_a_reason() {
    let hosted = host().await;
    provoke(&hosted, "/v1/panic_in_task").await;
    let reason = "fragile panicked: on purpose".to_owned();
    assert_eq!(exit_of(hosted).await, Exit { status: Exit::PANIC, reason });
}

#[tokio::test]
async fn a_panic_in_a_handler_ends_the_host_with_a_reason() {
    let hosted = host().await;
    provoke(&hosted, "/v1/panic").await;
    let reason = "connection panicked: a handler's panic".to_owned();
    assert_eq!(exit_of(hosted).await, Exit { status: Exit::PANIC, reason });
}

#[tokio::test]
async fn a_panic_in_main_is_an_exit_too() {
    let host = Host::bind(Runtime::real(), options(Secrets::default())).await.unwrap();
    let counted = Counted { context: host.context(), handled: Default::default() };
    let exit = within(host.run(routes(counted), async { panic!("lost my head") })).await;
    let reason = "the main task panicked: lost my head".to_owned();
    assert_eq!(exit, Exit { status: Exit::PANIC, reason });
}

#[tokio::test]
async fn who_does_not_wait_for_the_stop_is_stopped_at_once() {
    let hosted = host().await;
    hosted.context.request_stop();
    assert_eq!(exit_of(hosted).await, Exit::clean());
}

#[tokio::test]
async fn who_waits_for_the_stop_ends_by_itself() {
    let host = Host::bind(Runtime::real(), options(Secrets::default())).await.unwrap();
    let context = host.context();
    let counted = Counted { context: context.clone(), handled: Default::default() };
    let main = async {
        context.request_stop();
        context.stopping().await;
        tokio::task::yield_now().await;
        Exit::failure("a worker would not end")
    };
    let exit = within(host.run(routes(counted), main)).await;
    assert_eq!(exit, Exit::failure("a worker would not end"));
}

#[tokio::test]
async fn an_ended_host_has_freed_its_port_and_dropped_its_requests() {
    let hosted = host().await;
    let address = hosted.context.pid().address.clone();
    let hanging = {
        let request = Request::get(hosted.url("/v1/never")).body(Bytes::new()).unwrap();
        let (scope, life) = plinth_runtime::Scope::new();
        let ask = async move { Asker::anonymous().try_ask(request, PATIENCE).await };
        (scope.spawn("hanging", ask), life)
    };
    assert_eq!(Asker::anonymous().get(hosted.url("/livez")).await.status(), 200);
    hosted.end.send(Exit::clean()).unwrap();
    assert_eq!(within(hosted.exit).await.unwrap(), Some(Exit::clean()));
    assert!(within(hanging.0).await.unwrap().unwrap().is_err(), "cut off, not left hanging");

    let mut again = options(Secrets::default());
    again.bind = address;
    Host::bind(Runtime::real(), again).await.unwrap();
}

#[tokio::test]
async fn an_address_that_cannot_be_used_is_named() {
    let hosted = host().await;
    let address = hosted.context.pid().address.clone();
    let table = [
        (address.as_str(), "in use"),
        ("127.0.0.1", "host:port"),
        ("192.0.2.1:0", "not one of this machine's"),
        ("0.0.0.0:0", "--advertise"),
    ];
    for (bind, hint) in table {
        let mut options = options(Secrets::default());
        options.bind = bind.to_owned();
        let error: HostError = Host::bind(Runtime::real(), options).await.unwrap_err();
        let text = error.to_string();
        assert!(text.contains(bind) && text.contains(hint), "{text}");
    }
}
