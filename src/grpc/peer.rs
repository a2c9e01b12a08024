//! The peer port: what nodes say to each other.
//!
//! Each call proves four things before it does anything: the certificate is a node's, it is the node that the call claims
//! to come from, the call is for this very node and life of its data directory, and the membership (where there is one)
//! knows the sender by that incarnation (I7).

use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use futures::{Stream, StreamExt as _};
use holdfast_proto::peer::v1 as pb;
use holdfast_proto::peer::v1::peer_service_server::{PeerService, PeerServiceServer};
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status, Streaming};

use crate::auth::{Authorities, identify_once};
use crate::clock::SharedClock;
use crate::domain::{Actor, ClusterId, Incarnation, NodeId};
use crate::fs::Fs;
use crate::raft::peer::{self, Call, PEER_MESSAGE_BYTES, PeerHandle, Sender};
use crate::state::codec;
use crate::tls::PeerCertificates;

/// Answers that may wait on one stream of forwarded commands.
const ANSWERS: usize = 1024;

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// The service of the peer port.
pub struct PeerApi<F: Fs> {
    node: PeerHandle<F>,
    authorities: Arc<Authorities>,
    clock: SharedClock,
}

impl<F: Fs> PeerApi<F> {
    /// The service of `node`. Callers are proven by `authorities`, at the time that `clock` tells.
    pub fn new(
        node: &crate::raft::Node<F>,
        authorities: Arc<Authorities>,
        clock: SharedClock,
    ) -> Self {
        Self { node: PeerHandle::new(node), authorities, clock }
    }

    /// The service, ready for a tonic server.
    pub fn into_server(self) -> PeerServiceServer<Self> {
        PeerServiceServer::new(self)
            .max_decoding_message_size(PEER_MESSAGE_BYTES)
            .max_encoding_message_size(PEER_MESSAGE_BYTES)
    }

    /// Who calls, proven.
    fn check<T>(&self, request: &Request<T>, call: Call) -> Result<(), Status> {
        let sender = self.sender(request)?;
        let checked = self.node.check(&sender, call);
        checked.map_err(|refusal| Status::permission_denied(refusal.to_string()))
    }

    fn sender<T>(&self, request: &Request<T>) -> Result<Sender, Status> {
        let certificates = request
            .extensions()
            .get::<PeerCertificates>()
            .ok_or_else(|| Status::unauthenticated("no certificate was presented"))?;
        let caller =
            identify_once(certificates, &self.authorities, self.node.cluster(), self.clock.now())
                .map_err(|error| Status::unauthenticated(error.to_string()))?;
        let Actor::Node(proven) = *caller.actor() else {
            return Err(Status::permission_denied("the certificate is not a node's"));
        };
        let metadata = request.metadata();
        let claimed = NodeId::new(number(metadata, peer::FROM_NODE)?);
        if claimed != proven {
            let what = format!(
                "the certificate is node {proven}'s, the call claims to come from node {claimed}"
            );
            return Err(Status::permission_denied(what));
        }
        let to_incarnation = metadata.contains_key(peer::TO_INCARNATION);
        Ok(Sender {
            cluster: word(metadata, peer::CLUSTER)?
                .parse::<ClusterId>()
                .map_err(|error| Status::invalid_argument(error.to_string()))?,
            id: proven,
            incarnation: incarnation(metadata, peer::FROM_INCARNATION)?,
            to: NodeId::new(number(metadata, peer::TO_NODE)?),
            to_incarnation: to_incarnation
                .then(|| incarnation(metadata, peer::TO_INCARNATION))
                .transpose()?,
        })
    }
}

fn word<'a>(metadata: &'a MetadataMap, key: &'static str) -> Result<&'a str, Status> {
    let value = metadata.get(key).and_then(|value| value.to_str().ok());
    value.ok_or_else(|| Status::invalid_argument(format!("{key} is missing")))
}

fn number(metadata: &MetadataMap, key: &'static str) -> Result<u64, Status> {
    word(metadata, key)?
        .parse()
        .map_err(|_| Status::invalid_argument(format!("{key} is not a number")))
}

fn incarnation(metadata: &MetadataMap, key: &'static str) -> Result<Incarnation, Status> {
    word(metadata, key)?
        .parse()
        .map_err(|_| Status::invalid_argument(format!("{key} is not a UUID")))
}

fn malformed(error: impl std::fmt::Display) -> Status {
    Status::invalid_argument(error.to_string())
}

fn stopped(error: impl std::fmt::Display) -> Status {
    Status::unavailable(error.to_string())
}

#[tonic::async_trait]
impl<F: Fs> PeerService for PeerApi<F> {
    async fn hello(
        &self,
        request: Request<pb::HelloRequest>,
    ) -> Result<Response<pb::HelloResponse>, Status> {
        self.check(&request, Call::Greeting)?;
        let hello = self.node.hello();
        Ok(Response::new(pb::HelloResponse {
            node_id: hello.id.get(),
            incarnation: Bytes::copy_from_slice(hello.incarnation.as_bytes()),
            last_log: hello.last_log.map(|at| pb::LogId { term: at.term, index: at.index }),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }))
    }

