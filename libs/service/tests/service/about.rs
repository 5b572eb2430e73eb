//! What every service answers about itself.

use plinth_api::common::{Info, Readiness};
use plinth_types::{Epoch, Version};

use crate::fixture::{Asker, host, json, problem};

#[tokio::test]
async fn a_service_tells_who_it_is_and_that_it_lives() {
    let hosted = host().await;
    let asker = Asker::anonymous();
    assert_eq!(asker.get(hosted.url("/livez")).await.status(), 200);
    let release = asker.get(hosted.url("/version")).await;
    assert_eq!(json::<serde_json::Value>(&release)["name"], "plinth");

    hosted.context.set_epoch(Epoch(3));
    hosted.context.set_version(Version(12));
    let info: Info = json(&asker.get(hosted.url("/v1/info")).await);
    assert_eq!(info.service.to_string(), "storage-1@node-1");
    assert_eq!(info.pid, *hosted.context.pid());
    assert_eq!(info.pid.os_pid, std::process::id());
    assert_eq!((info.epoch, info.version), (Epoch(3), Some(Version(12))));
}

#[tokio::test]
async fn readiness_names_the_checks_that_fail() {
    let hosted = host().await;
    let asker = Asker::anonymous();
    hosted.context.set_check("disk", Ok(()));
    hosted.context.set_check("assignment", Err("no epoch has assigned it".to_owned()));

    let answer = asker.get(hosted.url("/readyz?verbose")).await;
    assert_eq!(answer.status(), 503);
    assert!(problem(&answer).detail.contains("assignment: no epoch has assigned it"));
    let readiness: Readiness = json(&answer);
    let told: Vec<_> = readiness.checks.iter().map(|c| (c.name.as_str(), c.ok)).collect();
    assert_eq!(told, [("assignment", false), ("disk", true)]);
    assert_eq!(asker.get(hosted.url("/readyz/disk")).await.status(), 200);
    assert_eq!(asker.get(hosted.url("/readyz/assignment")).await.status(), 503);
    assert_eq!(asker.get(hosted.url("/readyz/weather")).await.status(), 404);

    hosted.context.set_check("assignment", Ok(()));
    let answer = asker.get(hosted.url("/readyz")).await;
    assert_eq!(answer.status(), 200);
    assert!(json::<Readiness>(&answer).ready);
}

#[tokio::test]
async fn the_document_has_the_service_and_the_shell_and_says_who_may_call() {
    let hosted = host().await;
    let answer = Asker::anonymous().get(hosted.url("/openapi.json")).await;
    let document: serde_json::Value = json(&answer);
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));
    assert_eq!(document["info"]["title"], "Parcels");
    let paths = &document["paths"];
    assert_eq!(paths["/v1/parcels"]["post"]["x-plinth-caller"], "anyone");
    assert_eq!(paths["/v1/for/service"]["get"]["x-plinth-caller"], "service");
    for shell in
        ["/livez", "/readyz", "/readyz/{check}", "/version", "/metrics", "/v1/info", "/v1/monitor"]
    {
        assert_eq!(paths[shell]["get"]["x-plinth-caller"], "anyone", "{shell}");
    }
}

#[tokio::test]
async fn requests_are_counted_by_route_and_not_by_path() {
    let hosted = host().await;
    let asker = Asker::anonymous();
    for path in ["/v1/parcels/1", "/v1/parcels/2", "/made/up/1", "/made/up/2"] {
        asker.get(hosted.url(path)).await;
    }
    let answer = asker.get(hosted.url("/metrics")).await;
    let text = std::str::from_utf8(answer.body()).unwrap();
    for (route, count) in [("/v1/parcels/{number}", 2), ("unknown", 2)] {
        let line = format!(
            r#"plinth_http_requests_total{{method="GET",node="node-1",route="{route}",service="storage-1",status="404"}} {count}"#
        );
        assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
    }
}
