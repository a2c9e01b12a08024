//! Certificates of whoever connects.

use std::net::SocketAddr;

use super::identity::identify;
use crate::crypto::{Leaf, chain_begins};
use crate::domain::Actor;
use crate::fuzzing::{CLUSTER, NOW, authorities, parts};
use crate::tls::PeerCertificates;

/// Identifies whoever shows this chain, whose certificates are parts. Who is identified was vouched for by the CA of its kind,
/// and its first certificate carries exactly its name.
pub(crate) fn certificate(bytes: &[u8]) -> bool {
    let chain: Vec<Vec<u8>> = parts(bytes).into_iter().map(<[u8]>::to_vec).collect();
    // Who keeps evidence asks this of chains that nobody has verified yet.
    drop(chain_begins(&chain));
    let first = chain.first().map(|first| Leaf::read(first));
    let peer = PeerCertificates::new(chain, SocketAddr::from(([127, 0, 0, 1], 1)));
    let Ok(caller) = identify(&peer, authorities(), CLUSTER, NOW) else { return false };
    let name = caller.actor().spiffe_uri(CLUSTER);
    assert!(first.is_some_and(|first| first.is_ok_and(|leaf| leaf.uri == name)), "{name}");
    true
}

/// Reads the one URI of a certificate. What is taken is spelled as we spell it.
pub(crate) fn certificate_name(bytes: &[u8]) -> bool {
    let Ok(uri) = std::str::from_utf8(bytes) else { return false };
    let actor = Actor::from_spiffe_uri(uri, CLUSTER);
    actor.is_ok_and(|actor| {
        assert_eq!(actor.spiffe_uri(CLUSTER), uri);
        assert_eq!(actor.to_string().parse().as_ref(), Ok(&actor));
        true
    })
}

#[cfg(test)]
pub(crate) fn seeds() -> Vec<crate::fuzzing::Seed> {
    use crate::domain::{DeviceId, NodeId};
    use crate::fuzzing::{issue, join};

    let actors = [
        ("node", Actor::Node(NodeId::new(3))),
        ("agent", Actor::Agent(DeviceId::from_bytes([0xd1; 16]))),
        ("operator", Actor::Operator("alice".parse().unwrap())),
    ];
    let mut seeds = Vec::new();
    for (kind, actor) in actors {
        let uri = actor.spiffe_uri(CLUSTER);
        let chain = join([issue(&actor, &uri).0]);
        seeds.push(("certificate", kind.to_owned(), chain));
        seeds.push(("certificate_name", kind.to_owned(), uri.into_bytes()));
    }
    seeds
}
