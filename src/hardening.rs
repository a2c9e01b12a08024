//! Keeps what is in a process's memory from its user's other processes and from the disk.

use std::io;

use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};

/// With this variable set to `1`, the user of a process may trace it: for debuggers and fault injection. A server says so in its
/// log.
pub const ALLOW_TRACING: &str = "HOLDFAST_ALLOW_TRACING";

/// Whether the user of this process may trace it, because [`ALLOW_TRACING`] says so.
pub fn tracing_allowed() -> bool {
    std::env::var_os(ALLOW_TRACING).is_some_and(|value| value == "1")
}

/// From now on the process leaves no core when it crashes, and only root can trace it or read its memory, unless
/// [`tracing_allowed`]. Processes that it starts begin without the latter.
///
/// # Errors
/// If the system refuses.
pub fn keep_memory_private() -> io::Result<()> {
    // A program that the kernel hands cores to (`core_pattern` with a pipe) disregards this limit, and is stopped by the other.
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    if !tracing_allowed() {
        set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use rustix::process::{dumpable_behavior, getrlimit};

    use super::*;

    #[test]
    #[ignore = "for a process of its own; the other test starts it"]
    fn in_a_process_of_its_own() {
        assert_eq!(dumpable_behavior().unwrap(), DumpableBehavior::Dumpable);
        keep_memory_private().unwrap();
        let traceable = dumpable_behavior().unwrap() == DumpableBehavior::Dumpable;
        assert_eq!(traceable, tracing_allowed());
        let none = Rlimit { current: Some(0), maximum: Some(0) };
        assert_eq!(getrlimit(Resource::Core), none);
    }

    #[test]
    fn a_process_leaves_no_core_and_can_not_be_traced_unless_that_is_allowed() {
        let name = "hardening::tests::in_a_process_of_its_own";
        for allow in ["", "1"] {
            let mut child = Command::new(std::env::current_exe().unwrap());
            child.args(["--ignored", "--exact", name]).env(ALLOW_TRACING, allow);
            let output = child.output().unwrap();
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            assert!(output.status.success() && said.contains("1 passed"), "{said}");
        }
    }
}
