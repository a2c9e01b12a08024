//! (see lib.rs)

pub mod pki;
