//! The client machine: what protects its volumes, and proves that it does.
//!
//! So far there are the volumes: [`volume`] says in the terms of whoever protects them what LUKS2 and BitLocker have in common, and
//! `luks2` does it with the cryptsetup of the machine. A recovery key exists here in memory alone, in types that wipe it, and
//! never in an argument, a file, a log line or an error.

mod error;
#[cfg(target_os = "linux")]
pub mod luks2;
pub mod volume;

pub use error::VolumeError;
