//! One message overtakes another one: what a network may do at any time. A run in which it happens more
//! often than in another one of the same seed shows that the hash covers the order of messages.

use std::net::SocketAddr;

use turmoil::Sim;

/// Has a message that is on its way arrive at once, if another one that was sent before it, between
/// the same hosts on another connection, is still on its way. One that arrives next in any case is
/// not to be told from others here.
pub(crate) fn overtake(sim: &Sim<'_>) {
    sim.links(|links| {
        for link in links {
            let mut earlier: Vec<(SocketAddr, SocketAddr)> = Vec::new();
            for sent in link {
                let (from, to) = sent.pair();
                let overtakes = |&(other_from, other_to): &(SocketAddr, SocketAddr)| {
                    (other_from.ip(), other_to.ip()) == (from.ip(), to.ip())
                        && (other_from, other_to) != (from, to)
                };
                if earlier.iter().any(overtakes) {
                    sent.deliver();
                    return;
                }
                earlier.push((from, to));
            }
        }
    });
}
