//! Whether this node can open keys: it holds the unlocked keyring, and unlocks it when it can.
//!
//! A root key that is read from a file is used and forgotten. One that came in shares is kept beside the keyring that it
//! opened, since nobody else here could open the next epoch with it; both are forgotten at the seal.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};

use crate::crypto::{
    AgentCaParts, AgentCaSigner, Binding, CryptoError, EpochParts, EscrowPublicKey, KeyringParts,
    Part, RootKey, Secret, SignerParts, UnlockedKeyring, system_rng,
};
use crate::domain::{ClusterId, Epoch, Sealed};
use crate::state::{Heads, Keyring, query};

use super::unsealing::Progress;
use super::{Consensus, Context, ServiceError};

/// Why a node is sealed whose operator said so.
const BY_OPERATOR: &str = "an operator sealed the cluster; unseal it with `holdfast operator unseal`, with --auto where the root key is in a file";

/// Opens what was sealed to the cluster's escrow key.
pub trait Opener: Send + Sync + 'static {
    /// Opens it.
    ///
    /// # Errors
    /// If it was sealed to another key, bound to something else, or changed.
    fn open(&self, binding: &Binding, part: Part, sealed: &Sealed) -> Result<Secret, CryptoError>;

    /// Whether what is sealed to this escrow key opens: it is tried.
    fn opens_to(&self, key: &EscrowPublicKey) -> bool;

    /// Seals it to another escrow key of the same cluster, without letting the plaintext out.
    ///
    /// # Errors
    /// As [`Opener::open`]; or if the other key can't be opened here.
    fn reseal(
        &self,
        to: &EscrowPublicKey,
        binding: &Binding,
        part: Part,
        sealed: &Sealed,
    ) -> Result<Sealed, CryptoError>;

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

    fn opens_to(&self, key: &EscrowPublicKey) -> bool {
        Self::opens_to(self, key, &mut system_rng())
    }

    fn reseal(
        &self,
        to: &EscrowPublicKey,
        binding: &Binding,
        part: Part,
        sealed: &Sealed,
    ) -> Result<Sealed, CryptoError> {
        Self::reseal(self, to, binding, part, sealed, &mut system_rng())
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
    /// Shares that this node was given so far.
    pub(super) progress: Mutex<Option<Progress>>,
}

enum State {
    Sealed(String),
    Unsealed(Unsealed),
}

struct Unsealed {
    opener: Arc<dyn Opener>,
    parts: Option<KeyringParts>,
    /// Only if it came in shares.
    root: Option<Arc<RootKey>>,
    /// How often the cluster had been sealed by then.
    seals: u64,
    /// Why a newer keyring can't be unlocked, if that was said already.
    trouble: Option<String>,
}

/// How often the cluster was sealed, and whether it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SealMark {
    /// How often.
    pub seals: u64,
    /// Whether it is now.
    pub sealed: bool,
}

