//! Work that must not hold up requests: a snapshot of a large state is seconds of processor time, on all nodes at about the
//! same moment.

use super::SnapshotError;

/// How much the thread yields to the others of the process (`nice`, 0 to 19). At 10 it gets a tenth of what a busy one gets,
/// and all that is idle.
const NICENESS: i32 = 10;

/// Does the work on a thread of its own with a low priority, and waits for it. A thread can't get its priority back without a
/// privilege, so it ends with the work.
pub(super) fn run<T: Send>(
    work: impl FnOnce() -> Result<T, SnapshotError> + Send,
) -> Result<T, SnapshotError> {
    if crate::turns::simulated() {
        return work();
    }
    std::thread::scope(|scope| {
        let lowered = || {
            // On Linux this is the calling thread alone. Without it the work is only less polite.
            if let Err(error) = rustix::process::setpriority_process(None, NICENESS) {
                tracing::debug!(%error, "the priority of a snapshot can't be lowered");
            }
            work()
        };
        let thread = std::thread::Builder::new().name("snapshot".to_owned());
        let thread = thread
            .spawn_scoped(scope, lowered)
            .map_err(|_| SnapshotError::Thread("can't be started"))?;
        thread.join().unwrap_or(Err(SnapshotError::Thread("panicked")))
    })
}
