//! Nothing that dies with a process is in the stored configuration: no address, no incarnation.

use plinth_types::Pid;

/// Its name.
pub const NAME: &str = "no_pid_is_stored";

/// Answers the first such thing.
#[must_use]
pub fn check(stored: &[u8], living: &[Pid]) -> Option<String> {
    let text = String::from_utf8_lossy(stored);
    living.iter().find_map(|pid| {
        let mortal =
            [pid.address.clone(), pid.incarnation.to_string(), pid.incarnation.0.to_string()];
        mortal.into_iter().find(|part| text.contains(part.as_str()))
    })
}

#[cfg(test)]
mod tests {
    use plinth_types::Incarnation;

    use super::*;

    #[test]
    fn an_address_and_an_incarnation_are_found() {
        let pid = Pid {
            node: "a".parse().expect("a name"),
            os_pid: 1,
            incarnation: Incarnation(0x1234_5678_9abc_def0),
            address: "a:4711".to_owned(),
        };
        let living = [pid.clone()];
        assert_eq!(check(b"{\"service\": \"log-1@a\"}", &living), None);
        assert!(check(b"at a:4711", &living).is_some());
        assert!(check(pid.incarnation.to_string().as_bytes(), &living).is_some());
    }
}
