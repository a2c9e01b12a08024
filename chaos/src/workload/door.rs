//! How a client reaches the servers: all of them or one, as somebody.

use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use holdfast::client::{Address, Client, ClientError, ClientOptions, IdentityFiles};

/// How long one server may take before another one is asked.
const ATTEMPT: Duration = Duration::from_millis(1500);
/// How long a call is tried by somebody who knows one server only.
const DEADLINE_ONE: Duration = Duration::from_millis(2500);
/// How long a call is tried over all servers.
const DEADLINE_ALL: Duration = Duration::from_secs(4);
/// How long what has to succeed is tried.
const PATIENT: Duration = Duration::from_secs(30);

/// A lock whose holder never leaves anything half done.
pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Where the servers are.
#[derive(Debug)]
pub(super) struct Endpoints {
    now: Mutex<(u64, Vec<(u64, String)>)>,
}

impl Endpoints {
    pub(super) const fn new(endpoints: Vec<(u64, String)>) -> Self {
        Self { now: Mutex::new((1, endpoints)) }
    }

    pub(super) fn set(&self, endpoints: Vec<(u64, String)>) {
        let mut now = locked(&self.now);
        *now = (now.0.saturating_add(1), endpoints);
    }

    pub(super) fn get(&self) -> (u64, Vec<(u64, String)>) {
        locked(&self.now).clone()
    }
}

/// A client that follows the servers when they move.
#[derive(Debug)]
pub(super) struct Door {
    ca: PathBuf,
    files: IdentityFiles,
    /// Which of the servers it knows; all if none.
    bound: Option<usize>,
    /// Which one is asked first.
    first: usize,
    open: Option<(u64, Option<u64>, Client)>,
}

impl Door {
    pub(super) const fn new(
        ca: PathBuf,
        files: IdentityFiles,
        bound: Option<usize>,
        first: usize,
    ) -> Self {
        Self { ca, files, bound, first, open: None }
    }

    /// The client, and the node that it is bound to.
    pub(super) fn client(
        &mut self,
        endpoints: &Endpoints,
    ) -> Result<(Option<u64>, Client), ClientError> {
        let (generation, servers) = endpoints.get();
        if let Some((known, node, client)) = &self.open
            && *known == generation
        {
            return Ok((*node, client.clone()));
        }
        let at = |index: usize| index.checked_rem(servers.len()).unwrap_or(0);
        let node = self.bound.and_then(|index| servers.get(at(index))).map(|(node, _)| *node);
        let mut chosen = servers.clone();
        chosen.retain(|(id, _)| node.is_none_or(|node| node == *id));
        if node.is_none() {
            chosen.rotate_left(at(self.first));
        }
        let deadline = if node.is_some() { DEADLINE_ONE } else { DEADLINE_ALL };
        let client = self.connect(&chosen, deadline, ATTEMPT)?;
        self.open = Some((generation, node, client.clone()));
        Ok((node, client))
    }

    /// A client that tries for long.
    pub(super) fn patient(&mut self, endpoints: &Endpoints) -> Result<Client, ClientError> {
        self.connect(&endpoints.get().1, PATIENT, Duration::from_secs(5))
    }

    fn connect(
        &self,
        servers: &[(u64, String)],
        deadline: Duration,
        attempt: Duration,
    ) -> Result<Client, ClientError> {
        let addresses = servers.iter().map(|(_, address)| address.parse::<Address>());
        Client::open(ClientOptions {
            endpoints: addresses.collect::<Result<_, _>>()?,
            ca: self.ca.clone(),
            identity: Some(self.files.clone()),
            access_token: None,
            deadline,
            attempt,
        })
    }
}
