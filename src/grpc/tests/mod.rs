//! The wire: what is refused, with which field named, and which status each error has.

mod decode;
mod hostile;
mod status;
