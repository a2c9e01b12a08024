use std::net::SocketAddr;

use rcgen::ExtendedKeyUsagePurpose::{ClientAuth, ServerAuth};

use super::*;
use crate::crypto::testing::{CLUSTER, DEVICE, Made, Order, TestCa, days_from_now, now, operator};
use crate::domain::NodeId;

struct Cas {
    node: TestCa,
    agent: TestCa,
    operator: TestCa,
}

impl Cas {
    fn new() -> Self {
        let [node, agent, operator] = ["node", "agent", "operator"].map(TestCa::new);
        Self { node, agent, operator }
    }

    fn authorities(&self) -> Authorities {
        let [node, agent, operator] =
            [&self.node, &self.agent, &self.operator].map(TestCa::authority);
        Authorities::new(node, agent, operator).unwrap()
    }

    fn identify(&self, made: &Made) -> Result<Caller, IdentityError> {
        identify(&peer(made), &self.authorities(), CLUSTER, now())
    }
}

fn peer(made: &Made) -> PeerCertificates {
    PeerCertificates::new(vec![made.certificate.to_vec()], SocketAddr::from(([127, 0, 0, 1], 1)))
}

fn person(name: &str) -> Order {
    Order::actor(&operator(name)).usages(&[ClientAuth])
}

#[test]
fn each_kind_of_actor_is_identified_by_its_own_ca() {
    let cas = Cas::new();
    for (ca, actor) in [
        (&cas.node, Actor::Node(NodeId::new(3))),
        (&cas.agent, Actor::Agent(DEVICE)),
        (&cas.operator, operator("alice")),
    ] {
        let caller = cas.identify(&ca.make(&Order::actor(&actor))).unwrap();
        assert_eq!(caller.actor(), &actor);
        assert!(caller.not_after() > days_from_now(29) && !caller.serial().is_empty());
    }
}

#[test]
fn a_ca_makes_no_actor_of_another_kind() {
    let cas = Cas::new();
    for (ca, actor, right) in [
        (&cas.agent, operator("alice"), "operator"),
        (&cas.node, operator("alice"), "operator"),
        (&cas.operator, Actor::Agent(DEVICE), "agent"),
        (&cas.node, Actor::Agent(DEVICE), "agent"),
        (&cas.agent, Actor::Node(NodeId::new(1)), "node"),
        (&cas.operator, Actor::Node(NodeId::new(1)), "node"),
    ] {
        let error = cas.identify(&ca.make(&Order::actor(&actor))).unwrap_err();
        assert_eq!(error, CertificateError::ForeignCa(right).into(), "{actor}");
    }
}

#[test]
fn a_certificate_that_is_expired_foreign_or_missing_identifies_nobody() {
    let cas = Cas::new();
    let expired = cas.identify(&cas.operator.make(&person("alice").expired()));
    assert_eq!(expired.unwrap_err(), CertificateError::Expired.into());
    let foreign = cas.identify(&TestCa::new("operator").make(&person("alice")));
    assert_eq!(foreign.unwrap_err(), CertificateError::ForeignCa("operator").into());
    let nothing = PeerCertificates::new(Vec::new(), SocketAddr::from(([127, 0, 0, 1], 1)));
    let error = identify(&nothing, &cas.authorities(), CLUSTER, now()).unwrap_err();
    assert_eq!(error, CertificateError::Missing.into());
    let server = cas.identify(&cas.operator.make(&person("alice").usages(&[ServerAuth])));
    assert_eq!(server.unwrap_err(), CertificateError::WrongPurpose.into());
}

