//! Certificates for everybody in a simulation, and who is told from whom by their address.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use holdfast::auth::Authorities;
use holdfast::cli::pki::{Pki, Subject, write_root_key};
use holdfast::crypto::{NodeSigner, SigningMaterial};
use holdfast::domain::{ClusterId, DeviceId, NodeId, Timestamp};
use holdfast::raft::PeerTls;

/// The cluster.
pub(crate) const CLUSTER: ClusterId = ClusterId::from_bytes([0xc1; 16]);
/// Everybody's certificate is valid for ten years from here on.
const ISSUED: u64 = 1_600_000_000_000;
/// Most nodes that a run may have, one after another.
pub(crate) const MOST_NODES: u64 = 9;
/// The agents.
pub(crate) const AGENTS: u64 = 3;
const DAYS: u32 = 3650;

/// When the simulation begins: half-way, so that a clock may be years off and its node still be believed.
pub(crate) const BEGIN: u64 = ISSUED + 5 * 365 * 86_400_000;

/// The certificate authority and all that it issued.
pub(crate) struct Credentials {
    directory: tempfile::TempDir,
    pub(crate) authorities: Arc<Authorities>,
    pub(crate) signer: SigningMaterial,
    signers: BTreeMap<u64, Arc<NodeSigner>>,
    chains: BTreeMap<String, Vec<Vec<u8>>>,
}

pub(crate) fn host(node: u64) -> String {
    format!("n{node}")
}

pub(crate) fn agent_host(agent: u64) -> String {
    format!("a{agent}")
}

pub(crate) fn device(agent: u64) -> DeviceId {
    DeviceId::from_bytes([0xd0 + u8::try_from(agent).unwrap(); 16])
}

impl Credentials {
    pub(crate) fn new() -> Self {
        let issued = Timestamp::from_millis(ISSUED);
        let directory = tempfile::tempdir().unwrap();
        let pki = Pki::init(&directory.path().join("pki"), CLUSTER, issued).unwrap();
        let operator = || Subject::Operator("desk".parse().unwrap());
        let mut subjects = vec![("desk".to_owned(), operator()), ("ops".to_owned(), operator())];
        subjects.extend((1..=AGENTS).map(|n| (agent_host(n), Subject::Agent(device(n)))));
        let mut chains = BTreeMap::new();
        for (host, subject) in subjects {
            let made = pki.make(&subject, DAYS, issued).unwrap();
            chains.insert(host, vec![made.certificate.to_vec()]);
        }
        let mut signers = BTreeMap::new();
        for id in 1..=MOST_NODES {
            let subject = Subject::Node { id: NodeId::new(id), hosts: vec![host(id)] };
            let made = pki.make(&subject, DAYS, issued).unwrap();
            let chain = vec![made.certificate.to_vec()];
            let signed = vec![chain[0].clone().into()];
            let key = made.private_key.expose_secret();
            let signer = NodeSigner::new(CLUSTER, NodeId::new(id), signed, key).unwrap();
            signers.insert(id, Arc::new(signer));
            chains.insert(host(id), chain);
        }
        write_root_key(&directory.path().join("root.key")).unwrap();
        let authorities = Arc::new(pki.authorities().unwrap());
        Self { signer: pki.signer(issued).unwrap(), authorities, directory, signers, chains }
    }

    pub(crate) fn root_key(&self) -> PathBuf {
        self.directory.path().join("root.key")
    }

    /// What a host would present in a handshake.
    pub(crate) fn chain(&self, host: &str) -> Vec<Vec<u8>> {
        self.chains.get(host).cloned().unwrap_or_default()
    }

    pub(crate) fn node_signer(&self, id: u64) -> Arc<NodeSigner> {
        Arc::clone(&self.signers[&id])
    }

    /// Files that a simulated node never reads: it has a dial instead.
    pub(crate) fn no_files() -> PeerTls {
        PeerTls { node_ca: PathBuf::new(), cert: PathBuf::new(), key: PathBuf::new() }
    }
}
