//! Connections to the other nodes, and who must be at their end.
//!
//! Every call says which cluster, node and incarnation sends it and which it means to reach; the receiver checks all of
//! it against its certificate, its own identity and the membership (I7).

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use holdfast_proto::peer::v1 as pb;
use holdfast_proto::peer::v1::peer_service_client::PeerServiceClient;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

use super::api::{Hello, Member, RaftError};
use super::dial::Dial;
use super::machine::AppliedState;
use super::shut_out::ShutOut;
use crate::crypto::Authority;
use crate::domain::{ClusterId, Incarnation, NodeId};
use crate::state::Position;

/// Metadata of every call between nodes: the cluster (UUID).
pub const CLUSTER: &str = "holdfast-cluster";
/// Metadata of every call between nodes: the sender's node id.
pub const FROM_NODE: &str = "holdfast-from-node";
/// Metadata of every call between nodes: the life of the sender's data directory (UUID).
pub const FROM_INCARNATION: &str = "holdfast-from-incarnation";
/// Metadata of every call between nodes: the node that is meant.
pub const TO_NODE: &str = "holdfast-to-node";
/// Metadata of calls to members: the life of the data directory that is meant (UUID).
pub const TO_INCARNATION: &str = "holdfast-to-incarnation";

/// Largest message between nodes: a batch of entries of [`super::log_store`]'s step size, or one entry of the largest
/// request, and room for the framing.
pub const PEER_MESSAGE_BYTES: usize = 4 * 1024 * 1024;
/// HTTP/2 window: a whole message may be under way.
const PEER_WINDOW_BYTES: u32 = 4 * 1024 * 1024;
const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);
/// How long a connection may leave a ping unanswered where small messages go to and fro.
const KEEPALIVE: Duration = Duration::from_secs(1);
/// The same where much is sent: a ping waits behind what was sent before it, which takes seconds on a slow link. Whether a member
/// is there is found out elsewhere, and answers to entries and pieces of snapshots have deadlines of their own.
const BULK_KEEPALIVE: Duration = Duration::from_secs(30);
/// How often such a connection is pinged. A snapshot whose other end is gone without a word waits this long, and then for
/// the ping, before it is sent anew.
const BULK_PING: Duration = Duration::from_secs(5);
/// How long a node that may join is given to answer.
const GREETING: Duration = Duration::from_secs(3);
const GREETING_PAUSE: Duration = Duration::from_millis(100);

/// What a connection is for. Each purpose has its own, so that a snapshot never delays a heartbeat.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Lane {
    /// Replication of the log.
    Log,
    /// Heartbeats, votes, status.
    Control,
    /// Snapshots.
    Bulk,
    /// Forwarded commands and read indexes.
    Forward,
}

pub(crate) type PeerClient = PeerServiceClient<InterceptedService<Channel, Stamp>>;

/// Stamps each call with who sends it and whom it is for.
#[derive(Clone)]
pub(crate) struct Stamp {
    values: Arc<[(&'static str, MetadataValue<Ascii>)]>,
}

impl Interceptor for Stamp {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        for (key, value) in self.values.iter() {
            request.metadata_mut().insert(*key, value.clone());
        }
        Ok(request)
    }
}

/// Whether no answer came in time, rather than a bad one.
fn is_silence(status: &Status) -> bool {
    use tonic::Code::{Cancelled, DeadlineExceeded, Unavailable};
    matches!(status.code(), Cancelled | DeadlineExceeded | Unavailable)
}

/// Who this node is towards the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// The cluster.
    pub cluster: ClusterId,
    /// The node.
    pub id: NodeId,
    /// The life of its data directory.
    pub incarnation: Incarnation,
}

/// Connections to the other nodes.
pub(crate) struct Peers {
    identity: Identity,
    dial: Arc<dyn Dial>,
    channels: Mutex<BTreeMap<(NodeId, String, Lane), Channel>>,
    acknowledged: Mutex<BTreeMap<NodeId, (u64, Position)>>,
    /// Told when a snapshot could not be read or was refused by its receiver.
    refused: Notify,
    quorum_age: OnceLock<QuorumAge>,
    /// Knows the deny-list.
    applied: OnceLock<Arc<AppliedState>>,
    /// Whether no heartbeats are sent; see `undelivered.rs`.
    silent: AtomicBool,
    /// What is known of refused calls.
    pub(crate) shut_out: ShutOut,
}

