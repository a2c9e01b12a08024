//! The wire: what is refused, with which field named, and which status each error has.

mod api;
mod decode;
mod hostile;
mod status;
