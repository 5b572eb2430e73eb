//! The directories of durable workers.

use std::path::Path;

use plinth_runtime::Runtime;
use plinth_service::{DIRECTORY_LEVEL, DirectoryError, Manifest, WorkerDirectory};
use plinth_store::{Disk as _, DiskDelays, SimulatedDisk, StoreError};
use plinth_types::{ClusterId, ServiceRef};

const OWN: ClusterId = ClusterId(7);
const FOREIGN: ClusterId = ClusterId(8);
const MANIFEST: &str = "/data/log-1/manifest.json";

fn disk() -> SimulatedDisk {
    SimulatedDisk::new("node-1", Runtime::real().random(), DiskDelays::none(), None)
}

fn open(
    disk: &SimulatedDisk,
    cluster: Option<ClusterId>,
    service: &str,
) -> Result<WorkerDirectory, DirectoryError> {
    let service: ServiceRef = service.parse().unwrap();
    WorkerDirectory::open_or_create(disk, "/data/log-1", cluster, &service, &Runtime::real())
}

#[test]
fn it_is_made_once_and_found_again() {
    let disk = disk();
    let made = open(&disk, Some(OWN), "log-1@node-1").unwrap();
    let manifest = made.manifest().clone();
    assert_eq!((manifest.cluster, manifest.format_level), (OWN, DIRECTORY_LEVEL));
    assert_eq!(made.store_path(), Path::new("/data/log-1/store"));
    drop(made);
    for cluster in [Some(OWN), None] {
        assert_eq!(*open(&disk, cluster, "log-1@node-1").unwrap().manifest(), manifest);
    }
    assert_eq!(Manifest::read(&disk, Path::new("/data/log-1")).unwrap(), Some(manifest));
}

#[test]
fn it_is_not_made_before_there_is_a_cluster() {
    let disk = disk();
    let refused = open(&disk, None, "log-1@node-1").unwrap_err();
    assert!(matches!(refused, DirectoryError::NoCluster { .. }), "{refused}");
    assert!(disk.list(Path::new("/data")).unwrap().is_empty(), "nothing half made");
}

#[test]
fn a_second_process_is_kept_out_until_the_first_is_gone() {
    let disk = disk();
    let held = open(&disk, Some(OWN), "log-1@node-1").unwrap();
    let refused = open(&disk.process(), Some(OWN), "log-1@node-1").unwrap_err();
    assert!(matches!(refused, DirectoryError::Store(StoreError::Locked { .. })), "{refused}");
    drop(held);
    open(&disk.process(), Some(OWN), "log-1@node-1").unwrap();
}

#[test]
fn what_belongs_to_others_is_refused_by_name() {
    let disk = disk();
    drop(open(&disk, Some(OWN), "log-1@node-1").unwrap());
    let refused = open(&disk, Some(FOREIGN), "log-1@node-1").unwrap_err();
    assert!(matches!(refused, DirectoryError::ForeignCluster { .. }));
    let text = refused.to_string();
    assert!(text.contains(&OWN.to_string()) && text.contains(&FOREIGN.to_string()), "{text}");
    let refused = open(&disk, Some(OWN), "log-2@node-1").unwrap_err();
    assert!(refused.to_string().contains("log-1@node-1"), "{refused}");
}

#[test]
fn a_damaged_or_newer_manifest_is_refused_and_never_replaced() {
    let disk = disk();
    drop(open(&disk, Some(OWN), "log-1@node-1").unwrap());
    let good = disk.read_file(Path::new(MANIFEST)).unwrap().unwrap();
    for at in 0..good.len() {
        let mut bad = good.to_vec();
        bad[at] ^= 1;
        disk.write_file(Path::new(MANIFEST), &bad).unwrap();
        let refused = open(&disk, Some(OWN), "log-1@node-1");
        // White space at the end is no part of it.
        if at + 1 < good.len() {
            assert!(matches!(refused, Err(DirectoryError::Damaged { .. })), "{at}: {refused:?}");
        }
        assert_eq!(disk.read_file(Path::new(MANIFEST)).unwrap().unwrap(), bad);
    }
    let newer = br#"{"format_level":99}"#;
    let file = format!(
        r#"{{"crc32c":{},"manifest":{}}}"#,
        crc32c::crc32c(newer),
        String::from_utf8_lossy(newer)
    );
    disk.write_file(Path::new(MANIFEST), file.as_bytes()).unwrap();
    let refused = open(&disk, Some(OWN), "log-1@node-1").unwrap_err();
    assert!(matches!(refused, DirectoryError::NewerLevel { found: 99, .. }), "{refused}");
}

#[test]
fn a_store_without_a_manifest_is_damage_and_not_a_new_worker() {
    let disk = disk();
    disk.write_file(Path::new("/data/log-1/store/CURRENT"), b"x").unwrap();
    let refused = open(&disk, Some(OWN), "log-1@node-1").unwrap_err();
    assert!(matches!(refused, DirectoryError::Damaged { .. }), "{refused}");
}
