//! Files written at every level that there ever was. They are never changed: a file that can no
//! longer be read is a cluster that can no longer start.

use plinth_system_config::{
    DecodeError, EnvelopeError, FORMAT_LEVEL, JoiningMember, Recorded, Standing, SystemConfig,
    decode_stored, encode_stored,
};
use plinth_types::{ServiceRef, StoreId};

use crate::samples;

/// What every golden file says.
fn golden(level: u32) -> Recorded {
    let mut recorded = samples::recorded(7, 42);
    recorded.config.format_level = level;
    if level >= 2 {
        // What that level brought.
        recorded.config.layout.storage_teams[1].joining = vec![JoiningMember {
            store: StoreId(0x2004),
            service: "storage-2@node-1".parse().unwrap(),
            replaces: Some(samples::storage_store(3)),
        }];
    }
    if level >= 3 {
        let entry = recorded.config.nodes.get_mut(&samples::node(3)).unwrap();
        entry.standing = Standing::Draining;
    }
    if level >= 4 {
        let config = &mut recorded.config;
        for (coordinator, on) in config.coordinators.iter_mut().zip(1..) {
            coordinator.address = Some(format!("host-{on}.example:4400"));
        }
        config.next_coordinators = config.coordinators[1..].to_vec();
    }
    recorded
}

const CONFIGS: [&[u8]; 5] = [
    include_bytes!("../golden/config-level-0.json"),
    include_bytes!("../golden/config-level-1.json"),
    include_bytes!("../golden/config-level-2.json"),
    include_bytes!("../golden/config-level-3.json"),
    include_bytes!("../golden/config-level-4.json"),
];
const RECORDED: [&[u8]; 5] = [
    include_bytes!("../golden/recorded-level-0.json"),
    include_bytes!("../golden/recorded-level-1.json"),
    include_bytes!("../golden/recorded-level-2.json"),
    include_bytes!("../golden/recorded-level-3.json"),
    include_bytes!("../golden/recorded-level-4.json"),
];

#[test]
fn every_level_has_its_files() {
    assert_eq!(CONFIGS.len(), FORMAT_LEVEL as usize + 1);
    assert_eq!(RECORDED.len(), FORMAT_LEVEL as usize + 1);
}

#[test]
fn every_level_is_read() {
    for (level, (config, recorded)) in (0..).zip(CONFIGS.into_iter().zip(RECORDED)) {
        let read: SystemConfig<ServiceRef> = decode_stored(config).unwrap();
        assert_eq!(read, golden(level).config, "level {level}");
        let read: Recorded = decode_stored(recorded).unwrap();
        assert_eq!(read, golden(level), "level {level}");
    }
}

#[test]
fn the_newest_level_is_written_byte_for_byte() {
    let golden = golden(FORMAT_LEVEL);
    let newest = FORMAT_LEVEL as usize;
    assert_eq!(encode_stored(&golden.config).unwrap(), CONFIGS[newest]);
    assert_eq!(encode_stored(&golden).unwrap(), RECORDED[newest]);
}

#[test]
fn a_damaged_file_of_any_level_is_refused() {
    for file in RECORDED {
        let body = file.windows(4).position(|window| window == b"body").unwrap();
        for at in body..file.len() {
            let mut bad = file.to_vec();
            bad[at] ^= 0x04;
            assert!(decode_stored::<Recorded>(&bad).is_err(), "byte {at}");
        }
    }
}

#[test]
fn a_newer_level_is_refused_with_both_levels() {
    let newer = FORMAT_LEVEL + 4;
    let bytes =
        plinth_system_config::Envelope::seal("plinth.recorded", newer, &golden(FORMAT_LEVEL))
            .unwrap();
    let error = decode_stored::<Recorded>(&bytes).unwrap_err();
    assert!(
        matches!(error, DecodeError::Envelope(EnvelopeError::NewerLevel { found: 8, newest: 4 })),
        "{error}"
    );
    assert!(error.to_string().contains("level 8") && error.to_string().contains("level 4"));
}
