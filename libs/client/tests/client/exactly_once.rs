//! Whatever becomes of a commit's request and of its answer, it takes effect once.

use std::time::Duration;

use plinth_api::ErrorCode;
use plinth_client::{Ages, ClientError, Forgetting, IdempotencyId, Outcome};
use plinth_types::{AtomicOp, Epoch, Mutation, Value, Version};

use crate::memory::{Data, Memory, Mishap};
use crate::transactions::remembering;
use crate::world::{WITHIN, World};

fn memory<T>(world: &World, act: impl FnOnce(&mut Memory) -> T) -> T {
    world.first.script(|script| act(script.memory.as_mut().unwrap()))
}

fn count(data: &Data) -> u64 {
    data.get(&b"n0"[..]).map_or(0, |value| u64::from_le_bytes(value.as_bytes().try_into().unwrap()))
}

fn add() -> Vec<Mutation> {
    let operand = Value::from(&1_u64.to_le_bytes()[..]);
    vec![Mutation::Atomic { key: "n0".into(), op: AtomicOp::Add, operand }]
}

const MISHAPS: [Mishap; 3] = [Mishap::AnswerLost, Mishap::RequestLost, Mishap::Delayed];

#[tokio::test]
async fn blind_writes_are_done_once_through_two_mishaps_of_any_kind() {
    let world = remembering().await;
    let mut expected = 0;
    for first in MISHAPS {
        for second in MISHAPS {
            memory(&world, |memory| memory.mishaps = vec![second, first]);
            let committed = world.database.write(add(), WITHIN).await.unwrap();
            expected += 1;
            // The next one lets arrive what is still under way.
            world.database.write(add(), WITHIN).await.unwrap();
            expected += 1;
            let found = memory(&world, |memory| count(&memory.users()));
            assert_eq!(found, expected, "{first:?}, {second:?}");
            assert!(committed.version <= memory(&world, |memory| memory.version()));
            assert_eq!(committed.index, 3, "the place of the one that was done");
        }
    }
    let late = memory(&world, |memory| std::mem::take(&mut memory.late));
    assert!(late.contains(&Err(ErrorCode::Conflict)), "what came late had to be refused: {late:?}");
}

#[tokio::test]
async fn an_epoch_that_ends_leaves_no_doubt() {
    let world = remembering().await;
    for mishap in [Mishap::AnswerLost, Mishap::RequestLost] {
        let before = memory(&world, |memory| count(&memory.users()));
        memory(&world, |memory| {
            memory.mishaps = vec![mishap];
            // The next epoch's resolvers remember nothing of this one.
            memory.oldest = Version::ZERO;
        });
        let write = world.database.write(add(), WITHIN);
        let forget = async {
            while memory(&world, |memory| !memory.mishaps.is_empty()) {
                tokio::task::yield_now().await;
            }
            memory(&world, |memory| {
                memory.write(vec![]);
                memory.oldest = memory.version();
            });
        };
        let (written, ()) = tokio::join!(write, forget);
        written.unwrap();
        assert_eq!(memory(&world, |memory| count(&memory.users())), before + 1, "{mishap:?}");
    }
}

#[tokio::test]
async fn transactions_with_reads_are_done_once_too() {
    let world = remembering().await;
    for mishap in MISHAPS {
        let before = memory(&world, |memory| count(&memory.users()));
        memory(&world, |memory| memory.mishaps = vec![mishap]);
        let run = world.database.run(WITHIN, async |transaction: plinth_client::Transaction| {
            let value = transaction.get(&"n0".into()).await?;
            let number =
                value.map_or(0, |value| u64::from_le_bytes(value.as_bytes().try_into().unwrap()));
            let next = Value::from(&(number + 1).to_le_bytes()[..]);
            transaction.set(&"n0".into(), &next)?;
            Ok::<_, ClientError>(number)
        });
        assert_eq!(run.await.unwrap(), before);
        assert_eq!(memory(&world, |memory| count(&memory.users())), before + 1, "{mishap:?}");
    }
}

/// Adds once for an id, as a caller's own retries would.
async fn add_once(world: &World, id: &IdempotencyId) -> (String, bool) {
    world
        .database
        .run(WITHIN, async |transaction: plinth_client::Transaction| {
            if let Some((stamp, outcome)) = transaction.outcome(id).await? {
                assert_eq!(outcome.fingerprint, "add");
                return Ok((stamp.to_string(), true));
            }
            let operand = Value::from(&1_u64.to_le_bytes()[..]);
            transaction.atomic(&"n0".into(), AtomicOp::Add, &operand)?;
            let answer = serde_json::json!({ "reads": [] });
            transaction.set_outcome(id, &Outcome { fingerprint: "add".to_owned(), answer })?;
            Ok::<_, ClientError>((String::new(), false))
        })
        .await
        .unwrap()
}

#[tokio::test]
async fn an_id_stands_for_one_commit_until_it_expires() {
    let world = remembering().await;
    let id = IdempotencyId::new("order/1").unwrap();
    memory(&world, |memory| memory.mishaps = vec![Mishap::AnswerLost]);
    // The answer is lost, the attempt after it conflicts, and then the outcome is found.
    let (stamp, found) = add_once(&world, &id).await;
    assert!(found);
    let (again, found) = add_once(&world, &id).await;
    assert!(found && again == stamp);
    assert_eq!(memory(&world, |memory| count(&memory.users())), 1);

    let left = |world: &World| memory(world, |memory| memory.everything().len());
    world.database.write(add(), WITHIN).await.unwrap();
    assert_eq!(left(&world), 4, "the number, the id and its expiry, a marker");
    let old = Ages { attempts: Duration::from_secs(3_600), ids: Duration::from_secs(3_600) };
    let mut patient = Forgetting::new(world.database.clone(), old);
    assert_eq!(patient.round().await.unwrap(), 0);
    let mut forgetting = Forgetting::new(
        world.database.clone(),
        Ages { attempts: Duration::ZERO, ids: Duration::ZERO },
    );
    // What is of this very millisecond and version stays for another round.
    let rest = tokio::time::timeout(WITHIN, async {
        while left(&world) > 1 {
            memory(&world, |memory| memory.write(vec![]));
            forgetting.round().await.unwrap();
        }
    });
    rest.await.expect("nothing is left but the number");
    let (_, found) = add_once(&world, &id).await;
    assert!(!found, "who comes after the expiry begins anew");
    assert_eq!(memory(&world, |memory| count(&memory.users())), 3);
    world.appoint(Epoch(6), 0);
}
