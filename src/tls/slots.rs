//! How many connections a port has: in total, and from one address.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use parking_lot::Mutex;

/// Places for connections. Clones share them.
#[derive(Debug, Clone)]
pub(super) struct Slots {
    total: usize,
    per_address: usize,
    taken: Arc<Mutex<Taken>>,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    from: BTreeMap<IpAddr, usize>,
}

/// A place that is taken until this is dropped.
#[derive(Debug)]
pub(super) struct Slot {
    from: IpAddr,
    taken: Arc<Mutex<Taken>>,
}

impl Slots {
    pub(super) fn new(total: usize, per_address: usize) -> Self {
        Self { total, per_address, taken: Arc::default() }
    }

    /// A place, if there is one for who comes from there.
    pub(super) fn take(&self, remote: SocketAddr) -> Option<Slot> {
        let from = origin(remote.ip());
        let mut taken = self.taken.lock();
        let here = taken.from.get(&from).copied().unwrap_or_default();
        if taken.all >= self.total || here >= self.per_address {
            return None;
        }
        taken.all = taken.all.saturating_add(1);
        taken.from.insert(from, here.saturating_add(1));
        drop(taken);
        Some(Slot { from, taken: Arc::clone(&self.taken) })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut taken = self.taken.lock();
        taken.all = taken.all.saturating_sub(1);
        let left = taken.from.get(&self.from).copied().unwrap_or_default().saturating_sub(1);
        if left == 0 {
            taken.from.remove(&self.from);
        } else {
            taken.from.insert(self.from, left);
        }
    }
}

/// What counts as one address: of IPv6 the network of 64 bits, of which a single host can use as many addresses as it likes.
fn origin(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(slots: &Slots, from: &str) -> Option<Slot> {
        slots.take(SocketAddr::new(from.parse().unwrap(), 1))
    }

    #[test]
    fn who_comes_from_one_address_leaves_places_for_others() {
        let slots = Slots::new(3, 2);
        let one = take(&slots, "10.0.0.1").unwrap();
        let two = take(&slots, "::ffff:10.0.0.1").unwrap();
        assert!(take(&slots, "10.0.0.1").is_none(), "the same address, however it is written");
        let three = take(&slots, "10.0.0.2").unwrap();
        assert!(take(&slots, "10.0.0.3").is_none(), "all places are taken");
        drop(two);
        assert!(take(&slots, "10.0.0.1").is_some());
        drop((one, three));
        assert!(slots.taken.lock().from.is_empty(), "who is gone takes no memory");
    }

    #[test]
    fn a_network_of_ipv6_counts_as_one_address() {
        let slots = Slots::new(9, 1);
        let one = take(&slots, "2001:db8:1:2::1").unwrap();
        assert!(take(&slots, "2001:db8:1:2:ffff::9").is_none());
        assert!(take(&slots, "2001:db8:1:3::1").is_some());
        drop(one);
    }
}