/// While it lives no heartbeats are sent.
pub(crate) struct Silence<'a>(&'a Peers);

impl Drop for Silence<'_> {
    fn drop(&mut self) {
        self.0.silent.store(false, Ordering::Relaxed);
    }
}

/// Tells the time since this node, as the leader, last had proof of a quorum.
type QuorumAge = Box<dyn Fn() -> Option<Duration> + Send + Sync>;

impl Peers {
    pub(crate) fn new(identity: Identity, dial: Arc<dyn Dial>) -> Self {
        Self {
            identity,
            dial,
            channels: Mutex::new(BTreeMap::new()),
            acknowledged: Mutex::new(BTreeMap::new()),
            refused: Notify::new(),
            quorum_age: OnceLock::new(),
            applied: OnceLock::new(),
            silent: AtomicBool::new(false),
            shut_out: ShutOut::default(),
        }
    }

    /// Whether anybody listens at an address of another node.
    pub(crate) async fn knock(&self, address: &str) -> std::io::Result<()> {
        self.dial.knock(address).await
    }

    /// Says where the age of the last proof of a quorum is known from now on. Only the first word counts.
    pub(crate) fn tell_quorum_age(&self, age: QuorumAge) {
        drop(self.quorum_age.set(age));
    }

    /// Takes another certificate and CA for calls that begin from now on: a connection with the old ones would be refused
    /// once they end.
    pub(crate) fn renew(&self, authority: Authority, certificate: crate::tls::Identity) {
        self.dial.renew(authority, certificate);
        self.channels.lock().clear();
    }

    /// Says where the deny-list is known from now on. Only the first word counts.
    pub(crate) fn tell_denied(&self, applied: Arc<AppliedState>) {
        drop(self.applied.set(applied));
    }

    /// Whether a node is on the deny-list. Nothing is sent to such a one, and nothing that it says counts: whoever has
    /// its key may run anything there.
    pub(crate) fn is_denied(&self, node: NodeId) -> bool {
        self.applied.get().is_some_and(|applied| applied.is_denied(node))
    }

    /// Time since this node, as the leader, last had proof of a quorum, in milliseconds, rounded up.
    pub(crate) fn quorum_age_ms(&self) -> Option<u64> {
        let age = self.quorum_age.get()?()?;
        u64::try_from(age.as_millis()).ok().map(|age| age.saturating_add(1))
    }

