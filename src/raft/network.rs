//! Openraft's network over gRPC between nodes.

use std::future::Future;
use std::sync::Arc;

use futures::{FutureExt as _, Stream, StreamExt as _};
use holdfast_proto::peer::v1 as pb;
use openraft::OptionalSend;
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::v2::RaftNetworkV2;
use openraft::network::{RPCOption, RaftNetworkFactory};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendResult,
    TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::type_config::alias::SnapshotOf;
use tokio::time::Instant;
use tokio::time::error::Elapsed;
use tonic::{Request, Status};

use super::api::Member;
use super::chunks::{send_chunks, why_unsent};
use super::outgoing::{APPEND_TIMEOUT, Traffic, while_wanted};
use super::peers::{Lane, PeerClient, Peers};
use super::types::{TypeConfig, Vote, position};
use super::wire::{
    WireError, append_result_from_wire, append_to_wire, log_id_to_wire, snapshot_header_to_wire,
    vote_from_wire, vote_request_to_wire, vote_response_from_wire, vote_to_wire,
};
use crate::fs::Fs;
use crate::storage::snapshot::SnapshotFile;

/// Snapshot chunks that may be read ahead of the network.
const CHUNKS_AHEAD: usize = 4;

type BoxStream<'a, T> = futures::stream::BoxStream<'a, T>;

/// Makes openraft's connections.
pub(crate) struct Network<F> {
    peers: Arc<Peers>,
    _fs: std::marker::PhantomData<fn() -> F>,
}

impl<F: Fs> Network<F> {
    pub(crate) fn new(peers: Arc<Peers>) -> Self {
        Self { peers, _fs: std::marker::PhantomData }
    }

    fn connection(&self, node: &Member, lane: Lane) -> Connection<F> {
        Connection {
            peers: self.peers.clone(),
            member: node.clone(),
            lane,
            beats: None,
            _fs: std::marker::PhantomData,
        }
    }
}

impl<F: Fs> RaftNetworkFactory<TypeConfig> for Network<F> {
    type Network = Connection<F>;

    async fn new_client(&mut self, _target: u64, node: &Member) -> Connection<F> {
        self.connection(node, Lane::Log)
    }

    async fn new_heartbeat_client(&mut self, _target: u64, node: &Member) -> Connection<F> {
        self.connection(node, Lane::Control)
    }

    async fn new_snapshot_client(&mut self, _target: u64, node: &Member) -> Connection<F> {
        self.connection(node, Lane::Bulk)
    }
}

/// One connection to one member, for one purpose.
pub(crate) struct Connection<F> {
    peers: Arc<Peers>,
    member: Member,
    lane: Lane,
    /// The stream for heartbeats, once one was sent and until one fails.
    beats: Option<Beats>,
    _fs: std::marker::PhantomData<fn() -> F>,
}

/// A stream that stays open for heartbeats: each linearizable read waits for one from a majority, and a call of its own for
/// each would cost more than the heartbeat.
struct Beats {
    requests: tokio::sync::mpsc::Sender<pb::AppendRequest>,
    answers: tonic::Streaming<pb::AppendResponse>,
}

impl Beats {
    async fn open(mut client: PeerClient) -> Result<Self, Status> {
        let (requests, outgoing) = tokio::sync::mpsc::channel(1);
        let outgoing = tokio_stream::wrappers::ReceiverStream::new(outgoing);
        let answers = client.append(outgoing).await?.into_inner();
        Ok(Self { requests, answers })
    }

    async fn exchange(&mut self, request: pb::AppendRequest) -> Result<pb::AppendResponse, Status> {
        let ended = || Status::unavailable("no answer");
        // If the stream has ended, what it ended with says more.
        let sent = self.requests.send(request).await.map_err(|_| ended());
        let answer = self.answers.message().await?;
        sent.and(answer.ok_or_else(ended))
    }
}

/// An answer that never came, or says that nothing can be done: openraft backs off.
fn unreachable(error: impl std::error::Error + 'static) -> RPCError<TypeConfig> {
    RPCError::Unreachable(Unreachable::new(&error))
}

fn failed(status: &Status) -> RPCError<TypeConfig> {
    // A full disk does not pass at once: openraft backs off.
    if status.code() == tonic::Code::ResourceExhausted {
        return RPCError::Unreachable(Unreachable::new(status));
    }
    RPCError::Network(NetworkError::new(status))
}

fn text(message: impl Into<String>) -> std::io::Error {
    std::io::Error::other(message.into())
}

impl<F: Fs> Connection<F> {
    fn client(&self) -> Result<PeerClient, RPCError<TypeConfig>> {
        self.peers.client(&self.member, self.lane).map_err(unreachable)
    }

