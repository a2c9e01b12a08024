//! What the clients have told each other: volumes and how far they are known to be, keys, quotas.
//!
//! A version is known here only once a server has acknowledged or shown it, so the version that a client expects is never
//! ahead of the volume. That makes a refusal as stale final: versions only grow.

use std::collections::BTreeMap;
use std::sync::Mutex;

use rand::Rng;
use rand::seq::IndexedRandom as _;
use uuid::Uuid;

use super::door::locked;

/// Escrows to a volume after which a new one is begun; short histories are searched fast.
const ESCROWS: u32 = 40;
/// A search lists at most 200 keys: what it cuts off could not be checked.
const ESCROWS_MOST: u32 = 180;
/// A device has at most so many volumes.
const VOLUMES: usize = 64;
/// Volumes of a device that are in use at a time.
const ACTIVE: usize = 3;
/// Keys that the help desk chooses from.
const RECENT: usize = 400;

/// A volume, as far as it is known.
#[derive(Debug, Clone, Copy)]
pub(super) struct KnownVolume {
    pub(super) id: Uuid,
    /// The newest version that was acknowledged or read.
    pub(super) version: u32,
    /// Its key id.
    pub(super) protector: Uuid,
    /// Escrows that were sent.
    sent: u32,
}

/// A key version that may exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct KnownKey {
    pub(super) protector: Uuid,
    pub(super) version: u32,
}

#[derive(Debug, Default)]
struct Known {
    devices: BTreeMap<Uuid, Vec<KnownVolume>>,
    /// Acknowledged, in that order.
    keys: Vec<KnownKey>,
    /// Sent, and not known to be acknowledged.
    doubtful: Vec<KnownKey>,
    /// Disclosures that each help-desk operator may have been charged for.
    charges: Vec<u32>,
}

/// Shared by all clients.
#[derive(Debug)]
pub(super) struct Registry {
    known: Mutex<Known>,
}

impl Registry {
    pub(super) fn new(devices: impl Iterator<Item = Uuid>, operators: usize) -> Self {
        let known = Known {
            devices: devices.map(|device| (device, Vec::new())).collect(),
            charges: vec![0; operators],
            ..Known::default()
        };
        Self { known: Mutex::new(known) }
    }

    /// A volume to escrow to: one in use, or a new one. None if the device is full.
    pub(super) fn choose(&self, device: Uuid, rng: &mut impl Rng) -> Option<KnownVolume> {
        let mut known = locked(&self.known);
        let volumes = known.devices.get_mut(&device)?;
        let full = volumes.len() >= VOLUMES;
        let limit = if full { ESCROWS_MOST } else { ESCROWS };
        let usable: Vec<usize> = (0..volumes.len())
            .filter(|at| volumes.get(*at).is_some_and(|v| v.sent < limit))
            .collect();
        let enough = usable.len() >= ACTIVE && !rng.random_bool(0.01);
        if !full && !enough {
            let id = new_uuid(rng);
            let volume = KnownVolume { id, version: 0, protector: Uuid::nil(), sent: 1 };
            volumes.push(volume);
            return Some(volume);
        }
        let volume = volumes.get_mut(*usable.choose(rng)?)?;
        volume.sent = volume.sent.saturating_add(1);
        Some(*volume)
    }

    /// A version was acknowledged or read.
    pub(super) fn learn(&self, device: Uuid, volume: Uuid, version: u32, protector: Uuid) {
        let mut known = locked(&self.known);
        let volumes = known.devices.get_mut(&device);
        let volume = volumes.and_then(|all| all.iter_mut().find(|known| known.id == volume));
        if let Some(volume) = volume.filter(|known| known.version < version) {
            volume.version = version;
            volume.protector = protector;
        }
    }

    /// A key was sent and may be escrowed by now.
    pub(super) fn doubt(&self, key: KnownKey) {
        let doubtful = &mut locked(&self.known).doubtful;
        if doubtful.len() >= RECENT {
            doubtful.remove(0);
        }
        doubtful.push(key);
    }

    /// A key was acknowledged.
    pub(super) fn acknowledged(&self, key: KnownKey) {
        locked(&self.known).keys.push(key);
    }

    /// A key that the help desk is asked for: mostly a new one, sometimes an old one, sometimes one that nobody is sure of.
    pub(super) fn some_key(&self, rng: &mut impl Rng) -> Option<KnownKey> {
        let known = locked(&self.known);
        let dice = rng.random_range(0..10);
        if dice == 0 && !known.doubtful.is_empty() {
            return known.doubtful.choose(rng).copied();
        }
        let from = if dice < 8 { known.keys.len().saturating_sub(RECENT) } else { 0 };
        known.keys.get(from..)?.choose(rng).copied()
    }

    /// All acknowledged keys.
    pub(super) fn keys(&self) -> Vec<KnownKey> {
        let mut keys = locked(&self.known).keys.clone();
        keys.sort_unstable_by_key(|key| (key.protector, key.version));
        keys.dedup();
        keys
    }

    /// All volumes that something was sent to: device and volume.
    pub(super) fn volumes(&self) -> Vec<(Uuid, Uuid)> {
        let known = locked(&self.known);
        let volumes = known.devices.iter();
        volumes.flat_map(|(device, all)| all.iter().map(|volume| (*device, volume.id))).collect()
    }

    /// Some volumes of a device.
    pub(super) fn some_volumes(&self, device: Uuid, most: usize) -> Vec<Uuid> {
        let known = locked(&self.known);
        let volumes = known.devices.get(&device).map(Vec::as_slice).unwrap_or_default();
        volumes.iter().rev().take(most).map(|volume| volume.id).collect()
    }

    /// Charges an operator for a disclosure if it stays within `most`. All charges so far must stay within `all`.
    pub(super) fn charge(&self, operator: usize, most: u32, all: u32) -> bool {
        let mut known = locked(&self.known);
        let sum: u32 = known.charges.iter().sum();
        match known.charges.get_mut(operator) {
            Some(charges) if *charges < most && sum < all => {
                *charges = charges.saturating_add(1);
                true
            }
            Some(_) | None => false,
        }
    }

    /// What each operator was charged for.
    pub(super) fn charges(&self) -> Vec<u32> {
        locked(&self.known).charges.clone()
    }
}

/// A random UUID of version 4.
pub(super) fn new_uuid(rng: &mut impl Rng) -> Uuid {
    uuid::Builder::from_random_bytes(rng.random()).into_uuid()
}
