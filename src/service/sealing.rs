//! Whether this node can open keys: it holds the unlocked keyring, and unlocks it when it can.
//!
//! The root key is read from a file, used, and forgotten; it is never kept beside the keyring that it opened.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::RwLock;

use crate::crypto::{
    AgentCaParts, AgentCaSigner, Binding, CryptoError, EpochParts, KeyringParts, Part, RootKey,
    Secret, SignerParts, UnlockedKeyring, system_rng,
};
use crate::domain::{ClusterId, Sealed};
use crate::state::{Keyring, query};

use super::{Consensus, Context, ServiceError};

/// Opens what was sealed to the cluster's escrow key.
pub trait Opener: Send + Sync + 'static {
    /// Opens it.
    ///
    /// # Errors
    /// If it was sealed to another key, bound to something else, or changed.
    fn open(&self, binding: &Binding, part: Part, sealed: &Sealed) -> Result<Secret, CryptoError>;

    /// The CA that signs certificates of devices, if there is one.
    ///
    /// # Errors
    /// Why it does not open.
    fn agent_ca(&self) -> Result<Option<&AgentCaSigner>, &CryptoError>;
}

impl Opener for UnlockedKeyring {
    fn open(&self, binding: &Binding, part: Part, sealed: &Sealed) -> Result<Secret, CryptoError> {
        Self::open(self, binding, part, sealed)
    }

    fn agent_ca(&self) -> Result<Option<&AgentCaSigner>, &CryptoError> {
        Self::agent_ca(self)
    }
}

/// Holder of the unlocked keyring.
pub struct Sealing {
    cluster: ClusterId,
    key_file: Option<PathBuf>,
    data_dir: PathBuf,
    state: RwLock<State>,
}

enum State {
    Sealed(String),
    Unsealed { opener: Arc<dyn Opener>, parts: Option<KeyringParts> },
}

/// What [`Sealing::refresh`] changed, for logs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Nothing.
    None,
    /// The node can open keys now.
    Unsealed,
    /// The node can't, for a new reason.
    Sealed(String),
}

impl Sealing {
    /// For a node that may read the root key from `key_file`, if there is one.
    pub fn new(cluster: ClusterId, key_file: Option<PathBuf>, data_dir: PathBuf) -> Self {
        let state = RwLock::new(State::Sealed("the cluster is not initialised".to_owned()));
        Self { cluster, key_file, data_dir, state }
    }

    /// Already unsealed, by something that opens keys.
    pub fn with_opener(cluster: ClusterId, opener: Arc<dyn Opener>) -> Self {
        let state = RwLock::new(State::Unsealed { opener, parts: None });
        Self { cluster, key_file: None, data_dir: PathBuf::new(), state }
    }

    /// Why the node can't open keys; `None` if it can.
    pub fn sealed_because(&self) -> Option<String> {
        match &*self.state.read() {
            State::Sealed(why) => Some(why.clone()),
            State::Unsealed { .. } => None,
        }
    }

    /// What opens keys.
    ///
    /// # Errors
    /// [`ServiceError::Sealed`] if the node has no unlocked keyring.
    pub fn opener(&self) -> Result<Arc<dyn Opener>, ServiceError> {
        match &*self.state.read() {
            State::Sealed(why) => Err(ServiceError::Sealed(why.clone())),
            State::Unsealed { opener, .. } => Ok(Arc::clone(opener)),
        }
    }

    /// Reads the root key.
    ///
    /// # Errors
    /// If this node has no file for it, or the file can't be used.
    pub fn root_key(&self) -> Result<RootKey, ServiceError> {
        let Some(path) = self.key_file.as_deref() else {
            return Err(ServiceError::Sealed("no auto_unseal_key_file is configured".to_owned()));
        };
        RootKey::load(path, &self.data_dir)
            .map_err(|error| ServiceError::Sealed(describe(&error, Some(path))))
    }

    /// Unlocks the keyring of the replicated state if that is new.
    pub fn refresh(&self, keyring: Option<&Keyring>) -> Change {
        let Some(keyring) = keyring else { return Change::None };
        let parts = keyring_parts(keyring);
        if let State::Unsealed { parts: known, .. } = &*self.state.read()
            && known.as_ref().is_none_or(|known| *known == parts)
        {
            return Change::None;
        }
        let unlocked = self.root_key().and_then(|root| {
            UnlockedKeyring::unlock(&root, self.cluster, &parts, &mut system_rng())
                .map_err(|error| ServiceError::Sealed(describe(&error, self.key_file.as_deref())))
        });
        match unlocked {
            Ok(keyring) => {
                *self.state.write() =
                    State::Unsealed { opener: Arc::new(keyring), parts: Some(parts) };
                Change::Unsealed
            }
            Err(ServiceError::Sealed(why)) => self.seal(why),
            Err(other) => self.seal(other.to_string()),
        }
    }

    /// Keeps an older keyring that is unlocked: it still opens all keys but those of the newest epoch.
    fn seal(&self, why: String) -> Change {
        let mut state = self.state.write();
        match &*state {
            State::Sealed(known) if *known == why => Change::None,
            State::Unsealed { .. } => Change::Sealed(why),
            State::Sealed(_) => {
                *state = State::Sealed(why.clone());
                Change::Sealed(why)
            }
        }
    }
}

/// Unlocks the replicated keyring if it is new, and tells the other members whether this node can open keys.
///
/// # Errors
/// If the local store fails.
pub fn refresh_sealing<C: Consensus>(
    context: &Context<C>,
    sealing: &Sealing,
) -> Result<Change, ServiceError> {
    let keyring = query::keyring(context.consensus().view())?;
    let change = sealing.refresh(keyring.as_ref());
    context.consensus().set_unsealed(sealing.sealed_because().is_none());
    Ok(change)
}

/// An error with its causes, on one line.
fn describe(error: &dyn std::error::Error, file: Option<&Path>) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    match file.map(|path| path.display().to_string()) {
        Some(path) if !text.contains(&path) => format!("{path}: {text}"),
        _ => text,
    }
}

/// The replicated keyring as the crypto layer takes it.
pub(super) fn keyring_parts(keyring: &Keyring) -> KeyringParts {
    KeyringParts {
        root_check: keyring.root_check,
        signer: SignerParts {
            chain: keyring.signer.chain.clone(),
            private_key: keyring.signer.private_key.0.clone(),
        },
        epochs: keyring
            .epochs
            .iter()
            .map(|epoch| EpochParts {
                epoch: epoch.epoch,
                public_key: epoch.public_key,
                private_key: epoch.private_key.0.clone(),
                signature: epoch.signature.clone(),
            })
            .collect(),
        agent_cas: keyring
            .agent_cas
            .iter()
            .map(|ca| AgentCaParts {
                number: ca.number,
                certificate: ca.certificate.clone(),
                private_key: ca.private_key.0.clone(),
            })
            .collect(),
    }
}
