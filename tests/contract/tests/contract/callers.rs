//! Every route of every service as each kind of caller.

use std::fmt::Write as _;

use futures::future::join_all;
use plinth_test_contract::{Services, documents, operations};

use crate::{callers, client, request};

#[tokio::test]
async fn every_route_lets_in_whom_the_table_says() {
    let services = Services::start().await.expect("services");
    let client = client();
    let mut table = String::new();
    for ((kind, url), (_, document)) in services.urls().zip(documents()) {
        for operation in operations(&document).expect("operations") {
            let operation = &operation;
            let asked = callers().map(|caller| {
                let request = request(&client, url, operation, &caller);
                async move {
                    let status = request.send().await.expect("an answer").status().as_u16();
                    let class = match status {
                        401 | 403 => status.to_string(),
                        _ => "let in".to_owned(),
                    };
                    format!("{}: {class}", caller.0)
                }
            });
            let answers = join_all(asked).await.join(", ");
            writeln!(table, "{kind} {} {}", operation.method, operation.path).expect("a line");
            writeln!(table, "    {answers}").expect("a line");
        }
    }
    insta::assert_snapshot!("callers", table);
}
