//! What goes out of the machine, and how it names what is under way.

use std::sync::Arc;

use plinth_api::commit_proxy::{Assignment, Committed};
use plinth_api::log::Entry;
use plinth_api::resolver::Resolution;
use plinth_api::sequencer::{CommitVersionRequest, CommittedRequest};
use plinth_types::{ServiceRef, Version};

use crate::refusal::Refusal;

/// Who waits for an answer; the driver gives each request its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(pub u64);

/// A batch of this process, or a round of read versions; never used again, in a later epoch either.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Work(pub u64);

/// What the driver is to do. Calls go to the members of the epoch, in their order there.
#[derive(Clone, Debug)]
pub enum Command {
    /// Ask the sequencer for a batch's version.
    AskVersion {
        /// The batch.
        batch: Work,
        /// Its transactions; none for one that only carries what is known to be committed.
        tickets: Vec<Ticket>,
        /// The epoch's members.
        members: Arc<Assignment>,
        /// The question.
        request: CommitVersionRequest,
    },
    /// Ask every resolver.
    Resolve {
        /// The batch.
        batch: Work,
        /// The epoch's members.
        members: Arc<Assignment>,
        /// One question a resolver.
        requests: Vec<Resolution>,
    },
    /// Push to every log.
    Push {
        /// The batch.
        batch: Work,
        /// The epoch's members.
        members: Arc<Assignment>,
        /// One entry a log, without trace context.
        entries: Vec<Entry>,
    },
    /// Report a batch to the sequencer.
    Report {
        /// The batch.
        batch: Work,
        /// The epoch's members.
        members: Arc<Assignment>,
        /// The report.
        request: CommittedRequest,
    },
    /// Ask the sequencer for the latest committed version and, at the same time, every log whether
    /// it still serves the epoch.
    AskReadVersion {
        /// The round.
        round: Work,
        /// Who is served by it.
        tickets: Vec<Ticket>,
        /// The epoch's members.
        members: Arc<Assignment>,
    },
    /// Answer a commit.
    AnswerCommit {
        /// Whose it is.
        ticket: Ticket,
        /// The answer.
        result: Result<Committed, Refusal>,
    },
    /// Answer a request for a read version.
    AnswerRead {
        /// Whose it is.
        ticket: Ticket,
        /// The version, and how many of those that wait for it may begin.
        result: Result<(Version, u32), Refusal>,
    },
    /// Nothing is left to do here: end the process.
    Exit {
        /// Why.
        reason: String,
    },
}

/// A peer that did not answer as it should.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerFailure {
    /// Who.
    pub peer: ServiceRef,
    /// What happened.
    pub detail: String,
}