impl From<&Heads> for SealMark {
    fn from(heads: &Heads) -> Self {
        Self { seals: heads.seals, sealed: heads.sealed }
    }
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
        Self { cluster, key_file, data_dir, state, progress: Mutex::new(None) }
    }

    /// Already unsealed, by something that opens keys.
    pub fn with_opener(cluster: ClusterId, opener: Arc<dyn Opener>) -> Self {
        let state =
            State::Unsealed(Unsealed { opener, parts: None, root: None, seals: 0, trouble: None });
        let (state, progress) = (RwLock::new(state), Mutex::new(None));
        Self { cluster, key_file: None, data_dir: PathBuf::new(), state, progress }
    }

    /// Why the node can't open keys; `None` if it can.
    pub fn sealed_because(&self) -> Option<String> {
        match &*self.state.read() {
            State::Sealed(why) => Some(why.clone()),
            State::Unsealed(_) => None,
        }
    }

    /// The newest epoch that this node has opened: sealed something to it and opened that again. `None` if it is sealed, and
    /// has opened none.
    pub fn newest_opened(&self) -> Option<Epoch> {
        match &*self.state.read() {
            State::Sealed(_) => None,
            State::Unsealed(unsealed) => Some(unsealed.parts.as_ref()?.epochs.last()?.epoch),
        }
    }

    /// Whether it may read the root key from a file.
    pub const fn reads_key_file(&self) -> bool {
        self.key_file.is_some()
    }

    /// Why it can't open what was made since it was unsealed: a newer epoch, or anything after its next restart, because the
    /// root key was changed. `None` if it can.
    pub fn trouble(&self) -> Option<String> {
        match &*self.state.read() {
            State::Sealed(_) => None,
            State::Unsealed(unsealed) => unsealed.trouble.clone(),
        }
    }

    /// What opens keys.
    ///
    /// # Errors
    /// [`ServiceError::Sealed`] if the node has no unlocked keyring.
    pub fn opener(&self) -> Result<Arc<dyn Opener>, ServiceError> {
        match &*self.state.read() {
            State::Sealed(why) => Err(ServiceError::Sealed(why.clone())),
            State::Unsealed(unsealed) => Ok(Arc::clone(&unsealed.opener)),
        }
    }

    /// The root key: the one that it keeps, or the one in its file.
    ///
    /// # Errors
    /// If it has none.
    pub fn root_key(&self) -> Result<Arc<RootKey>, ServiceError> {
        if let State::Unsealed(Unsealed { root: Some(root), .. }) = &*self.state.read() {
            return Ok(Arc::clone(root));
        }
        self.read_root_key().map(Arc::new)
    }

    /// The root key that wrapped this keyring: the one that is kept, unless the cluster has another one by now.
    fn root_key_for(&self, parts: &KeyringParts) -> Result<Arc<RootKey>, ServiceError> {
        let kept = self.root_key()?;
        match kept.check(self.cluster, &parts.root_check) {
            Err(_) if self.key_file.is_some() => self.read_root_key().map(Arc::new),
            Ok(()) | Err(_) => Ok(kept),
        }
    }

    fn read_root_key(&self) -> Result<RootKey, ServiceError> {
        let Some(path) = self.key_file.as_deref() else {
            return Err(ServiceError::Sealed("no auto_unseal_key_file is configured".to_owned()));
        };
        RootKey::load(path, &self.data_dir)
            .map_err(|error| ServiceError::Sealed(describe(&error, Some(path))))
    }

    /// Unlocks the keyring of the replicated state if that is new, or forgets it if the cluster was sealed.
    pub fn refresh(&self, keyring: Option<&Keyring>, mark: SealMark) -> Change {
        self.forget_old_shares(mark.seals);
        let Some(keyring) = keyring else { return Change::None };
        if mark.sealed {
            return self.forget();
        }
        let parts = keyring_parts(keyring);
        // Sealed and unsealed again since: what was opened before that counts no more.
        self.forget_before(mark.seals);
        if self.knows(&parts) {
            return Change::None;
        }
        let unlocked = self.root_key_for(&parts).and_then(|root| {
            UnlockedKeyring::unlock(&root, self.cluster, &parts, &mut system_rng())
                .map_err(|error| ServiceError::Sealed(describe(&error, self.key_file.as_deref())))
        });
        match unlocked {
            Ok(unlocked) => {
                self.install(unlocked, parts, None, mark.seals);
                Change::Unsealed
            }
            Err(error) => self.stay_sealed(keyring, error),
        }
    }

    /// Whether it has opened the keyring as it is stored now.
    pub(super) fn has_opened(&self, keyring: &Keyring) -> bool {
        self.knows(&keyring_parts(keyring))
    }

    fn knows(&self, parts: &KeyringParts) -> bool {
        match &*self.state.read() {
            State::Unsealed(unsealed) => unsealed.parts.as_ref().is_none_or(|known| known == parts),
            State::Sealed(_) => false,
        }
    }

    /// Takes an unlocked keyring, and the root key if there is no other place to have it from. A root key that is kept stays.
    pub(super) fn install(
        &self,
        keyring: UnlockedKeyring,
        parts: KeyringParts,
        root: Option<Arc<RootKey>>,
        seals: u64,
    ) {
        let mut state = self.state.write();
        let kept = match &*state {
            State::Unsealed(Unsealed { root, .. }) => root.clone(),
            State::Sealed(_) => None,
        };
        let (opener, parts, root) = (Arc::new(keyring), Some(parts), root.or(kept));
        *state = State::Unsealed(Unsealed { opener, parts, root, seals, trouble: None });
        drop(state);
        *self.progress.lock() = None;
    }

    /// Forgets root key and opened keys, at the word of an operator. What is being opened at this moment ends.
    fn forget(&self) -> Change {
        let mut state = self.state.write();
        if matches!(&*state, State::Sealed(why) if why == BY_OPERATOR) {
            return Change::None;
        }
        *state = State::Sealed(BY_OPERATOR.to_owned());
        Change::Sealed(BY_OPERATOR.to_owned())
    }

    fn forget_before(&self, seals: u64) {
        let mut state = self.state.write();
        if matches!(&*state, State::Unsealed(unsealed) if unsealed.parts.is_some() && unsealed.seals != seals)
        {
            *state = State::Sealed(BY_OPERATOR.to_owned());
        }
    }

    fn stay_sealed(&self, keyring: &Keyring, error: ServiceError) -> Change {
        let why = match (&keyring.shares, error) {
            (Some(set), error) => {
                let why = format!(
                    "the root key is split: give this server {} of its {} shares with `holdfast operator unseal`",
                    set.threshold(),
                    set.shares()
                );
                // A file that was left over is no help, and may confuse whoever looks at the configuration.
                match error {
                    ServiceError::Sealed(file) if self.key_file.is_some() => {
                        format!("{why} ({file})")
                    }
                    _ => why,
                }
            }
            (_, ServiceError::Sealed(why)) => why,
            (_, other) => other.to_string(),
        };
        self.seal(why)
    }

    /// Keeps an older keyring that is unlocked: it still opens all keys but those of the newest epoch.
    fn seal(&self, why: String) -> Change {
        let mut state = self.state.write();
        match &mut *state {
            State::Sealed(known) if *known == why => Change::None,
            State::Unsealed(unsealed) if unsealed.trouble.as_ref() == Some(&why) => Change::None,
            State::Unsealed(unsealed) => {
                unsealed.trouble = Some(why.clone());
                Change::Sealed(why)
            }
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
    // In this order: a seal that comes in between is seen the next time, and forgets what this opened.
    let mark = SealMark::from(&context.heads()?);
    let keyring = query::keyring(context.consensus().view())?;
    let change = sealing.refresh(keyring.as_ref(), mark);
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