    /// A snapshot could not be read, or the connection did not take it.
    fn snapshot_unsent(&self, error: &std::io::Error) -> StreamingError<TypeConfig> {
        self.peers.shut_out.snapshot_not_taken_by(self.member.id, &error.to_string());
        if error.kind() == std::io::ErrorKind::TimedOut {
            self.peers.hang_up(&self.member, self.lane);
        } else {
            self.peers.note_snapshot_refused();
        }
        StreamingError::Unreachable(Unreachable::new(error))
    }

    /// Votes and heartbeats must not queue behind a batch of entries.
    fn control(&self) -> Result<PeerClient, RPCError<TypeConfig>> {
        self.peers.client(&self.member, Lane::Control).map_err(unreachable)
    }

    /// Sends one request without entries over the stream that is kept for them. If this is given up half-way, the next
    /// one opens a new stream: an answer never passes for that of a later request.
    async fn beat(
        &mut self,
        request: AppendEntriesRequest<TypeConfig>,
    ) -> Result<StreamAppendResult<TypeConfig>, RPCError<TypeConfig>> {
        if self.peers.silent() {
            return Err(unreachable(text("this leader gives way")));
        }
        if self.peers.is_denied(self.member.id) {
            self.beats = None;
            return Err(unreachable(text("the member's certificate was denied")));
        }
        let mut beats = match self.beats.take() {
            Some(beats) => beats,
            None => Beats::open(self.control()?).await.map_err(unreachable)?,
        };
        let request = stamped(&self.peers, request);
        let answer = beats.exchange(request).await.map_err(unreachable)?;
        let result = append_result_from_wire(answer).map_err(unreachable)?;
        // After a refusal the follower ends the stream.
        self.beats = result.is_ok().then_some(beats);
        Ok(result)
    }

    /// Answers each request over the stream that is kept for heartbeats.
    fn beat_each<'s, S>(
        &'s mut self,
        input: S,
    ) -> BoxStream<'s, Result<StreamAppendResult<TypeConfig>, RPCError<TypeConfig>>>
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + OptionalSend + Unpin + 'static,
    {
        let answers = futures::stream::unfold((self, input), |(connection, mut input)| async {
            let request = input.next().await?;
            Some((connection.beat(request).await, (connection, input)))
        });
        answers.boxed()
    }

    /// Within the time that openraft allows, or unreachable.
    async fn within<T>(
        &self,
        option: &RPCOption,
        call: impl Future<Output = Result<tonic::Response<T>, Status>>,
    ) -> Result<T, RPCError<TypeConfig>> {
        match tokio::time::timeout(option.hard_ttl(), call).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => {
                if status.code() == tonic::Code::PermissionDenied {
                    self.peers.shut_out.refused_by(self.member.id, status.message());
                }
                Err(unreachable(status))
            }
            Err(elapsed) => Err(unreachable(elapsed)),
        }
    }

    async fn open_append<'s, S>(
        &'s mut self,
        input: S,
    ) -> Result<
        BoxStream<'s, Result<StreamAppendResult<TypeConfig>, RPCError<TypeConfig>>>,
        RPCError<TypeConfig>,
    >
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + OptionalSend + Unpin + 'static,
    {
        let mut client = self.client()?;
        let mut input = input;
        let Some(first) = input.next().await else { return Ok(futures::stream::empty().boxed()) };
        let term = first.vote.leader_id.term;
        let greeting = self.peers.greet(&self.member, term).await;
        greeting.map_err(|message| unreachable(text(message)))?;
        let (traffic, stamping) = (Traffic::default(), self.peers.clone());
        // The stream ends with the first batch that finds the member denied.
        let (allowing, to) = (self.peers.clone(), self.member.id);
        let allowed = futures::stream::once(std::future::ready(first))
            .chain(input)
            .take_while(move |_| std::future::ready(!allowing.is_denied(to)));
        let requests = traffic.note(allowed.map(move |request| stamped(&stamping, request)));
        let (wanted, requests) = while_wanted(requests);
        let call = client.append(requests);
        let Ok(answers) = tokio::time::timeout(APPEND_TIMEOUT, call).await else {
            self.peers.hang_up(&self.member, Lane::Log);
            return Err(unreachable(text("the stream is not taken")));
        };
        let answers = answers.map_err(unreachable)?.into_inner();
        let (peers, member) = (self.peers.clone(), self.member.clone());
        let answers = futures::stream::unfold(Some((answers, wanted)), move |state| {
            let (peers, traffic, member) = (peers.clone(), traffic.clone(), member.clone());
            async move {
                let (mut answers, wanted) = state?;
                let result = match next_answer(&mut answers, &traffic).await {
                    Ok(answer) => answer?,
                    Err(elapsed) => {
                        // Whatever holds it up, a new stream over the same connection might be held up too.
                        peers.hang_up(&member, Lane::Log);
                        Err(RPCError::Network(NetworkError::new(&elapsed)))
                    }
                };
                if peers.is_denied(member.id) {
                    return None;
                }
                if let Ok(Ok(Some(id))) = &result {
                    peers.note_acknowledged(member.id, term, position(id));
                }
                let more = matches!(result, Ok(Ok(_)));
                Some((result, more.then_some((answers, wanted))))
            }
        });
        Ok(answers.boxed())
    }
}

