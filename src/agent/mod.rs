//! The client machine: no receipt, no encryption; no server, no prompt.
//!
//! - [`gate`] says what may be done to a volume next, and what must come before it.
//! - [`keeper`] carries it out, and holds the only plaintext there is.
//! - [`spool`] keeps what has to be delivered until a server has it; [`courier`] delivers it, at a [`pace`] that an outage does
//!   not turn into a flood.
//! - [`ledger`] keeps what is known of the volumes.
//! - [`volume`] says in the terms of whoever protects them what LUKS2 and BitLocker have in common, and `luks2` does it with
//!   the cryptsetup of the machine.
//!
//! A recovery key exists here in memory alone, in types that wipe it, and never in an argument, a file, a log line or an error.

pub mod courier;
mod error;
pub mod gate;
pub mod keeper;
pub mod ledger;
#[cfg(target_os = "linux")]
pub mod luks2;
pub mod pace;
pub mod spool;
pub mod volume;

#[cfg(all(test, feature = "server"))]
mod testing;

pub use error::VolumeError;
