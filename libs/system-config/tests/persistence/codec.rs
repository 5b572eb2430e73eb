//! Written and read again, configurations are the same; damage is seen; processes leave no trace.

use plinth_system_config::{
    DecodeError, Directory, EncodeError, EnvelopeError, FORMAT_LEVEL, Recorded, Service,
    SystemConfig, decode, decode_stored, encode, encode_stored,
};
use plinth_types::{Incarnation, Pid, ServiceRef};
use proptest::prelude::*;

use crate::arbitrary::{InMemory, in_memory, leak, recorded};
use crate::samples;

proptest! {
    #[test]
    fn a_configuration_is_read_as_it_was_written(memory in in_memory()) {
        let InMemory { config, directory, .. } = memory;
        let bytes = encode(&config, &directory).unwrap();
        prop_assert_eq!(decode(&bytes, &directory).unwrap(), config);
    }

    #[test]
    fn the_stored_form_is_read_as_it_was_written(recorded in recorded()) {
        let bytes = encode_stored(&recorded).unwrap();
        prop_assert_eq!(decode_stored::<Recorded>(&bytes).unwrap(), recorded.clone());
        let bytes = encode_stored(&recorded.config).unwrap();
        prop_assert_eq!(decode_stored::<SystemConfig<ServiceRef>>(&bytes).unwrap(), recorded.config);
    }

    #[test]
    fn after_everything_died_every_service_comes_back_down(memory in in_memory()) {
        let InMemory { recorded, config, directory } = memory;
        let bytes = encode(&config, &directory).unwrap();
        let later = decode(&bytes, &Directory::new()).unwrap();
        let expected = recorded.config.map_services(|service| Service::Down(service.clone()));
        prop_assert_eq!(later, expected);
    }

    #[test]
    fn nothing_that_dies_with_a_process_is_written(memory in in_memory()) {
        let InMemory { config, directory, .. } = memory;
        let bytes = encode(&config, &directory).unwrap();
        prop_assert_eq!(leak(&bytes, &directory), None);
    }

    #[test]
    fn any_changed_byte_is_seen(recorded in recorded(), at: prop::sample::Index, flip in 1..=u8::MAX) {
        let mut bytes = encode_stored(&recorded).unwrap().to_vec();
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
        prop_assert!(decode_stored::<Recorded>(&bytes).is_err());
    }

    #[test]
    fn any_truncation_is_seen(recorded in recorded(), length: prop::sample::Index) {
        let bytes = encode_stored(&recorded).unwrap();
        prop_assert!(decode_stored::<Recorded>(&bytes[..length.index(bytes.len())]).is_err());
    }

    #[test]
    fn foreign_bytes_are_refused_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(decode_stored::<Recorded>(&bytes).is_err());
    }
}

#[test]
fn the_search_for_leaks_finds_one() {
    let (service, pid) = (samples::recorded(1, 1).config.layout.sequencer, pid());
    let directory: Directory = [(service, pid.clone())].into_iter().collect();
    let json = serde_json::to_vec(&Service::Up(pid)).unwrap();
    assert!(leak(&json, &directory).is_some());
}

fn pid() -> Pid {
    Pid {
        node: samples::node(2),
        os_pid: 77,
        incarnation: Incarnation(0xabc),
        address: "localhost:1".to_owned(),
    }
}

#[test]
fn a_process_that_the_directory_does_not_know_is_named() {
    let mut config =
        samples::recorded(1, 1).config.map_services(|service| Service::Down(service.clone()));
    config.layout.logs[2].service = Service::Up(pid());
    let error = encode(&config, &Directory::new()).unwrap_err();
    assert!(matches!(&error, EncodeError::UnknownPid(unknown) if unknown.pid == pid()));
    assert!(error.to_string().contains(&pid().to_string()), "{error}");
}

#[test]
fn every_changed_byte_of_a_real_configuration_is_seen() {
    let good = encode_stored(&samples::recorded(3, 9)).unwrap();
    for at in 0..good.len() {
        for flip in [0x01, 0x02, 0x04, 0x08, 0x10, 0x20, 0x40, 0x80, 0xff] {
            let mut bad = good.to_vec();
            bad[at] ^= flip;
            assert!(decode_stored::<Recorded>(&bad).is_err(), "byte {at} ^ {flip:#x}");
        }
    }
}

#[test]
fn a_level_that_this_release_does_not_know_is_not_written() {
    let mut recorded = samples::recorded(1, 1);
    recorded.config.format_level = FORMAT_LEVEL + 1;
    let error = encode_stored(&recorded).unwrap_err();
    assert!(matches!(error, EncodeError::NewerLevel { level: 5, newest: 4 }), "{error}");
}

#[test]
fn an_older_level_is_written_while_the_cluster_is_at_it() {
    let mut recorded = samples::recorded(1, 1);
    recorded.config.format_level = 0;
    let bytes = encode_stored(&recorded).unwrap();
    let text = String::from_utf8(bytes.to_vec()).unwrap();
    assert!(text.contains("\"level\":0") && text.contains("\"proxies\""), "{text}");
    assert!(!text.contains("policies"), "{text}");
    assert_eq!(decode_stored::<Recorded>(&bytes).unwrap(), recorded);
}

#[test]
fn shards_that_are_not_those_of_the_configuration_are_neither_written_nor_read() {
    let mut recorded = samples::recorded(1, 1);
    recorded.shards.0.pop();
    assert!(matches!(encode_stored(&recorded), Err(EncodeError::Shards(_))));
    let bytes =
        plinth_system_config::Envelope::seal("plinth.recorded", FORMAT_LEVEL, &recorded).unwrap();
    let error = decode_stored::<Recorded>(&bytes).unwrap_err();
    assert!(
        matches!(&error, DecodeError::Shards(mismatch) if mismatch.found.count == 2),
        "{error}"
    );
}

#[test]
fn a_configuration_is_not_taken_for_another_format() {
    let bytes = encode_stored(&samples::recorded(1, 1)).unwrap();
    let error = decode_stored::<SystemConfig<ServiceRef>>(&bytes).unwrap_err();
    assert!(matches!(error, DecodeError::Envelope(EnvelopeError::Format { .. })), "{error}");
}

#[test]
fn unknown_fields_are_ignored() {
    let recorded = samples::recorded(1, 1);
    let mut body = serde_json::to_value(&recorded).unwrap();
    body["config"]["from_a_later_release"] = 1.into();
    body["config"]["layout"]["logs"][0]["compression"] = "lz4".into();
    let bytes = plinth_system_config::Envelope::seal("plinth.recorded", 1, &body).unwrap();
    assert_eq!(decode_stored::<Recorded>(&bytes).unwrap(), recorded);
}
