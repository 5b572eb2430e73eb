//! Every route of every service as each kind of caller.

use std::fmt::Write as _;

use futures::future::join_all;
use plinth_service::StateReads;
use plinth_test_contract::{Operation, Services, documents, operations};

use crate::{Caller, callers, client, request};

#[tokio::test]
async fn every_route_lets_in_whom_the_table_says() {
    let services = Services::start().await.expect("services");
    // As away from loopback: the state is the administrator's to read.
    let closed = Services::start_with(StateReads::Administrator).await.expect("services");
    let client = client();
    let mut table = String::new();
    let urls = services.urls().zip(closed.urls());
    for (((kind, url), (_, closed)), (_, document)) in urls.zip(documents()) {
        for operation in operations(&document).expect("operations") {
            let asked = callers().map(|caller| answer(&client, url, &operation, caller));
            let answers = join_all(asked).await.join(", ");
            let [nobody, ..] = callers();
            let hidden = answer(&client, closed, &operation, nobody).await;
            writeln!(table, "{kind} {} {}", operation.method, operation.path).expect("a line");
            writeln!(table, "    {answers}; state closed: {hidden}").expect("a line");
        }
    }
    insta::assert_snapshot!("callers", table);
}

async fn answer(
    client: &reqwest::Client,
    url: &str,
    operation: &Operation,
    caller: Caller,
) -> String {
    let answer = request(client, url, operation, &caller).send().await.expect("an answer");
    let class = match answer.status().as_u16() {
        status @ (401 | 403) => status.to_string(),
        _ => "let in".to_owned(),
    };
    format!("{}: {class}", caller.0)
}
