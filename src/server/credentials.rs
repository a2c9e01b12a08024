//! Who the server is, and who may vouch for others: read from files, and checked as a whole.

use std::sync::Arc;

use crate::auth::Authorities;
use crate::crypto::Authority;
use crate::domain::Actor;
use crate::tls::{Identity, Nameless, client_port_config, peer_port_config};

use super::config::Config;
use super::serve::ServeError;

/// The node's certificate and those who may vouch for others.
pub struct Credentials {
    /// The node's own.
    pub identity: Identity,
    /// The three CAs.
    pub authorities: Arc<Authorities>,
}

impl Credentials {
    /// Reads them from their files, and checks that they are those of this node and can be used for all that the server
    /// uses them for. `config check` does the same.
    ///
    /// # Errors
    /// Names the key of what can't be used.
    pub fn load(config: &Config) -> Result<Self, ServeError> {
        let authority = |key, name, path| {
            Authority::from_pem_file(name, path)
                .map_err(|source| ServeError::Authority { key, source })
        };
        let tls = &config.tls;
        let authorities = Authorities::new(
            authority("tls.node_ca", "node", &tls.node_ca)?,
            authority("tls.agent_ca", "agent", &tls.agent_ca)?,
            authority("tls.operator_ca", "operator", &tls.operator_ca)?,
        )
        .map_err(ServeError::Authorities)?;
        let identity = Identity::load(&tls.cert, &tls.key).map_err(ServeError::Identity)?;
        identity
            .expect(config.cluster_id, &Actor::Node(config.node_id))
            .map_err(ServeError::Identity)?;
        identity.node_signer(config.cluster_id, config.node_id).map_err(ServeError::Identity)?;
        client_port_config(
            &authorities.agent(),
            &authorities.operator(),
            &identity,
            Nameless::Refused,
        )
        .map_err(ServeError::Identity)?;
        peer_port_config(&authorities.node(), &identity).map_err(ServeError::Identity)?;
        Ok(Self { identity, authorities: Arc::new(authorities) })
    }
}
