//! Who does something, as proven by a certificate or by a token.

use std::fmt;
use std::str::FromStr;

use super::{ClusterId, DeviceId, FieldError, NodeId, OidcSubject, OperatorName};

/// A proven identity. Printed as `node/1`, `agent/UUID`, `operator/alice` or `oidc/ISSUER#SUBJECT`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Actor {
    /// A server of the cluster.
    Node(NodeId),
    /// A client machine.
    Agent(DeviceId),
    /// A person with an operator certificate.
    Operator(OperatorName),
    /// A person with an access token of an OIDC provider. Never the same as an operator with a certificate, whatever the
    /// provider calls them.
    Oidc(OidcSubject),
}

/// A certificate's URI is not one of ours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpiffeError {
    /// Not `spiffe://<cluster>/{node/<id>,agent/<device>,operator/<name>}`.
    #[error("the URI is not spiffe://<cluster>/{{node/<id>,agent/<device>,operator/<name>}}")]
    Malformed,
    /// Well-formed, but of another cluster.
    #[error("the certificate belongs to cluster {0}")]
    ForeignCluster(ClusterId),
}

impl Actor {
    /// Whether it is a person who works with the cluster, however that was proven.
    pub const fn is_operator(&self) -> bool {
        matches!(self, Self::Operator(_) | Self::Oidc(_))
    }

    /// The URI that a certificate of this actor carries as its only URI SAN. There are no certificates of OIDC subjects.
    pub fn spiffe_uri(&self, cluster: ClusterId) -> String {
        format!("spiffe://{cluster}/{self}")
    }

    /// Parses a URI SAN strictly: exactly the form that [`Actor::spiffe_uri`] writes.
    ///
    /// # Errors
    /// If it has another form, or names another cluster.
    pub fn from_spiffe_uri(uri: &str, cluster: ClusterId) -> Result<Self, SpiffeError> {
        let rest = uri.strip_prefix("spiffe://").ok_or(SpiffeError::Malformed)?;
        let (domain, path) = rest.split_once('/').ok_or(SpiffeError::Malformed)?;
        let named: ClusterId = domain.parse().map_err(|_| SpiffeError::Malformed)?;
        let actor: Self = path.parse().map_err(|_| SpiffeError::Malformed)?;
        // No CA vouches for whom a provider has to vouch.
        if matches!(actor, Self::Oidc(_)) || actor.spiffe_uri(named) != uri {
            return Err(SpiffeError::Malformed);
        }
        if named == cluster { Ok(actor) } else { Err(SpiffeError::ForeignCluster(named)) }
    }
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node(id) => write!(f, "node/{id}"),
            Self::Agent(id) => write!(f, "agent/{id}"),
            Self::Operator(name) => write!(f, "operator/{name}"),
            Self::Oidc(subject) => write!(f, "oidc/{subject}"),
        }
    }
}

impl FromStr for Actor {
    type Err = FieldError;

    fn from_str(text: &str) -> Result<Self, FieldError> {
        let bad = || {
            let what =
                "must be node/<id>, agent/<device>, operator/<name> or oidc/<issuer>#<subject>";
            FieldError::new("actor", what)
        };
        let (kind, name) = text.split_once('/').ok_or_else(bad)?;
        match kind {
            "node" => {
                let id: u64 = name.parse().map_err(|_| bad())?;
                if id == 0 { Err(bad()) } else { Ok(Self::Node(NodeId::new(id))) }
            }
            "agent" => name.parse().map(Self::Agent).map_err(|_| bad()),
            "operator" => name.parse().map(Self::Operator).map_err(|_| bad()),
            "oidc" => name.parse().map(Self::Oidc).map_err(|_| bad()),
            _ => Err(bad()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLUSTER: ClusterId = ClusterId::from_bytes([7; 16]);

    #[test]
    fn a_spiffe_uri_round_trips_for_each_kind_of_actor() {
        let device = DeviceId::from_bytes([1; 16]);
        for actor in [
            Actor::Node(NodeId::new(3)),
            Actor::Agent(device),
            Actor::Operator("alice".parse().unwrap()),
        ] {
            assert_eq!(Actor::from_spiffe_uri(&actor.spiffe_uri(CLUSTER), CLUSTER), Ok(actor));
        }
    }

    #[test]
    fn a_uri_in_any_other_form_is_refused() {
        for bad in [
            "",
            "spiffe://",
            "https://07070707-0707-0707-0707-070707070707/node/1",
            "spiffe://07070707-0707-0707-0707-070707070707/node/01",
            "spiffe://07070707-0707-0707-0707-070707070707/node/0",
            "spiffe://07070707-0707-0707-0707-070707070707/node/+1",
            "spiffe://07070707-0707-0707-0707-070707070707/node/1/",
            "spiffe://07070707-0707-0707-0707-070707070707/robot/1",
            "spiffe://07070707-0707-0707-0707-070707070707/operator/",
            "spiffe://07070707070707070707070707070707/node/1",
            "spiffe://07070707-0707-0707-0707-070707070707/oidc/https://idp.example#alice",
        ] {
            assert_eq!(Actor::from_spiffe_uri(bad, CLUSTER), Err(SpiffeError::Malformed), "{bad}");
        }
    }

    #[test]
    fn a_certificate_of_another_cluster_is_named_as_such() {
        let other = ClusterId::from_bytes([8; 16]);
        let uri = Actor::Node(NodeId::new(1)).spiffe_uri(other);
        assert_eq!(Actor::from_spiffe_uri(&uri, CLUSTER), Err(SpiffeError::ForeignCluster(other)));
    }
}
