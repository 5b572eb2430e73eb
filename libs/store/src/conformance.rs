//! What every [`Disk`] and [`Store`] must do, as one suite. [`conformance_tests!`](crate::conformance_tests)
//! makes a test of each function here for an implementation.
//!
//! Each takes a disk and an empty directory of its own, and panics where the disk does wrong.

#![expect(clippy::expect_used, reason = "a failed expectation is what this is for")]

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use crate::{Batch, Direction, Disk, Durability, Rows, Store, StoreError, Table};

const TABLES: &[Table] = &["left", "right"];

/// Makes a test of each case. `$fresh` is a function that answers
/// `(Arc<dyn Disk>, PathBuf, guard)`; the directory is empty and lives as long as the guard.
#[macro_export]
macro_rules! conformance_tests {
    ($fresh:path) => {
        $crate::conformance_tests!(
            @cases $fresh,
            a_value_is_what_was_put_last,
            tables_are_apart,
            values_and_keys_are_any_bytes,
            a_range_is_removed_from_its_first_to_before_its_second,
            changes_of_a_batch_happen_in_their_order,
            a_batch_happens_wholly_or_not,
            writes_happen_in_the_order_of_calls,
            a_write_happens_unpolled,
            concurrent_writes_all_happen,
            a_completed_write_is_seen,
            scans_keep_to_their_bounds,
            scans_keep_to_their_limit,
            scans_go_both_ways,
            scans_of_nothing_are_empty,
            a_scan_sees_no_removed_rows,
            an_undeclared_table_is_refused,
            a_store_is_there_after_reopening,
            a_table_can_be_added,
            an_open_store_is_not_opened_again,
            a_dropped_store_is_opened_at_once,
            stores_are_apart,
            a_missing_file_is_none,
            a_file_is_replaced_whole,
            a_file_is_written_with_its_directories,
            a_file_is_not_where_a_directory_is,
            a_list_is_sorted_and_shows_no_deeper,
            a_list_shows_what_the_caller_made,
            a_file_is_renamed_over_another,
            a_directory_is_renamed_with_all_in_it,
            a_store_is_there_after_renaming,
            renaming_nothing_fails,
            removing_takes_all_below,
            removing_nothing_succeeds,
            a_directory_is_made_once_or_twice,
            a_locked_directory_is_refused_by_name,
            a_dropped_lock_lets_the_next_in,
            a_locked_directory_can_hold_a_store,
        );
    };
    (@cases $fresh:path, $($case:ident),* $(,)?) => {
        $(
            #[tokio::test]
            async fn $case() {
                let (disk, scratch, _guard) = $fresh();
                $crate::conformance::$case(&*disk, &scratch).await;
            }
        )*
    };
}

async fn open(disk: &dyn Disk, directory: &Path) -> Arc<dyn Store> {
    disk.open(directory, TABLES).await.expect("the store opens")
}

async fn write(store: &dyn Store, build: impl FnOnce(&mut Batch)) {
    let mut batch = Batch::new();
    build(&mut batch);
    store.write(batch, Durability::Synced).await.expect("the write succeeds");
}

fn get(store: &dyn Store, table: Table, key: &[u8]) -> Option<Bytes> {
    store.get(table, key).expect("the read succeeds")
}

fn scan(
    store: &dyn Store,
    from: &[u8],
    to: Option<&[u8]>,
    direction: Direction,
    limit: usize,
) -> Vec<String> {
    keys(&store.scan("left", from, to, direction, limit).expect("the scan succeeds"))
}

fn all(store: &dyn Store) -> Vec<String> {
    scan(store, b"", None, Direction::Forward, usize::MAX)
}

fn keys(rows: &Rows) -> Vec<String> {
    rows.iter().map(|(key, _)| String::from_utf8_lossy(key).into_owned()).collect()
}

