//! Hands commands to the leader over one stream, many at a time.
//!
//! A command is forwarded at most once: the leader never hands it on. If the stream breaks, what was under way has an
//! unknown outcome; the state machine recognises a repeated request, so the caller may propose it again.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use holdfast_proto::peer::v1 as pb;
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;

use super::api::{Member, RaftError, Refusal};
use super::peers::{Lane, Peers};
use crate::state::{Applied, codec};

/// Commands that may wait for the stream.
const QUEUE: usize = 1024;

/// Why a forwarded command has no outcome.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ForwardFailure {
    /// The receiver doesn't lead; nothing was proposed.
    NotLeader,
    /// Nobody knows whether it will commit.
    Unknown,
    /// The leader refused it; nothing was proposed.
    Refused(RaftError),
}

type Answer = oneshot::Sender<Result<Applied, ForwardFailure>>;
type Pending = Arc<Mutex<BTreeMap<u64, Answer>>>;

struct Lease {
    leader: Member,
    queue: mpsc::Sender<(Bytes, Answer)>,
}

/// Forwards to whoever leads.
pub(crate) struct Forwarder {
    peers: Arc<Peers>,
    current: Mutex<Option<Lease>>,
}

impl Forwarder {
    pub(crate) fn new(peers: Arc<Peers>) -> Self {
        Self { peers, current: Mutex::new(None) }
    }

    /// Forwards one encoded command to `leader` and waits for its outcome.
    pub(crate) async fn forward(
        &self,
        leader: &Member,
        command: Bytes,
    ) -> Result<Applied, ForwardFailure> {
        let queue = self.queue_to(leader);
        let (answer, outcome) = oneshot::channel();
        if queue.send((command, answer)).await.is_err() {
            return Err(ForwardFailure::NotLeader);
        }
        outcome.await.unwrap_or(Err(ForwardFailure::Unknown))
    }

    fn queue_to(&self, leader: &Member) -> mpsc::Sender<(Bytes, Answer)> {
        let mut current = self.current.lock();
        if let Some(lease) =
            current.as_ref().filter(|lease| lease.leader == *leader && !lease.queue.is_closed())
        {
            return lease.queue.clone();
        }
        let (queue, receiver) = mpsc::channel(QUEUE);
        tokio::spawn(run_stream(self.peers.clone(), leader.clone(), receiver));
        *current = Some(Lease { leader: leader.clone(), queue: queue.clone() });
        queue
    }
}

/// Serves one stream until it breaks or nobody can send any more.
async fn run_stream(
    peers: Arc<Peers>,
    leader: Member,
    mut receiver: mpsc::Receiver<(Bytes, Answer)>,
) {
    let pending: Pending = Arc::default();
    let (requests, outgoing) = mpsc::channel(QUEUE);
    let opening = async {
        let mut client = peers.client(&leader, Lane::Forward).map_err(|error| error.to_string())?;
        let opened = client.forward(ReceiverStream::new(outgoing)).await;
        opened.map(tonic::Response::into_inner).map_err(|status| status.message().to_owned())
    };
    let mut answers = match opening.await {
        Ok(answers) => answers,
        Err(message) => {
            tracing::debug!(leader = leader.id.get(), why = message, "no stream to the leader");
            receiver.close();
            while let Some((_, answer)) = receiver.recv().await {
                reply(answer, Err(ForwardFailure::NotLeader));
            }
            return;
        }
    };
    let mut sequence = 0u64;
    let mut next: Option<(Bytes, Answer)> = None;
    loop {
        tokio::select! {
            taken = receiver.recv(), if next.is_none() => {
                next = taken;
                if next.is_none() { break }
            }
            // Answers are read while there is no room for a request: the leader may wait for that itself.
            room = requests.reserve(), if next.is_some() => {
                let (Ok(room), Some((command, answer))) = (room, next.take()) else { break };
                sequence = sequence.wrapping_add(1);
                pending.lock().insert(sequence, answer);
                room.send(pb::ForwardRequest { sequence, command });
            }
            answer = answers.message() => match answer {
                Ok(Some(response)) => {
                    let waiting = pending.lock().remove(&response.sequence);
                    if let Some(waiting) = waiting { reply(waiting, read_answer(response)) }
                }
                Ok(None) | Err(_) => break,
            },
        }
    }
    receiver.close();
    if let Some((_, answer)) = next {
        reply(answer, Err(ForwardFailure::NotLeader));
    }
    while let Some((_, answer)) = receiver.recv().await {
        reply(answer, Err(ForwardFailure::NotLeader));
    }
    let left = std::mem::take(&mut *pending.lock());
    for (_, answer) in left {
        reply(answer, Err(ForwardFailure::Unknown));
    }
}

/// A refusal as it goes back to the node that forwarded.
pub(crate) const fn refusal_to_wire(refusal: Refusal) -> pb::forward_error::Refusal {
    use pb::forward_error::Refusal as Wire;
    match refusal {
        Refusal::DiskLow => Wire::DiskLow,
        Refusal::NotMember => Wire::NotMember,
        Refusal::Draining => Wire::Draining,
        Refusal::ClockAhead => Wire::ClockAhead,
    }
}

const fn refusal_from_wire(refusal: pb::forward_error::Refusal) -> Refusal {
    use pb::forward_error::Refusal as Wire;
    match refusal {
        // The first version knew one refusal only, and did not name it.
        Wire::Unspecified | Wire::DiskLow => Refusal::DiskLow,
        Wire::NotMember => Refusal::NotMember,
        Wire::Draining => Refusal::Draining,
        Wire::ClockAhead => Refusal::ClockAhead,
    }
}

fn reply(answer: Answer, result: Result<Applied, ForwardFailure>) {
    // The caller is gone when its deadline has passed; then nobody wants the answer.
    drop(answer.send(result));
}

pub(super) fn read_answer(response: pb::ForwardResponse) -> Result<Applied, ForwardFailure> {
    match response.result {
        Some(pb::forward_response::Result::Applied(bytes)) => codec::decode_applied(&bytes)
            .map_err(|error| {
                tracing::error!(%error, "the leader's answer can't be read");
                ForwardFailure::Unknown
            }),
        Some(pb::forward_response::Result::Error(error)) => Err(match error.kind() {
            pb::forward_error::Kind::NotLeader => ForwardFailure::NotLeader,
            pb::forward_error::Kind::Refused => {
                ForwardFailure::Refused(RaftError::Refused(refusal_from_wire(error.refusal())))
            }
            pb::forward_error::Kind::OutcomeUnknown | pb::forward_error::Kind::Unspecified => {
                ForwardFailure::Unknown
            }
        }),
        None => Err(ForwardFailure::Unknown),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_keeps_its_kind_on_its_way_back() {
        for refusal in
            [Refusal::DiskLow, Refusal::NotMember, Refusal::Draining, Refusal::ClockAhead]
        {
            let error = pb::ForwardError {
                kind: pb::forward_error::Kind::Refused.into(),
                refusal: refusal_to_wire(refusal).into(),
                ..pb::ForwardError::default()
            };
            let result = Some(pb::forward_response::Result::Error(error));
            let read = read_answer(pb::ForwardResponse { sequence: 1, result });
            assert_eq!(read, Err(ForwardFailure::Refused(RaftError::Refused(refusal))));
        }
    }
}
