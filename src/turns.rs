//! What a simulation takes in hand so that a run can be repeated: threads and chance.
//!
//! In a server blocking work goes to threads of its own, and chance comes from the machine. On a thread that was given to a
//! simulation ([`simulate`]) everything happens in turn on that thread, and chance comes from the simulation's seed.
//! Nothing but `tests/simulation` calls that (`tests/architecture`).
//!
//! No key and no nonce is drawn here: those come from the operating system, always.

use std::cell::{Cell, RefCell};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngCore as _, SeedableRng as _};
use uuid::Uuid;

/// How late a write of a slow disk may be, in milliseconds.
const LATEST: u64 = 30;

thread_local! {
    static SLOW: Cell<bool> = const { Cell::new(false) };
    static CHANCE: RefCell<Option<StdRng>> = const { RefCell::new(None) };
}

/// Gives this thread to a simulation, for ever.
pub fn simulate(seed: u64) {
    CHANCE.with_borrow_mut(|chance| *chance = Some(StdRng::seed_from_u64(seed)));
}

/// Lets the disks of the simulation on this thread be slow: what is written to a log is written a little later.
pub fn slow_disks() {
    SLOW.set(true);
}

/// How late something is written; none unless this is a simulation of slow disks.
pub(crate) fn late() -> Option<Duration> {
    (SLOW.get() && simulated()).then(|| Duration::from_millis(1 + draw() % LATEST))
}

/// Whether this thread is a simulation's.
pub fn simulated() -> bool {
    CHANCE.with_borrow(Option::is_some)
}

/// A random number, for anything but secrets.
pub fn draw() -> u64 {
    CHANCE.with_borrow_mut(|chance| match chance {
        Some(chance) => chance.next_u64(),
        None => rand::rng().next_u64(),
    })
}

/// A random UUID (version 4).
pub fn draw_uuid() -> Uuid {
    let (high, low) = (draw(), draw());
    uuid::Builder::from_random_bytes((u128::from(high) << 64 | u128::from(low)).to_be_bytes())
        .into_uuid()
}

/// The work panicked, or the runtime ended before it was done.
#[derive(Debug, thiserror::Error)]
#[error("the work was cut off")]
pub struct CutOff;

/// Does what blocks away from the threads that serve, and waits for it. In a simulation it is done at once.
///
/// # Errors
/// If it was cut off.
pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, CutOff> {
    if simulated() {
        return Ok(work());
    }
    tokio::task::spawn_blocking(work).await.map_err(|_| CutOff)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chance_repeats_itself_only_on_a_thread_of_a_simulation() {
        let draws = |seed: Option<u64>| {
            let thread = std::thread::spawn(move || {
                seed.into_iter().for_each(simulate);
                (draw(), draw_uuid())
            });
            thread.join().unwrap()
        };
        assert_eq!(draws(Some(1)), draws(Some(1)));
        assert_ne!(draws(Some(1)), draws(Some(2)));
        assert_ne!(draws(None), draws(None));
        assert!(!simulated());
    }

    #[tokio::test]
    async fn what_blocks_leaves_the_thread_that_serves_unless_it_is_simulated() {
        let here = std::thread::current().id();
        assert_ne!(blocking(move || std::thread::current().id()).await.unwrap(), here);
        simulate(1);
        assert_eq!(blocking(move || std::thread::current().id()).await.unwrap(), here);
    }
}
