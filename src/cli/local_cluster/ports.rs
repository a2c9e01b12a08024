//! Free ports on the loopback interface.
//!
//! A port of a server that is down for a moment looks free to everybody, so whoever starts local clusters also claims their
//! ports for as long as the cluster lives: by a socket in Linux's abstract namespace, which goes with its process.

use std::net::{Ipv4Addr, TcpListener};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};

use rand::Rng as _;

use super::error::LocalError;
use super::files::NodePorts;

/// Where ports are looked for: below the range that the kernel takes for outgoing connections, so that none of those
/// sits on the port of a node that is down for a moment.
const RANGE: std::ops::Range<u16> = 20_000..32_000;
/// How many ports are tried before giving up.
const ATTEMPTS: usize = 2000;

/// Keeps other local clusters from a port.
pub(super) type Claim = UnixListener;

/// Claims a port; `None` if another local cluster has it.
fn claim(port: u16) -> Option<Claim> {
    let name = SocketAddr::from_abstract_name(format!("holdfast-local-port-{port}")).ok()?;
    UnixListener::bind_addr(&name).ok()
}

/// Claims the ports of nodes from an earlier run as far as nobody else has them: a port that is taken is found at the start.
pub(super) fn claim_all(nodes: &[NodePorts]) -> Vec<Claim> {
    let ports = nodes.iter().flat_map(|node| [node.client, node.peer, node.http]);
    ports.filter_map(claim).collect()
}

fn is_free(port: u16) -> Option<TcpListener> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok()
}

/// Three free ports for each node, and the claims to them.
pub(super) fn choose(nodes: &[u64]) -> Result<(Vec<NodePorts>, Vec<Claim>), LocalError> {
    let mut claims = Vec::new();
    let mut take = || {
        for _ in 0..ATTEMPTS {
            let port = rand::rng().random_range(RANGE);
            if let Some(claim) = claim(port).filter(|_| is_free(port).is_some()) {
                claims.push(claim);
                return Ok(port);
            }
        }
        Err(LocalError::NoPorts)
    };
    let ports = nodes
        .iter()
        .map(|id| Ok(NodePorts { id: *id, client: take()?, peer: take()?, http: take()? }))
        .collect::<Result<Vec<_>, LocalError>>()?;
    Ok((ports, claims))
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
        let (ports, _claims) = choose(&[1, 2, 3]).unwrap();
        let all: std::collections::BTreeSet<_> =
            ports.iter().flat_map(|node| [node.client, node.peer, node.http]).collect();
        assert_eq!(all.len(), 9);
    }

    #[test]
    fn a_port_of_a_cluster_whose_servers_are_down_is_not_given_to_another_one() {
        let (ports, claims) = choose(&[7]).unwrap();
        assert!(is_free(ports[0].peer).is_some(), "nobody listens");
        assert!(claim(ports[0].peer).is_none());
        drop(claims);
        assert_eq!(claim_all(&ports).len(), 3);
    }

    #[test]
    fn a_taken_port_is_named_with_its_node() {
        let (ports, _claims) = choose(&[7]).unwrap();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, ports[0].peer)).unwrap();
        let error = check(&ports[0]).unwrap_err().to_string();
        assert!(error.contains("node 7") && error.contains(&ports[0].peer.to_string()), "{error}");
        drop(listener);
        check(&ports[0]).unwrap();
    }
}