#[test]
fn a_certificate_with_two_uris_or_a_uri_that_is_not_ours_identifies_nobody() {
    let cas = Cas::new();
    let uri = |name: &str| format!("spiffe://{CLUSTER}/operator/{name}");
    let two = cas.operator.make(&Order::uris(&[&uri("alice"), &uri("bob")]));
    assert_eq!(cas.identify(&two).unwrap_err(), CertificateError::UriCount(2).into());
    for bad in ["https://example.org/", "spiffe://x/operator/alice", &uri("alice/"), &uri("")] {
        let error = cas.identify(&cas.operator.make(&Order::uris(&[bad]))).unwrap_err();
        assert_eq!(error, SpiffeError::Malformed.into(), "{bad}");
    }
    let other = ClusterId::from_bytes([0xee; 16]);
    let foreign = operator("alice").spiffe_uri(other);
    let error = cas.identify(&cas.operator.make(&Order::uris(&[&foreign]))).unwrap_err();
    assert_eq!(error, SpiffeError::ForeignCluster(other).into());
    let signer = cas.identify(&cas.node.make(&Order::escrow_signer())).unwrap_err();
    assert_eq!(signer, SpiffeError::Malformed.into(), "the escrow signer is no actor");
}

#[test]
fn two_kinds_must_not_share_a_ca() {
    let cas = Cas::new();
    let [node, agent, operator] = [&cas.node, &cas.agent, &cas.operator].map(TestCa::authority);
    for (node, agent, operator) in [
        (node.clone(), node.clone(), operator.clone()),
        (node.clone(), agent.clone(), node),
        (operator.clone(), agent.clone(), operator),
    ] {
        let error = Authorities::new(node, agent, operator).unwrap_err();
        assert_eq!(error, IdentityError::SharedCa);
    }
}

#[test]
fn identification_is_done_once_for_a_connection_but_expiry_is_checked_each_time() {
    let cas = Cas::new();
    let peer = peer(&cas.operator.make(&person("alice")));
    let authorities = cas.authorities();
    let first = identify_once(&peer, &authorities, CLUSTER, now()).unwrap();
    // With other CAs it would fail, were it done anew.
    let others = Cas::new().authorities();
    let second = identify_once(&peer.clone(), &others, CLUSTER, now()).unwrap();
    assert!(Arc::ptr_eq(&first, &second));
    let error = identify_once(&peer, &authorities, CLUSTER, days_from_now(31)).unwrap_err();
    assert_eq!(error, IdentityError::Expired);
    assert!(identify_once(&peer, &authorities, CLUSTER, now()).is_ok());
}

#[test]
fn a_connection_that_was_refused_while_the_clock_was_wrong_is_believed_when_it_is_right() {
    let cas = Cas::new();
    let peer = peer(&cas.operator.make(&person("alice")));
    let authorities = cas.authorities();
    assert!(identify_once(&peer, &authorities, CLUSTER, days_from_now(31)).is_err());
    assert!(identify_once(&peer, &authorities, CLUSTER, now()).is_ok());
}

#[test]
fn agents_of_the_clusters_own_ca_are_identified_beside_those_of_the_configured_one_and_stay_so() {
    let (cas, own) = (Cas::new(), TestCa::new("agent"));
    let authorities = cas.authorities();
    let order = Order::actor(&Actor::Agent(DEVICE)).usages(&[ClientAuth]);
    let known = |ca: &TestCa| identify(&peer(&ca.make(&order)), &authorities, CLUSTER, now());
    let certificates = |ca: &TestCa| ca.authority().certificates().to_vec();
    assert!(known(&own).is_err());
    authorities.set_own_agents(certificates(&own)).unwrap();
    assert!(known(&own).is_ok() && known(&cas.agent).is_ok());
    // It makes agents, and nobody else.
    let forged = peer(&own.make(&person("alice")));
    assert!(identify(&forged, &authorities, CLUSTER, now()).is_err());
    // Files that are read again change nothing of it.
    let renewed = Cas::new();
    authorities.replace(&renewed.authorities()).unwrap();
    assert!(known(&own).is_ok() && known(&renewed.agent).is_ok() && known(&cas.agent).is_err());
    // What vouches for others must not vouch for agents, whichever comes first.
    let shared = authorities.set_own_agents(certificates(&renewed.operator));
    assert_eq!(shared, Err(IdentityError::SharedCa));
    let [node, agent] = [&renewed.node, &renewed.agent].map(TestCa::authority);
    let taken = Authorities::new(node, agent, own.authority()).unwrap();
    assert_eq!(authorities.replace(&taken), Err(IdentityError::SharedCa));
    assert!(known(&own).is_ok() && known(&renewed.agent).is_ok());
}