    type AppendStream = Answers<pb::AppendResponse>;

    async fn append(
        &self,
        request: Request<Streaming<pb::AppendRequest>>,
    ) -> Result<Response<Self::AppendStream>, Status> {
        self.check(&request, Call::Consensus)?;
        Ok(Response::new(self.node.append(request.into_inner()).boxed()))
    }

    async fn vote(
        &self,
        request: Request<pb::VoteRequest>,
    ) -> Result<Response<pb::VoteResponse>, Status> {
        self.check(&request, Call::Consensus)?;
        self.node.vote(request.into_inner()).await.map(Response::new).map_err(stopped)
    }

    async fn pre_vote(
        &self,
        request: Request<pb::VoteRequest>,
    ) -> Result<Response<pb::VoteResponse>, Status> {
        self.check(&request, Call::Consensus)?;
        self.node.pre_vote(request.into_inner()).await.map(Response::new).map_err(stopped)
    }

    async fn install_snapshot(
        &self,
        request: Request<Streaming<pb::SnapshotChunk>>,
    ) -> Result<Response<pb::InstallSnapshotResponse>, Status> {
        self.check(&request, Call::Consensus)?;
        self.node.install_snapshot(request.into_inner()).await.map(Response::new)
    }

    async fn transfer_leader(
        &self,
        request: Request<pb::TransferLeaderRequest>,
    ) -> Result<Response<pb::TransferLeaderResponse>, Status> {
        self.check(&request, Call::Consensus)?;
        self.node.transfer_leader(request.into_inner()).await.map(Response::new).map_err(stopped)
    }

    type ForwardStream = Answers<pb::ForwardResponse>;

    async fn forward(
        &self,
        request: Request<Streaming<pb::ForwardRequest>>,
    ) -> Result<Response<Self::ForwardStream>, Status> {
        self.check(&request, Call::OfMember)?;
        let mut commands = request.into_inner();
        let (sender, answers) = tokio::sync::mpsc::channel(ANSWERS);
        let node = self.node.clone();
        tokio::spawn(async move {
            while let Ok(Some(request)) = commands.message().await {
                let Ok(permit) = sender.clone().reserve_owned().await else { return };
                let node = node.clone();
                tokio::spawn(async move {
                    let result = match node.propose_forwarded(request.command).await {
                        Ok(applied) => {
                            pb::forward_response::Result::Applied(codec::encode_applied(&applied))
                        }
                        Err(error) => pb::forward_response::Result::Error(error),
                    };
                    permit.send(Ok(pb::ForwardResponse {
                        sequence: request.sequence,
                        result: Some(result),
                    }));
                });
            }
        });
        Ok(Response::new(ReceiverStream::new(answers).boxed()))
    }

    async fn read_index(
        &self,
        request: Request<pb::ReadIndexRequest>,
    ) -> Result<Response<pb::ReadIndexResponse>, Status> {
        self.check(&request, Call::OfMember)?;
        let at = self
            .node
            .read_index()
            .await
            .ok_or_else(|| Status::unavailable("this node does not lead"))?;
        let log_id = Some(pb::LogId { term: at.term, index: at.index });
        Ok(Response::new(pb::ReadIndexResponse { log_id }))
    }

    async fn status(
        &self,
        request: Request<pb::StatusRequest>,
    ) -> Result<Response<pb::StatusResponse>, Status> {
        self.check(&request, Call::OfMember)?;
        Ok(Response::new(pb::StatusResponse { status: self.node.status() }))
    }

    async fn compare(
        &self,
        request: Request<pb::CompareRequest>,
    ) -> Result<Response<pb::CompareResponse>, Status> {
        self.check(&request, Call::OfMember)?;
        Ok(Response::new(self.node.compare()))
    }

    async fn membership(
        &self,
        request: Request<pb::MembershipRequest>,
    ) -> Result<Response<pb::MembershipResponse>, Status> {
        self.check(&request, Call::OfMember)?;
        let changed = self.node.change_membership(request.into_inner()).await;
        changed.map(Response::new).map_err(|error| match error {
            crate::raft::RaftError::Membership(_) => malformed_change(&error),
            // The asker knows which id it asked for.
            crate::raft::RaftError::RemovedId(_) => Status::already_exists(error.to_string()),
            other => stopped(other),
        })
    }
}

/// A change that can't be made is the caller's to mend; the text goes back to the operator.
fn malformed_change(error: &crate::raft::RaftError) -> Status {
    let crate::raft::RaftError::Membership(what) = error else { return malformed(error) };
    Status::failed_precondition(what.clone())
}
