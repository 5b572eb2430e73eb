//! Ports on loopback for `plinth up`.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, TcpListener};
use std::time::Duration;

use anyhow::bail;
use plinth_runtime::Runtime;

/// Where ports that must stay the same are taken from: below what the system gives to outgoing
/// connections, so that none of these takes one while its service is down.
const KEPT: std::ops::Range<u16> = 20_000..32_000;
/// How many ports are tried one after the other.
const TRIES: u16 = 200;

/// How often a port is asked about that a process may be about to let go, and the pause between.
const LOOKS: u32 = 25;
const PAUSE: Duration = Duration::from_millis(20);

fn is_free(port: u16) -> bool {
    // Asked before any service runs, and let go at once: nothing is served.
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

/// Whether a port is free, now or in a moment: a process that was just killed holds it until it has ended.
fn is_free_soon(port: u16) -> bool {
    let look = |number| {
        if number > 0 {
            std::thread::park_timeout(PAUSE);
        }
        is_free(port)
    };
    (0..LOOKS).any(look)
}

/// Free ports that a cluster keeps, all different.
///
/// # Errors
/// None was found.
pub(crate) fn pick_kept(runtime: &Runtime, count: usize) -> anyhow::Result<Vec<u16>> {
    let mut picked = BTreeSet::new();
    for _ in 0..usize::from(TRIES) + count {
        if picked.len() == count {
            break;
        }
        let offset = runtime.random_u64() % u64::from(KEPT.end - KEPT.start);
        let port = KEPT.start + u16::try_from(offset).unwrap_or_default();
        if is_free(port) {
            picked.insert(port);
        }
    }
    if picked.len() < count {
        bail!("no {count} free ports were found between {} and {}", KEPT.start, KEPT.end);
    }
    Ok(picked.into_iter().collect())
}

/// The first free port from `first` on that is not in `taken`.
fn next_free(first: u16, taken: &BTreeSet<u16>) -> Option<u16> {
    let is_free = |port| if port == first { is_free_soon(port) } else { is_free(port) };
    (first..=first.saturating_add(TRIES)).find(|port| !taken.contains(port) && is_free(*port))
}

/// Checks that a port is free, where a flag names one.
///
/// # Errors
/// It is taken.
pub(crate) fn check_named(flag: &str, named: Option<u16>) -> anyhow::Result<()> {
    match named {
        Some(port) if !is_free_soon(port) => bail!(taken_message(flag, port)),
        Some(_) | None => Ok(()),
    }
}

fn taken_message(flag: &str, port: u16) -> String {
    format!("port {port} of {flag} is taken: name a free one, or leave {flag} out")
}

/// A port as a flag names it, or the next free one from a default on.
///
/// # Errors
/// The named one is taken, or no other is free.
pub(crate) fn named_or_next(
    flag: &str,
    named: Option<u16>,
    default: u16,
    taken: &BTreeSet<u16>,
) -> anyhow::Result<u16> {
    match named {
        Some(port) if taken.contains(&port) || !is_free_soon(port) => {
            bail!(taken_message(flag, port))
        }
        Some(port) => Ok(port),
        None => match next_free(default, taken) {
            Some(port) => Ok(port),
            None => bail!("no port from {default} on is free: name one with {flag}"),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_is_refused_when_named_and_passed_over_when_not() {
        let held = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = held.local_addr().unwrap().port();
        let none = BTreeSet::new();
        let error = named_or_next("--gateway-port", Some(port), 4000, &none).unwrap_err();
        assert!(error.to_string().contains(&port.to_string()), "{error}");
        assert_ne!(named_or_next("--gateway-port", None, port, &none).unwrap(), port);
    }

    #[test]
    fn a_port_that_is_let_go_in_a_moment_is_waited_for() {
        let none = BTreeSet::new();
        for named in [true, false] {
            let held = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            let port = held.local_addr().unwrap().port();
            let dying = std::thread::spawn(move || {
                std::thread::park_timeout(PAUSE * 2);
                drop(held);
            });
            let named = named.then_some(port);
            assert_eq!(named_or_next("--gateway-port", named, port, &none).unwrap(), port);
            dying.join().unwrap();
        }
    }

    #[test]
    fn kept_ports_differ() {
        let ports = pick_kept(&Runtime::real(), 5).unwrap();
        assert_eq!(ports.iter().collect::<BTreeSet<_>>().len(), 5);
        assert!(ports.iter().all(|port| KEPT.contains(port)));
    }
}
