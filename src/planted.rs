//! Bugs that can be planted, to prove that the harnesses see them: `holdfast-chaos controls` (docs/reliability.md).
//!
//! Only a build with the feature `planted` has them, and of those only the one that `HOLDFAST_PLANT` names is awake. Such a
//! build says so in its version and in the first line of its log. Without the feature [`is`] is `false` for the compiler.

#[cfg(all(feature = "planted", not(debug_assertions)))]
compile_error!("the feature planted is for debug builds: a release must not have planted bugs");

/// The variable that names the bug.
#[cfg(feature = "planted")]
pub const VARIABLE: &str = "HOLDFAST_PLANT";

macro_rules! plants {
    ($($plant:ident, $name:literal, $does:literal;)*) => {
        /// A bug on purpose.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Plant {
            $(#[doc = $does] $plant,)*
        }

        impl Plant {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$plant,)*];

            /// Its name.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$plant => $name,)*
                }
            }

            /// What is wrong then, for a person.
            pub const fn does(self) -> &'static str {
                match self {
                    $(Self::$plant => $does,)*
                }
            }
        }
    };
}

plants! {
    LogUnsynced, "log-unsynced", "entries are acknowledged without an fsync of the log";
    VoteUnsynced, "vote-unsynced", "a vote is given without an fsync of the log";
    FsyncAgain, "fsync-again", "a failed fsync is tried again, and what the second one says is believed";
    AckBeforeCommit, "ack-before-commit", "an escrow is acknowledged before it is committed";
    LocalRead, "local-read", "a leader answers reads without asking whether it still leads";
    RotCutOff, "rot-cut-off", "a log that has rotted in its middle is cut off there";
    SnapshotLacksTable, "snapshot-lacks-table", "snapshots are made without the table of grants";
    DiscloseBeforeAudit, "disclose-before-audit", "a key is disclosed before the record of it is committed";
    RepeatsForgotten, "repeats-forgotten", "a repeated request is taken for a new one";
    VersionUnbound, "version-unbound", "the associated data of a sealed key lacks its version";
    RolesUnchecked, "roles-unchecked", "an operator needs no role";
    TimeoutDrawnOnce, "timeout-drawn-once", "the election timeout is drawn once, and not anew for each election";
    PurgeBeforeSnapshot, "purge-before-snapshot", "the log is purged although the snapshot may not be on disk";
    ApplyBeforeLog, "apply-before-log", "entries are applied before the log has them on disk";
}

/// There is no such bug.
#[cfg(feature = "planted")]
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{VARIABLE}: there is no planted bug {0:?}; there are {names}", names = names())]
pub struct UnknownPlant(String);

#[cfg(feature = "planted")]
fn names() -> String {
    Plant::ALL.iter().map(|plant| plant.name()).collect::<Vec<_>>().join(", ")
}

/// The bug of a name.
///
/// # Errors
/// If there is none.
#[cfg(feature = "planted")]
pub fn find(name: &str) -> Result<Plant, UnknownPlant> {
    let found = Plant::ALL.iter().copied().find(|plant| plant.name() == name);
    found.ok_or_else(|| UnknownPlant(name.to_owned()))
}

/// The bug that this process has, if any.
///
/// # Errors
/// If the variable names none that there is.
#[cfg(feature = "planted")]
pub fn chosen() -> Result<Option<Plant>, UnknownPlant> {
    static CHOSEN: std::sync::OnceLock<Result<Option<Plant>, UnknownPlant>> =
        std::sync::OnceLock::new();
    let read = || match std::env::var_os(VARIABLE) {
        Some(name) if !name.is_empty() => find(&name.to_string_lossy()).map(Some),
        _ => Ok(None),
    };
    CHOSEN.get_or_init(read).clone()
}

/// Whether this bug is awake.
#[cfg(feature = "planted")]
pub fn is(plant: Plant) -> bool {
    chosen() == Ok(Some(plant))
}

/// Whether this bug is awake: never.
#[cfg(not(feature = "planted"))]
pub const fn is(_plant: Plant) -> bool {
    false
}

/// Says in the log what kind of build this is, and which bug is awake.
///
/// # Errors
/// If the variable names none that there is.
#[cfg(feature = "planted")]
pub fn announce() -> Result<(), UnknownPlant> {
    let bug = chosen()?.map_or("none", Plant::name);
    tracing::error!(bug, "PLANTED: this build has bugs on purpose; never use it");
    Ok(())
}

/// Says what kind of build this is, if it is none to be used: it is.
///
/// # Errors
/// None.
#[cfg(not(feature = "planted"))]
pub const fn announce() -> Result<(), std::convert::Infallible> {
    Ok(())
}

/// The version as `--version` shows it.
pub const VERSION: &str = if cfg!(feature = "planted") {
    concat!(env!("CARGO_PKG_VERSION"), " PLANTED: this build has bugs on purpose; never use it")
} else {
    env!("CARGO_PKG_VERSION")
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_planted_bug_has_a_name_of_its_own() {
        let mut names: Vec<_> = Plant::ALL.iter().map(|plant| plant.name()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Plant::ALL.len());
    }

    #[test]
    #[cfg(not(feature = "planted"))]
    fn no_bug_is_awake_in_a_build_without_the_feature() {
        assert!(!Plant::ALL.iter().any(|plant| is(*plant)));
        assert!(!VERSION.contains("PLANTED"));
    }

    #[test]
    #[cfg(feature = "planted")]
    fn a_bug_is_found_by_its_name_and_an_unknown_one_is_refused_by_name() {
        assert_eq!(find("local-read"), Ok(Plant::LocalRead));
        assert!(find("lokal-read").unwrap_err().to_string().contains("lokal-read"));
        assert!(VERSION.contains("PLANTED"));
    }
}