/// A batch as it travels, with the age of the leader's proof that a quorum follows it.
fn stamped(peers: &Peers, request: AppendEntriesRequest<TypeConfig>) -> pb::AppendRequest {
    pb::AppendRequest { quorum_age_ms: peers.quorum_age_ms(), ..append_to_wire(request) }
}

/// The next answer of a follower. While nothing is under way it may be silent for ever; else it has a deadline, which is not known
/// before something is.
async fn next_answer(
    answers: &mut tonic::Streaming<pb::AppendResponse>,
    traffic: &Traffic,
) -> Result<Option<Result<StreamAppendResult<TypeConfig>, RPCError<TypeConfig>>>, Elapsed> {
    let answer = loop {
        let until = traffic.deadline().unwrap_or_else(|| Instant::now() + APPEND_TIMEOUT);
        match tokio::time::timeout_at(until, answers.message()).await {
            Ok(answer) => break answer,
            Err(elapsed) if traffic.deadline().is_some_and(|until| until <= Instant::now()) => {
                return Err(elapsed);
            }
            Err(_) => {}
        }
    };
    Ok(match answer {
        Ok(Some(response)) => {
            traffic.answered();
            Some(append_result_from_wire(response).map_err(|error: WireError| unreachable(error)))
        }
        Ok(None) => None,
        Err(status) => Some(Err(failed(&status))),
    })
}

impl<F: Fs> RaftNetworkV2<TypeConfig> for Connection<F> {
    type SnapshotData = SnapshotFile<F>;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RPCError<TypeConfig>> {
        match tokio::time::timeout(option.hard_ttl(), self.beat(request)).await {
            Ok(result) => Ok(result?.into()),
            Err(elapsed) => Err(unreachable(elapsed)),
        }
    }

    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        _option: RPCOption,
    ) -> futures::future::BoxFuture<
        's,
        Result<
            BoxStream<'s, Result<StreamAppendResult<TypeConfig>, RPCError<TypeConfig>>>,
            RPCError<TypeConfig>,
        >,
    >
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + OptionalSend + Unpin + 'static,
    {
        if self.lane == Lane::Control {
            return std::future::ready(Ok(self.beat_each(input))).boxed();
        }
        self.open_append(input).boxed()
    }

    async fn vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        let mut client = self.control()?;
        let response = self.within(&option, client.vote(vote_request_to_wire(&request))).await?;
        vote_response_from_wire(response).map_err(unreachable)
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        let mut client = self.control()?;
        let response =
            self.within(&option, client.pre_vote(vote_request_to_wire(&request))).await?;
        vote_response_from_wire(response).map_err(unreachable)
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: SnapshotOf<TypeConfig, SnapshotFile<F>>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let mut client = self.client().map_err(StreamingError::from)?;
        let file = snapshot.snapshot;
        let header = snapshot_header_to_wire(&vote, &snapshot.meta, file.bytes());
        let (sender, chunks) = tokio::sync::mpsc::channel(CHUNKS_AHEAD);
        let (peers, to) = (self.peers.clone(), self.member.id);
        let denied = move || peers.is_denied(to);
        let unsent = why_unsent(tokio::spawn(send_chunks(file, header, sender, denied)));
        let call = client.install_snapshot(tokio_stream::wrappers::ReceiverStream::new(chunks));
        let response = tokio::select! {
            biased;
            closed = cancel => return Err(closed.into()),
            // Whoever reads failed has cut the stream short, so the call fails too; this error says more.
            error = unsent => return Err(self.snapshot_unsent(&error)),
            response = call => response,
        };
        let response = response.map_err(|status| {
            self.peers.shut_out.snapshot_not_taken_by(to, status.message());
            if status.code() == tonic::Code::DataLoss {
                self.peers.note_snapshot_refused();
                // Sending it again at once would not help.
                return StreamingError::Unreachable(Unreachable::new(&status));
            }
            StreamingError::Network(NetworkError::new(&status))
        })?;
        let vote = vote_from_wire(response.into_inner().vote)
            .map_err(|error| StreamingError::Network(NetworkError::new(&error)))?;
        Ok(SnapshotResponse::new(vote))
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RPCError<TypeConfig>> {
        let mut client = self.control()?;
        let wire = pb::TransferLeaderRequest {
            from: Some(vote_to_wire(request.from_leader())),
            to: *request.to_node_id(),
            last_log_id: request.last_log_id().map(log_id_to_wire),
        };
        let response = self.within(&option, client.transfer_leader(Request::new(wire))).await?;
        if response.accepted { Ok(Ok(())) } else { Err(unreachable(text(response.refusal))) }
    }
}