    /// Sends no heartbeats until what is returned is dropped.
    pub(crate) fn fall_silent(&self) -> Silence<'_> {
        self.silent.store(true, Ordering::Relaxed);
        Silence(self)
    }

    /// Whether no heartbeats are to be sent.
    pub(crate) fn silent(&self) -> bool {
        self.silent.load(Ordering::Relaxed)
    }

    /// A snapshot of this node could not be read, or its receiver found it damaged.
    pub(crate) fn note_snapshot_refused(&self) {
        self.refused.notify_one();
    }

    /// Waits until a snapshot is refused.
    pub(crate) async fn snapshot_refused(&self) {
        self.refused.notified().await;
    }

    pub(crate) fn identity(&self) -> Identity {
        self.identity
    }

    /// A client of a member. Connects when it is first used, and again after each failure.
    pub(crate) fn client(&self, member: &Member, lane: Lane) -> Result<PeerClient, RaftError> {
        self.client_at(member.id, &member.peer_address, Some(member.incarnation), lane)
    }

    fn client_at(
        &self,
        to: NodeId,
        address: &str,
        incarnation: Option<Incarnation>,
        lane: Lane,
    ) -> Result<PeerClient, RaftError> {
        if self.is_denied(to) {
            let what = format!("the certificate of node/{to} was denied by an administrator");
            return Err(RaftError::Membership(what));
        }
        let mut values = vec![
            (CLUSTER, self.identity.cluster.to_string()),
            (FROM_NODE, self.identity.id.to_string()),
            (FROM_INCARNATION, self.identity.incarnation.to_string()),
            (TO_NODE, to.to_string()),
        ];
        values.extend(incarnation.map(|incarnation| (TO_INCARNATION, incarnation.to_string())));
        let values: Result<Vec<_>, _> = values
            .into_iter()
            .map(|(key, value)| MetadataValue::try_from(value).map(|value| (key, value)))
            .collect();
        let values =
            values.map_err(|_| RaftError::Membership("an id is no metadata value".into()))?;
        let stamp = Stamp { values: values.into() };
        let client = PeerServiceClient::with_interceptor(self.channel(to, address, lane)?, stamp);
        Ok(client
            .max_decoding_message_size(PEER_MESSAGE_BYTES)
            .max_encoding_message_size(PEER_MESSAGE_BYTES))
    }

    fn channel(&self, to: NodeId, address: &str, lane: Lane) -> Result<Channel, RaftError> {
        let key = (to, address.to_owned(), lane);
        if let Some(channel) = self.channels.lock().get(&key) {
            return Ok(channel.clone());
        }
        let (ping, keepalive) = match lane {
            Lane::Log | Lane::Bulk => (BULK_PING, BULK_KEEPALIVE),
            Lane::Control | Lane::Forward => (KEEPALIVE, KEEPALIVE),
        };
        // The dial makes the TLS connection; the scheme only names the authority.
        let endpoint = Endpoint::from_shared(format!("http://{address}"))
            .map_err(|error| RaftError::Membership(format!("peer address {address}: {error}")))?
            .connect_timeout(CONNECT_TIMEOUT)
            .http2_keep_alive_interval(ping)
            .keep_alive_timeout(keepalive)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(PEER_WINDOW_BYTES)
            .initial_connection_window_size(PEER_WINDOW_BYTES);
        let channel = self.dial.channel(&endpoint, to, CONNECT_TIMEOUT)?;
        self.channels.lock().insert(key, channel.clone());
        Ok(channel)
    }

    /// Makes the next call to a member over this lane open a new connection.
    pub(crate) fn hang_up(&self, member: &Member, lane: Lane) {
        self.channels.lock().remove(&(member.id, member.peer_address.clone(), lane));
    }

    /// Notes that `member` has everything up to `position` on its disk, as its leader of `term` saw.
    pub(crate) fn note_acknowledged(&self, member: NodeId, term: u64, position: Position) {
        let mut acknowledged = self.acknowledged.lock();
        let entry = acknowledged.entry(member).or_insert((term, position));
        if entry.0 != term || entry.1 < position {
            *entry = (term, position);
        }
    }

    /// Greets a member: refuses it if its log ends below what this leader saw it acknowledge in `term` (I7).
    pub(crate) async fn greet(&self, member: &Member, term: u64) -> Result<(), String> {
        let seen =
            self.acknowledged.lock().get(&member.id).filter(|(t, _)| *t == term).map(|(_, p)| *p);
        let client = self.client(member, Lane::Control).map_err(|error| error.to_string())?;
        let hello = self.greet_with(client, member.id).await.map_err(|error| error.to_string())?;
        let lost = seen.filter(|seen| hello.last_log.is_none_or(|last| last.index < seen.index));
        match lost {
            None => Ok(()),
            Some(seen) => {
                tracing::error!(
                    node = member.id.get(),
                    acknowledged = seen.index,
                    last = hello.last_log.map(|last| last.index),
                    "a member lost entries that it had acknowledged; replace it under a new id"
                );
                Err(format!("node {} lost entries that it had acknowledged", member.id))
            }
        }
    }

    /// Greets a running node that may not be a member yet.
    pub(crate) async fn hello(&self, to: NodeId, address: &str) -> Result<Hello, RaftError> {
        let client = self.client_at(to, address, None, Lane::Control)?;
        let deadline = Instant::now() + GREETING;
        loop {
            match self.greet_with(client.clone(), to).await {
                Ok(hello) => return Ok(hello),
                // A busy machine may take longer than a connection between members does.
                Err(status) if is_silence(&status) && Instant::now() < deadline => {
                    tokio::time::sleep(GREETING_PAUSE).await;
                }
                Err(status) => {
                    let what = format!("node {to} at {address}: {}", status.message());
                    return Err(RaftError::Membership(what));
                }
            }
        }
    }

    async fn greet_with(&self, mut client: PeerClient, to: NodeId) -> Result<Hello, Status> {
        let mut request = Request::new(pb::HelloRequest {});
        request.set_timeout(CONNECT_TIMEOUT);
        let hello = client.hello(request).await?.into_inner();
        if hello.node_id != to.get() {
            return Err(Status::failed_precondition(format!(
                "node {} answers there",
                hello.node_id
            )));
        }
        let incarnation = Incarnation::from_slice(&hello.incarnation)
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        let last_log = hello.last_log.map(|id| Position { term: id.term, index: id.index });
        Ok(Hello { id: to, incarnation, last_log })
    }
}
