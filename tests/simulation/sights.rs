//! What is to happen in one run or another: many runs in which something never went wrong say nothing about it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Context, SubscriberExt as _};
use tracing_subscriber::{Layer, Registry};

macro_rules! sights {
    ($($(#[$doc:meta])* $sight:ident $name:literal,)+) => {
        /// Something that is counted.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub(crate) enum Sight {
            $($(#[$doc])* $sight,)+
        }

        impl Sight {
            pub(crate) const ALL: &'static [Self] = &[$(Self::$sight),+];

            pub(crate) fn name(self) -> &'static str {
                match self {
                    $(Self::$sight => $name,)+
                }
            }
        }
    };
}

sights! {
    /// An escrow was acknowledged.
    Escrow "escrows",
    /// A key was disclosed.
    Disclosure "disclosures",
    /// An answer came after an earlier try of the same request whose outcome was unknown.
    AfterUnknown "after_unknown",
    /// The outcome of a call was unknown.
    Unknown "unknown",
    /// A call was refused, and asked again elsewhere.
    Refused "refused",
    /// A certificate was refused on a connection on which calls were answered before.
    RefusedForTime "refused_for_time",
    /// Another node leads than before.
    LeaderChange "leader_changes",
    /// A process was killed.
    Kill "kills",
    /// The power of some machines went.
    PowerCut "power_cuts",
    /// The power of all machines that ran went at once, and not all that was un-synced survived.
    PowerCutOfAll "power_cuts_of_all",
    /// A machine was cut off from others, both ways.
    Partition "partitions",
    /// A machine could hear others, or they it, but not both.
    OneWay "one_way_partitions",
    /// Messages were held back.
    Held "held",
    /// The network was slow.
    Slow "slow_networks",
    /// A clock went wrong by less than a year, or by years.
    Clock "wrong_clocks",
    ClockYears "clocks_years_off",
    /// A sync failed, and lost what it should have saved.
    FailedSync "failed_syncs",
    /// The power went within a write.
    TornWrite "torn_writes",
    /// A bit rotted.
    RotOfLog "rot_of_log",
    RotOfSnapshot "rot_of_snapshot",
    /// A node whose disk was lost has a successor.
    Replaced "replaced",
    /// A member without a vote was added, got a vote, was removed.
    Added "added",
    Promoted "promoted",
    Removed "removed",
    /// A node that led was removed.
    RemovedLeader "removed_leader",
    /// A fault began while a change of members was under way.
    FaultDuringChange "faults_during_change",
    /// Leadership was handed on.
    Transfer "transfers",
    /// A node took a snapshot of its state.
    SnapshotTaken "snapshots_taken",
    /// A node got its state by a snapshot of another one.
    SnapshotInstalled "snapshots_installed",
    /// The log of a node that stopped had been purged.
    Purged "purged_logs",
}

/// How often what was seen.
#[derive(Debug, Default)]
pub(crate) struct Sights(BTreeMap<Sight, u64>);

impl Sights {
    pub(crate) fn add(&mut self, sight: Sight, times: u64) {
        *self.0.entry(sight).or_default() += times;
    }
}

impl fmt::Display for Sights {
    /// All of them, so that who reads many runs knows what never happened.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, sight) in Sight::ALL.iter().enumerate() {
            let space = if at == 0 { "" } else { " " };
            let times = self.0.get(sight).copied().unwrap_or(0);
            write!(f, "{space}{}={times}", sight.name())?;
        }
        Ok(())
    }
}

/// Counts what nodes tell in their log.
pub(crate) struct Listener(pub(crate) Arc<Mutex<Sights>>);

impl Listener {
    /// Listens on this thread until the guard is dropped.
    pub(crate) fn listen(self) -> tracing::subscriber::DefaultGuard {
        let own = Targets::new().with_target("holdfast::raft", tracing::Level::INFO);
        let aloud = std::env::var("HOLDFAST_SIM_LOG").ok().map(|targets| {
            let targets: Targets = targets.parse().unwrap();
            tracing_subscriber::fmt::layer()
                .without_time()
                .with_writer(std::io::stderr)
                .with_filter(targets)
        });
        tracing::subscriber::set_default(
            Registry::default().with(aloud).with(self.with_filter(own)),
        )
    }
}

impl<S: Subscriber> Layer<S> for Listener {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        struct Message(Option<Sight>);
        impl Visit for Message {
            fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
                if field.name() == "message" {
                    self.0 = match format!("{value:?}").as_str() {
                        "snapshot taken" => Some(Sight::SnapshotTaken),
                        "snapshot installed" => Some(Sight::SnapshotInstalled),
                        _ => None,
                    };
                }
            }
        }
        let mut message = Message(None);
        event.record(&mut message);
        if let Some(sight) = message.0 {
            self.0.lock().add(sight, 1);
        }
    }
}
