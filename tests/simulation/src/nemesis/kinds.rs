//! The kinds of what befalls machines and networks.

/// Kinds of fault.
pub(super) const KINDS: [Kind; 19] = [
    Kind::Kill,
    Kind::KillSeveral,
    Kind::Stop,
    Kind::PowerLoss,
    Kind::Blackout,
    Kind::LostCoordinator,
    Kind::LostConfig,
    Kind::Cut,
    Kind::Isolate,
    Kind::OneWay,
    Kind::Hold,
    Kind::Delay,
    Kind::DropReplies,
    Kind::Mute,
    Kind::SlowDisk,
    Kind::FullDisk,
    Kind::FailedSync,
    Kind::CorruptBlock,
    Kind::ClockStep,
];

/// Kinds that only come where they are asked for by name.
pub(super) const ON_DEMAND: [Kind; 5] = [
    Kind::WipeLog,
    Kind::StopDirectors,
    Kind::RolledBackLog,
    Kind::RolledBackStorage,
    Kind::RolledBackCoordinators,
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A service is killed.
    Kill,
    /// Several services are killed at once.
    KillSeveral,
    /// A service is asked to stop, and ends in its own time.
    Stop,
    /// A node loses its power, for a while.
    PowerLoss,
    /// All nodes do, at once; the coordinators' disks may be lost with it.
    Blackout,
    /// A node loses its power, and its coordinator its directory. Once in a history, so that the
    /// others are a majority.
    LostCoordinator,
    /// All nodes lose their power, every coordinator its directory, and no storage can read the
    /// configuration that it keeps. Only as the first fault of all: while an epoch is ready its logs
    /// show that theirs is the newest, and the cluster needs no operator.
    LostConfig,
    /// Two nodes can't talk.
    Cut,
    /// A node can talk to no other.
    Isolate,
    /// What one node sends to another is lost, but not the other way.
    OneWay,
    /// What two nodes send each other arrives late, all at once.
    Hold,
    /// The network between two nodes is slow.
    Delay,
    /// Connections to a service break as it answers.
    DropReplies,
    /// A service accepts connections and never answers.
    Mute,
    /// A node's disk is slow.
    SlowDisk,
    /// A node's disk is full.
    FullDisk,
    /// The next sync of a store fails.
    FailedSync,
    /// A block of a store can't be read any more.
    CorruptBlock,
    /// A node's wall clock is set forward or back.
    ClockStep,
    /// A log is killed, and its directory is gone.
    WipeLog,
    /// Every director is asked to stop, whichever one serves.
    StopDirectors,
    /// A log finds its disk as it was a while ago: a backup was put back, or the disk had lied of what
    /// it had synced.
    RolledBackLog,
    /// A storage does.
    RolledBackStorage,
    /// All nodes lose their power, and all coordinators find their disks as they were a while ago.
    /// Foremen may be slow to answer then.
    RolledBackCoordinators,
}

impl Kind {
    /// Its name, as `--fault` takes it.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Kind::Kill => "kill",
            Kind::KillSeveral => "kill several",
            Kind::Stop => "stop",
            Kind::PowerLoss => "power loss",
            Kind::Blackout => "blackout",
            Kind::LostCoordinator => "lost coordinator",
            Kind::LostConfig => "lost configuration",
            Kind::Cut => "cut",
            Kind::Isolate => "isolate",
            Kind::OneWay => "one way",
            Kind::Hold => "hold",
            Kind::Delay => "delay",
            Kind::DropReplies => "drop replies",
            Kind::Mute => "mute",
            Kind::SlowDisk => "slow disk",
            Kind::FullDisk => "full disk",
            Kind::FailedSync => "failed sync",
            Kind::CorruptBlock => "corrupt block",
            Kind::ClockStep => "clock step",
            Kind::WipeLog => "wipe log",
            Kind::StopDirectors => "stop directors",
            Kind::RolledBackLog => "rolled-back log",
            Kind::RolledBackStorage => "rolled-back storage",
            Kind::RolledBackCoordinators => "rolled-back coordinators",
        }
    }
}
