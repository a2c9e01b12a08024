//! Free ports on the loopback interface.

use std::net::{Ipv4Addr, TcpListener};

use rand::Rng as _;

use super::error::LocalError;
use super::files::NodePorts;

/// Where ports are looked for: below the range that the kernel takes for outgoing connections, so that none of those
/// sits on the port of a node that is down for a moment.
const RANGE: std::ops::Range<u16> = 20_000..32_000;
/// How many ports are tried before giving up.
const ATTEMPTS: usize = 2000;

fn is_free(port: u16) -> Option<TcpListener> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok()
}

/// Three free ports for each node.
pub(super) fn choose(nodes: &[u64]) -> Result<Vec<NodePorts>, LocalError> {
    // All are held until all are found, so that none is found twice.
    let mut held = Vec::new();
    let mut take = || {
        for _ in 0..ATTEMPTS {
            let port = rand::rng().random_range(RANGE);
            if let Some(listener) = is_free(port) {
                held.push(listener);
                return Ok(port);
            }
        }
        Err(LocalError::NoPorts)
    };
    nodes
        .iter()
        .map(|id| Ok(NodePorts { id: *id, client: take()?, peer: take()?, http: take()? }))
        .collect()
}

/// Checks that nobody listens on a node's ports.
pub(super) fn check(node: &NodePorts) -> Result<(), LocalError> {
    for port in [node.client, node.peer, node.http] {
        if is_free(port).is_none() {
            return Err(LocalError::PortTaken { node: node.id, port });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_ports_of_a_cluster_are_different() {
        let ports = choose(&[1, 2, 3]).unwrap();
        let all: std::collections::BTreeSet<_> =
            ports.iter().flat_map(|node| [node.client, node.peer, node.http]).collect();
        assert_eq!(all.len(), 9);
    }

    #[test]
    fn a_taken_port_is_named_with_its_node() {
        let ports = choose(&[7]).unwrap();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, ports[0].peer)).unwrap();
        let error = check(&ports[0]).unwrap_err().to_string();
        assert!(error.contains("node 7") && error.contains(&ports[0].peer.to_string()), "{error}");
        drop(listener);
        check(&ports[0]).unwrap();
    }
}
