//! Panics of the view's engine on damaged files: they are caught, and the view is thrown away and rebuilt.
//!
//! Any other panic ends the process (`server/process.rs`), so whoever decides that has to know which ones are caught here.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

thread_local! {
    static DEPTH: Cell<usize> = const { Cell::new(0) };
}

/// Whether a panic on this thread would be caught.
pub fn panics_are_caught() -> bool {
    DEPTH.get() > 0
}

/// Runs `call`, and gives its panic as an error.
pub(super) fn caught<T>(call: impl FnOnce() -> T) -> std::thread::Result<T> {
    struct Leave;
    impl Drop for Leave {
        fn drop(&mut self) {
            DEPTH.set(DEPTH.get() - 1);
        }
    }
    DEPTH.set(DEPTH.get() + 1);
    let _leave = Leave;
    catch_unwind(AssertUnwindSafe(call))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_known_to_be_caught_only_where_it_is() {
        assert!(!panics_are_caught());
        assert!(caught(|| caught(panics_are_caught)).unwrap().unwrap());
        assert!(caught(|| panic!("damaged")).is_err());
        assert!(!panics_are_caught());
    }
}
