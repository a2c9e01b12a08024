//! What is proposed about the keyring and the seal.

use super::{EpochRecord, Wrapped};
use crate::domain::{Epoch, NodeId, Sealed, ShareSet};
use crate::state::KeyRef;

/// Another root key, by which everything is wrapped that the old one wrapped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rekey {
    /// Check value of the root key that it takes the place of.
    pub replaces: [u8; 32],
    /// Its own check value.
    pub root_check: [u8; 32],
    /// Private key of the signer.
    pub signer: Wrapped,
    /// Private keys of all epochs, the first epoch's first.
    pub epochs: Vec<Wrapped>,
    /// Private keys of all CAs of devices, in the order of their numbers.
    pub agent_cas: Vec<Wrapped>,
    /// How it is split, if it is.
    pub shares: Option<ShareSet>,
}

/// A new epoch of the escrow key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rotate {
    /// Check value of the root key that wrapped it: no other one could open it.
    pub root_check: [u8; 32],
    /// The epoch after the newest one.
    pub epoch: EpochRecord,
}

/// Keys that are sealed anew.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reseal {
    /// The epoch that they are sealed to.
    pub epoch: Epoch,
    /// At most [`crate::domain::limits::RESEALED_KEYS`].
    pub keys: Vec<ResealedKey>,
}

/// A key that is sealed anew. It counts only if what it replaces is still what is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResealedKey {
    /// Which one.
    pub at: KeyRef,
    /// [`crate::domain::sealed_digest`] of the sealed bytes that it takes the place of.
    pub replaces: [u8; 32],
    /// The key.
    pub sealed: Sealed,
    /// Its package, if it has one.
    pub package: Option<Sealed>,
}

/// Ends a seal, or records that a node was unsealed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unseal {
    /// How often the cluster had been sealed when this was asked for: a later seal is not undone by it.
    pub seals: u64,
    /// By what.
    pub by: UnsealedBy,
}

/// What ends a seal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UnsealedBy {
    /// An administrator: nodes may read the root key from where they have it.
    Order,
    /// Enough shares, which one node was given and has tried. The node is unsealed by this, and no other one but those
    /// that have the root key in a file.
    Shares {
        /// The node.
        node: NodeId,
        /// Numbers of the shares, ascending.
        numbers: Vec<u8>,
    },
}