async fn fill(store: &dyn Store, keys: &[&'static str]) {
    write(store, |batch| {
        for key in keys {
            batch.put("left", *key, *key);
        }
    })
    .await;
}

fn file(disk: &dyn Disk, path: &Path) -> Option<Bytes> {
    disk.read_file(path).expect("the file is readable")
}

fn list(disk: &dyn Disk, directory: &Path) -> Vec<String> {
    disk.list(directory).expect("the directory is readable")
}

fn is_locked<T>(result: Result<T, StoreError>, directory: &Path) -> bool {
    matches!(result, Err(StoreError::Locked { path }) if path == directory.display().to_string())
}

/// Put, overwrite, delete.
pub async fn a_value_is_what_was_put_last(disk: &dyn Disk, scratch: &Path) {
    let store = open(disk, scratch).await;
    assert_eq!(get(&*store, "left", b"k"), None);
    write(&*store, |batch| _ = batch.put("left", "k", "1")).await;
    assert_eq!(get(&*store, "left", b"k"), Some(Bytes::from("1")));
    write(&*store, |batch| _ = batch.put("left", "k", "2")).await;
    assert_eq!(get(&*store, "left", b"k"), Some(Bytes::from("2")));
    write(&*store, |batch| _ = batch.delete("left", "k")).await;
    assert_eq!(get(&*store, "left", b"k"), None);
}

/// The same key in two tables is two keys.
pub async fn tables_are_apart(disk: &dyn Disk, scratch: &Path) {
    let store = open(disk, scratch).await;
    write(&*store, |batch| _ = batch.put("left", "k", "l").put("right", "k", "r")).await;
    write(&*store, |batch| _ = batch.delete_range("left", "", "z")).await;
    assert_eq!(get(&*store, "left", b"k"), None);
    assert_eq!(get(&*store, "right", b"k"), Some(Bytes::from("r")));
}

/// Empty ones, zeros and high bytes, and their order.
pub async fn values_and_keys_are_any_bytes(disk: &dyn Disk, scratch: &Path) {
    let store = open(disk, scratch).await;
    let keys: [&[u8]; 5] = [b"", b"\0", b"\0\xff", b"\x7f", b"\xff\xff\0"];
    write(&*store, |batch| {
        for key in keys.iter().rev() {
            batch.put("left", Bytes::copy_from_slice(key), Bytes::new());
        }
        batch.put("left", "big", vec![0xa5; 300_000]);
        batch.delete("left", "big2");
    })
    .await;
    assert_eq!(get(&*store, "left", b""), Some(Bytes::new()));
    assert_eq!(get(&*store, "left", b"big").map(|value| value.len()), Some(300_000));
    write(&*store, |batch| _ = batch.delete("left", "big")).await;
    let rows = store.scan("left", b"", None, Direction::Forward, 100).expect("the scan succeeds");
    assert_eq!(rows.iter().map(|(key, _)| &key[..]).collect::<Vec<_>>(), keys);
}

/// Ranges are half open; one that is empty or reversed removes nothing.
pub async fn a_range_is_removed_from_its_first_to_before_its_second(
    disk: &dyn Disk,
    scratch: &Path,
) {
    let store = open(disk, scratch).await;
    fill(&*store, &["a", "b", "c", "d"]).await;
    write(&*store, |batch| _ = batch.delete_range("left", "b", "b").delete_range("left", "d", "a"))
        .await;
    assert_eq!(all(&*store), ["a", "b", "c", "d"]);
    write(&*store, |batch| _ = batch.delete_range("left", "b", "d")).await;
    assert_eq!(all(&*store), ["a", "d"]);
    assert_eq!(get(&*store, "left", b"b"), None);
}

/// Later changes of a batch see earlier ones.
pub async fn changes_of_a_batch_happen_in_their_order(disk: &dyn Disk, scratch: &Path) {
    let store = open(disk, scratch).await;
    write(&*store, |batch| {
        batch.put("left", "a", "1").delete_range("left", "a", "z").put("left", "b", "2");
        batch.put("left", "c", "3").delete("left", "c").delete("left", "d").put("left", "d", "4");
    })
    .await;
    assert_eq!(all(&*store), ["b", "d"]);
}

/// A batch that is refused for one of its changes changes nothing.
pub async fn a_batch_happens_wholly_or_not(disk: &dyn Disk, scratch: &Path) {
    let store = open(disk, scratch).await;
    let mut batch = Batch::new();
    batch.put("left", "a", "1").put("nowhere", "b", "2").put("right", "c", "3");
    let refused = store.write(batch, Durability::Synced).await;
    assert!(matches!(refused, Err(StoreError::Io { .. })), "{refused:?}");
    assert_eq!(get(&*store, "left", b"a"), None);
    assert_eq!(get(&*store, "right", b"c"), None);
    fill(&*store, &["d"]).await;
    drop(store);
    assert_eq!(all(&*open(disk, scratch).await), ["d"]);
}

/// The later call wins, however the futures are polled.
pub async fn writes_happen_in_the_order_of_calls(disk: &dyn Disk, scratch: &Path) {
    let store = open(disk, scratch).await;
    for round in 0..20_u8 {
        let mut first = Batch::new();
        first.put("left", "k", vec![round, 1]);
        let mut second = Batch::new();
        second.put("left", "k", vec![round, 2]);
        let (early, late) = if round % 2 == 0 {
            (Durability::Buffered, Durability::Synced)
        } else {
            (Durability::Synced, Durability::Buffered)
        };
        let first = store.write(first, early);
        let second = store.write(second, late);
        second.await.expect("the second succeeds");
        assert_eq!(get(&*store, "left", b"k"), Some(Bytes::from(vec![round, 2])));
        first.await.expect("the first succeeds");
        assert_eq!(get(&*store, "left", b"k"), Some(Bytes::from(vec![round, 2])));
    }
}

/// The call queues the write: a dropped future does not take it back.
pub async fn a_write_happens_unpolled(disk: &dyn Disk, scratch: &Path) {
    let store = open(disk, scratch).await;
    let mut batch = Batch::new();
    batch.put("left", "unpolled", "");
    drop(store.write(batch, Durability::Buffered));
    fill(&*store, &["polled"]).await;
    assert_eq!(all(&*store), ["polled", "unpolled"]);
}

/// Many at once, of both kinds.
pub async fn concurrent_writes_all_happen(disk: &dyn Disk, scratch: &Path) {
    let store = open(disk, scratch).await;
    let writes = (0..200_u32).map(|number| {
        let mut batch = Batch::new();
        batch.put("left", format!("{number:04}"), "x").put("right", format!("{number:04}"), "x");
        store.write(batch, if number % 3 == 0 { Durability::Synced } else { Durability::Buffered })
    });
    for result in futures::future::join_all(writes).await {
        result.expect("the write succeeds");
    }
    assert_eq!(all(&*store).len(), 200);
    drop(store);
    assert_eq!(all(&*open(disk, scratch).await).len(), 200);
}

/// Both kinds of write, seen by the next read.
pub async fn a_completed_write_is_seen(disk: &dyn Disk, scratch: &Path) {
    let store = open(disk, scratch).await;
    for number in 0..50_u8 {
        let mut batch = Batch::new();
        batch.put("left", "k", vec![number]);
        let durability = if number % 5 == 0 { Durability::Synced } else { Durability::Buffered };
        store.write(batch, durability).await.expect("the write succeeds");
        assert_eq!(get(&*store, "left", b"k"), Some(Bytes::from(vec![number])));
    }
}

/// From is in, to is not.
pub async fn scans_keep_to_their_bounds(disk: &dyn Disk, scratch: &Path) {
    let store = open(disk, scratch).await;
    fill(&*store, &["a", "b", "ba", "c", "d"]).await;
    let forward = |from: &[u8], to: Option<&[u8]>| scan(&*store, from, to, Direction::Forward, 9);
    assert_eq!(forward(b"b", Some(b"c")), ["b", "ba"]);
    assert_eq!(forward(b"aa", Some(b"bb")), ["b", "ba"]);
    assert_eq!(forward(b"b", None), ["b", "ba", "c", "d"]);
    assert_eq!(forward(b"", Some(b"b")), ["a"]);
    let reverse = |from: &[u8], to: Option<&[u8]>| scan(&*store, from, to, Direction::Reverse, 9);
    assert_eq!(reverse(b"b", Some(b"c")), ["ba", "b"]);
    assert_eq!(reverse(b"b", None), ["d", "c", "ba", "b"]);
}

/// The first so many in the direction of the scan.
pub async fn scans_keep_to_their_limit(disk: &dyn Disk, scratch: &Path) {
    let store = open(disk, scratch).await;
    fill(&*store, &["a", "b", "c", "d"]).await;
    assert_eq!(scan(&*store, b"", None, Direction::Forward, 2), ["a", "b"]);
    assert_eq!(scan(&*store, b"", None, Direction::Reverse, 2), ["d", "c"]);
    assert_eq!(scan(&*store, b"a", Some(b"d"), Direction::Reverse, 1), ["c"]);
    assert!(scan(&*store, b"", None, Direction::Forward, 0).is_empty());
}

/// The same rows, one way and the other, values included.
pub async fn scans_go_both_ways(disk: &dyn Disk, scratch: &Path) {
    let store = open(disk, scratch).await;
    write(&*store, |batch| _ = batch.put("left", "a", "1").put("left", "b", "2")).await;
    let mut forward =
        store.scan("left", b"", None, Direction::Forward, 9).expect("the scan succeeds");
    let reverse = store.scan("left", b"", None, Direction::Reverse, 9).expect("the scan succeeds");
    assert_eq!(forward, [("a".into(), "1".into()), ("b".into(), "2".into())]);
    forward.reverse();
    assert_eq!(forward, reverse);
}

/// Empty tables, empty ranges, reversed ranges.
pub async fn scans_of_nothing_are_empty(disk: &dyn Disk, scratch: &Path) {
    let store = open(disk, scratch).await;
    assert!(all(&*store).is_empty());
    fill(&*store, &["a", "b", "c"]).await;
    for direction in [Direction::Forward, Direction::Reverse] {
        assert!(scan(&*store, b"b", Some(b"b"), direction, 9).is_empty());
        assert!(scan(&*store, b"c", Some(b"a"), direction, 9).is_empty());
        assert!(scan(&*store, b"d", None, direction, 9).is_empty());
        assert!(scan(&*store, b"", Some(b""), direction, 9).is_empty());
    }
}

/// Deleted rows and ranges are not met, and do not count against the limit.
pub async fn a_scan_sees_no_removed_rows(disk: &dyn Disk, scratch: &Path) {
    let store = open(disk, scratch).await;
    fill(&*store, &["a", "b", "c", "d", "e"]).await;
    write(&*store, |batch| _ = batch.delete("left", "a").delete_range("left", "c", "e")).await;
    assert_eq!(scan(&*store, b"", None, Direction::Forward, 2), ["b", "e"]);
    assert_eq!(scan(&*store, b"", None, Direction::Reverse, 2), ["e", "b"]);
}

/// A table that was not named at opening can be neither read nor written; the error names it.
pub async fn an_undeclared_table_is_refused(disk: &dyn Disk, scratch: &Path) {
    let store = open(disk, scratch).await;
    let mut batch = Batch::new();
    batch.put("nowhere", "k", "v");
    let refusals = [
        store.get("nowhere", b"k").err(),
        store.scan("nowhere", b"", None, Direction::Forward, 1).err(),
        store.write(batch, Durability::Buffered).await.err(),
    ];
    for refusal in refusals {
        let refusal = refusal.expect("it is refused").to_string();
        assert!(refusal.contains("nowhere"), "{refusal}");
    }
}

/// What was written is there when the store is opened again, buffered writes too.
pub async fn a_store_is_there_after_reopening(disk: &dyn Disk, scratch: &Path) {
    let store = open(disk, scratch).await;
    fill(&*store, &["a", "b"]).await;
    let mut batch = Batch::new();
    batch.put("left", "c", "").delete("left", "a");
    store.write(batch, Durability::Buffered).await.expect("the write succeeds");
    drop(store);
    let store = open(disk, scratch).await;
    assert_eq!(all(&*store), ["b", "c"]);
    fill(&*store, &["d"]).await;
    drop(store);
    assert_eq!(all(&*open(disk, scratch).await), ["b", "c", "d"]);
}

/// A later opening may name more tables, not fewer.
pub async fn a_table_can_be_added(disk: &dyn Disk, scratch: &Path) {
    drop(open(disk, scratch).await);
    let store = disk.open(scratch, &["left", "right", "third"]).await.expect("the store opens");
    write(&*store, |batch| _ = batch.put("third", "k", "v")).await;
    assert_eq!(get(&*store, "third", b"k"), Some(Bytes::from("v")));
    drop(store);
    let fewer = disk.open(scratch, TABLES).await.err();
    assert!(matches!(fewer, Some(StoreError::Io { .. })), "{fewer:?}");
}

/// One holder at a time; the refusal names the directory.
pub async fn an_open_store_is_not_opened_again(disk: &dyn Disk, scratch: &Path) {
    let store = open(disk, scratch).await;
    assert!(is_locked(disk.open(scratch, TABLES).await, scratch));
    fill(&*store, &["still fine"]).await;
}

/// Dropping the last handle closes the store before the drop returns.
pub async fn a_dropped_store_is_opened_at_once(disk: &dyn Disk, scratch: &Path) {
    for round in 0..3_u8 {
        let store = open(disk, scratch).await;
        let mut batch = Batch::new();
        batch.put("left", vec![round], "");
        let pending = store.write(batch, Durability::Buffered);
        drop(store);
        // It may have been in time or not; but it is decided.
        let outcome = pending.await;
        let store = open(disk, scratch).await;
        if outcome.is_ok() {
            assert!(get(&*store, "left", &[round]).is_some());
        }
    }
}

/// Two directories are two stores.
pub async fn stores_are_apart(disk: &dyn Disk, scratch: &Path) {
    let one = open(disk, &scratch.join("one")).await;
    let two = open(disk, &scratch.join("two")).await;
    fill(&*one, &["k"]).await;
    assert_eq!(get(&*two, "left", b"k"), None);
}

/// Not an error, and neither is a missing directory.
pub async fn a_missing_file_is_none(disk: &dyn Disk, scratch: &Path) {
    assert_eq!(file(disk, &scratch.join("file")), None);
    assert_eq!(file(disk, &scratch.join("no/such/directory/file")), None);
    assert!(list(disk, &scratch.join("no/such/directory")).is_empty());
}

/// Shorter content leaves nothing of the longer one.
pub async fn a_file_is_replaced_whole(disk: &dyn Disk, scratch: &Path) {
    let path = scratch.join("file");
    for content in [&b"first and long"[..], b"second", b""] {
        disk.write_file(&path, content).expect("the write succeeds");
        assert_eq!(file(disk, &path).as_deref(), Some(content));
    }
    assert_eq!(list(disk, scratch), ["file"]);
}

/// Missing directories are made.
pub async fn a_file_is_written_with_its_directories(disk: &dyn Disk, scratch: &Path) {
    let path = scratch.join("a/b/file");
    disk.write_file(&path, b"x").expect("the write succeeds");
    assert_eq!(file(disk, &path), Some(Bytes::from("x")));
    assert_eq!(list(disk, &scratch.join("a")), ["b"]);
}

/// Neither reading nor writing mistakes one for the other.
pub async fn a_file_is_not_where_a_directory_is(disk: &dyn Disk, scratch: &Path) {
    let directory = scratch.join("directory");
    disk.create_directory(&directory).expect("the directory is made");
    let file = scratch.join("file");
    disk.write_file(&file, b"x").expect("the write succeeds");
    assert!(matches!(disk.write_file(&directory, b"x"), Err(StoreError::Io { .. })));
    assert!(matches!(disk.read_file(&directory), Err(StoreError::Io { .. })));
    assert!(matches!(disk.write_file(&file.join("below"), b"x"), Err(StoreError::Io { .. })));
    assert!(matches!(disk.create_directory(&file), Err(StoreError::Io { .. })));
    assert!(matches!(disk.list(&file), Err(StoreError::Io { .. })));
}

/// Files and directories alike, by name.
pub async fn a_list_is_sorted_and_shows_no_deeper(disk: &dyn Disk, scratch: &Path) {
    for path in ["b/deeper/file", "b-", "a", "c.json", "b.json"] {
        disk.write_file(&scratch.join(path), b"x").expect("the write succeeds");
    }
    disk.create_directory(&scratch.join("d")).expect("the directory is made");
    assert_eq!(list(disk, scratch), ["a", "b", "b-", "b.json", "c.json", "d"]);
    assert_eq!(list(disk, &scratch.join("b")), ["deeper"]);
    assert!(list(disk, &scratch.join("d")).is_empty());
}

/// What locks and replacements need for themselves is not shown; a store is.
pub async fn a_list_shows_what_the_caller_made(disk: &dyn Disk, scratch: &Path) {
    let _lock = disk.lock(scratch).expect("the lock is free");
    assert!(list(disk, scratch).is_empty());
    disk.write_file(&scratch.join("file"), b"x").expect("the write succeeds");
    let store = scratch.join("store");
    drop(open(disk, &store).await);
    assert_eq!(list(disk, scratch), ["file", "store"]);
    assert!(!list(disk, &store).is_empty());
}

/// The other one is replaced.
pub async fn a_file_is_renamed_over_another(disk: &dyn Disk, scratch: &Path) {
    let (from, to) = (scratch.join("from"), scratch.join("to"));
    disk.write_file(&from, b"new").expect("the write succeeds");
    disk.write_file(&to, b"old").expect("the write succeeds");
    disk.rename(&from, &to).expect("the rename succeeds");
    assert_eq!(file(disk, &from), None);
    assert_eq!(file(disk, &to), Some(Bytes::from("new")));
}

/// Nothing stays behind, nothing is merged.
pub async fn a_directory_is_renamed_with_all_in_it(disk: &dyn Disk, scratch: &Path) {
    let (from, to) = (scratch.join("from"), scratch.join("to"));
    disk.write_file(&from.join("a/file"), b"x").expect("the write succeeds");
    disk.rename(&from, &to).expect("the rename succeeds");
    assert_eq!(list(disk, scratch), ["to"]);
    assert_eq!(file(disk, &to.join("a/file")), Some(Bytes::from("x")));
    disk.write_file(&from.join("b"), b"y").expect("the write succeeds");
    assert!(disk.rename(&from, &to).is_err(), "a directory with something in it is not replaced");
    assert_eq!(file(disk, &from.join("b")), Some(Bytes::from("y")));
}

/// A closed store moves with its directory.
pub async fn a_store_is_there_after_renaming(disk: &dyn Disk, scratch: &Path) {
    let (from, to) = (scratch.join("from"), scratch.join("to"));
    fill(&*open(disk, &from).await, &["k"]).await;
    disk.rename(&from, &to).expect("the rename succeeds");
    assert_eq!(all(&*open(disk, &to).await), ["k"]);
    assert!(all(&*open(disk, &from).await).is_empty());
}

/// An error, not a silent nothing.
pub async fn renaming_nothing_fails(disk: &dyn Disk, scratch: &Path) {
    let result = disk.rename(&scratch.join("from"), &scratch.join("to"));
    assert!(matches!(result, Err(StoreError::Io { .. })), "{result:?}");
}

/// A file, a directory with what is in it, a closed store.
pub async fn removing_takes_all_below(disk: &dyn Disk, scratch: &Path) {
    disk.write_file(&scratch.join("file"), b"x").expect("the write succeeds");
    disk.write_file(&scratch.join("a/b/file"), b"x").expect("the write succeeds");
    disk.write_file(&scratch.join("a-sibling"), b"x").expect("the write succeeds");
    fill(&*open(disk, &scratch.join("a/store")).await, &["k"]).await;
    disk.remove(&scratch.join("file")).expect("the removal succeeds");
    disk.remove(&scratch.join("a")).expect("the removal succeeds");
    assert_eq!(list(disk, scratch), ["a-sibling"]);
    assert!(all(&*open(disk, &scratch.join("a/store")).await).is_empty());
}

/// It is gone, as was asked.
pub async fn removing_nothing_succeeds(disk: &dyn Disk, scratch: &Path) {
    disk.remove(&scratch.join("nothing")).expect("there is nothing to fail at");
}

/// Making one that is there is no error and changes nothing.
pub async fn a_directory_is_made_once_or_twice(disk: &dyn Disk, scratch: &Path) {
    let directory = scratch.join("a/b");
    disk.create_directory(&directory).expect("the directory is made");
    disk.write_file(&directory.join("file"), b"x").expect("the write succeeds");
    disk.create_directory(&directory).expect("it is there already");
    assert_eq!(list(disk, &directory), ["file"]);
}

/// The second lock is refused while the first is held.
pub async fn a_locked_directory_is_refused_by_name(disk: &dyn Disk, scratch: &Path) {
    let directory = scratch.join("mine");
    let _held = disk.lock(&directory).expect("the lock is free");
    assert!(is_locked(disk.lock(&directory), &directory));
    let _other = disk.lock(&scratch.join("theirs")).expect("another directory is free");
}

/// A lock ends with its guard, also when an attempt failed meanwhile.
pub async fn a_dropped_lock_lets_the_next_in(disk: &dyn Disk, scratch: &Path) {
    for _ in 0..3 {
        let held = disk.lock(scratch).expect("the lock is free");
        assert!(disk.lock(scratch).is_err());
        assert!(disk.lock(scratch).is_err());
        drop(held);
    }
}

/// A directory's lock and its store's are two things.
pub async fn a_locked_directory_can_hold_a_store(disk: &dyn Disk, scratch: &Path) {
    let held = disk.lock(scratch).expect("the lock is free");
    let store = open(disk, scratch).await;
    fill(&*store, &["k"]).await;
    drop(held);
    assert!(is_locked(disk.open(scratch, TABLES).await, scratch));
    let _held = disk.lock(scratch).expect("the lock is free again");
    assert_eq!(all(&*store), ["k"]);
}
