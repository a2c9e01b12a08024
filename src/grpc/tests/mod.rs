//! The wire: what is refused, with which field named, and which status each error has.

mod api;
mod decode;
mod hostile;
mod status;
mod valid;

/// Well-formed requests, for the corpora of `fuzz/`.
pub(super) fn fuzzing_seeds() -> Vec<crate::fuzzing::Seed> {
    hostile::seeds()
}
