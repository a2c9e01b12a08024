//! The one loop that every call goes through: attempt, fail over, wait, try again, give up.
//!
//! A retry repeats the very same message, request id and all, so the servers recognise it: nothing is done twice. Only
//! failures that say nothing about the request itself are retried; a refusal never is.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rand::Rng as _;
use tokio::time::Instant;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status};

use super::endpoint::{Endpoint, LocalFailure, local_failure};
use super::error::{ClientError, Refusal};

/// Shortest pause once every server has failed.
const BACKOFF_FIRST: Duration = Duration::from_millis(10);
/// Longest pause between rounds over the servers while an election may be all that is waited for.
const BACKOFF_SOON: Duration = Duration::from_millis(250);
/// Longest pause between rounds over the servers.
const BACKOFF_MOST: Duration = Duration::from_secs(1);
/// Longest pause that a server may ask for.
const ASKED_MOST: Duration = Duration::from_secs(2);

/// Where an access token stands.
const AUTHORIZATION: &str = "authorization";
/// A server's reason when it takes no more calls for the moment.
const OVERLOADED: &str = "OVERLOADED";

/// The servers, and which of them answered last.
pub(super) struct Pool {
    endpoints: Vec<Endpoint>,
    /// What goes with every call beside the certificate, if anything.
    bearer: Option<MetadataValue<Ascii>>,
    preferred: AtomicUsize,
}

/// How long a call is tried.
#[derive(Clone, Copy)]
pub(super) struct Patience {
    /// Over all servers and attempts.
    pub(super) deadline: Duration,
    /// For one attempt.
    pub(super) attempt: Duration,
}

/// Reason of a server that is in no cluster yet.
const NOT_INITIALISED: &str = "CLUSTER_NOT_INITIALISED";

/// What each server said last, by its place in the pool.
type Answers = BTreeMap<usize, String>;

/// What one failed attempt means.
enum Failure {
    /// Give up: no other attempt can end otherwise.
    Final(ClientError),
    /// No use to ask this server again, but another one may do it: it is in no cluster (it may wait to be added), or one of the two
    /// doesn't believe the other's certificate (its clock or its own certificate may be wrong). Final once it is so with all.
    PassOver(ClientError, Option<Duration>),
    /// Try another server, or again.
    Retry { what: String, outcome_unknown: bool, after: Option<Duration> },
}

impl Pool {
    /// A pool that prefers the first endpoint.
    pub(super) const fn new(
        endpoints: Vec<Endpoint>,
        bearer: Option<MetadataValue<Ascii>>,
    ) -> Self {
        Self { endpoints, bearer, preferred: AtomicUsize::new(0) }
    }

    /// The endpoint that answered last.
    pub(super) fn preferred(&self) -> Option<&Endpoint> {
        self.endpoints.get(self.preferred.load(Ordering::Relaxed))
    }

    /// Prefers the next endpoint, unless another call already turned away from `failed`.
    fn turn_from(&self, failed: usize) {
        let next = failed.saturating_add(1).checked_rem(self.endpoints.len()).unwrap_or(0);
        let (order, preferred) = (Ordering::Relaxed, &self.preferred);
        match preferred.compare_exchange(failed, next, order, order) {
            // Whoever was first has decided; it makes no difference who it was.
            Ok(_) | Err(_) => {}
        }
    }

    /// What each server answered last, servers that said the same together.
    fn told(&self, said: &Answers) -> String {
        let mut told: Vec<(&str, Vec<String>)> = Vec::new();
        for (index, what) in said {
            let address = self.endpoints.get(*index).map(|endpoint| endpoint.address().to_string());
            match told.iter_mut().find(|(before, _)| before == what) {
                Some((_, addresses)) => addresses.extend(address),
                None => told.push((what, address.into_iter().collect())),
            }
        }
        let told = told.iter().map(|(what, who)| format!("{}: {what}", who.join(", ")));
        told.collect::<Vec<_>>().join("; ")
    }

    /// Makes a call until it is answered, refused, or out of time. `attempt` gets a clone of `message` each time. With
    /// `tell_limit` the server learns how long it may take; a stream must not be cut off by that.
    pub(super) async fn call<Q, R, F, Fut>(
        &self,
        patience: Patience,
        message: &Q,
        tell_limit: bool,
        attempt: F,
    ) -> Result<R, ClientError>
    where
        Q: Clone,
        F: Fn(Channel, Request<Q>) -> Fut,
        Fut: Future<Output = Result<Response<R>, Status>>,
    {
        let started = Instant::now();
        let end = started.checked_add(patience.deadline).unwrap_or(started);
        let mut attempts: u32 = 0;
        let mut unknown = false;
        let mut passed_over = BTreeSet::new();
        let mut backoff = Backoff::new(self.endpoints.len());
        let mut said = Answers::new();
        loop {
            let index = self.preferred.load(Ordering::Relaxed);
            let Some(endpoint) = self.endpoints.get(index) else {
                return Err(ClientError::Answer("there is no endpoint to call".to_owned()));
            };
            let limit = patience.attempt.min(end.saturating_duration_since(Instant::now()));
            attempts = attempts.saturating_add(1);
            let mut request = Request::new(message.clone());
            if let Some(bearer) = &self.bearer {
                request.metadata_mut().insert(AUTHORIZATION, bearer.clone());
            }
            if tell_limit {
                request.set_timeout(limit);
            }
            let result = once(endpoint, limit, request, &attempt).await;
            let failure = match result {
                Ok(response) => return Ok(response),
                Err(failure) => failure,
            };
            let after = match failure {
                Failure::Final(error) => return Err(error),
                Failure::PassOver(error, after) => {
                    passed_over.insert(index);
                    if passed_over.len() == self.endpoints.len() {
                        return Err(error);
                    }
                    said.insert(index, error.to_string());
                    after
                }
                Failure::Retry { what, outcome_unknown, after } => {
                    passed_over.remove(&index);
                    unknown |= outcome_unknown;
                    // A try that our own deadline cut short says less than what this server answered before.
                    let cut = outcome_unknown && limit < patience.attempt;
                    if !(cut && said.contains_key(&index)) {
                        said.insert(index, what);
                    }
                    after
                }
            };
            self.turn_from(index);
            let pause = backoff.next(after);
            let rest = end.saturating_duration_since(Instant::now());
            if pause >= rest {
                let waited = started.elapsed();
                return Err(ClientError::Unreachable {
                    waited,
                    attempts,
                    answers: self.told(&said),
                    outcome_unknown: unknown,
                });
            }
            if !pause.is_zero() {
                tokio::time::sleep(pause).await;
            }
        }
    }
}

async fn once<Q, R, F, Fut>(
    endpoint: &Endpoint,
    limit: Duration,
    request: Request<Q>,
    attempt: &F,
) -> Result<R, Failure>
where
    F: Fn(Channel, Request<Q>) -> Fut,
    Fut: Future<Output = Result<Response<R>, Status>>,
{
    match tokio::time::timeout(limit, attempt(endpoint.channel(), request)).await {
        Ok(Ok(response)) => Ok(response.into_inner()),
        Ok(Err(status)) => Err(failure_of(&status, endpoint)),
        Err(_) => {
            let what = format!("no answer within {limit:.1?}");
            Err(Failure::Retry { what, outcome_unknown: true, after: None })
        }
    }
}

fn failure_of(status: &Status, endpoint: &Endpoint) -> Failure {
    if status.code() == Code::FailedPrecondition && local_failure(status).is_none() {
        let refusal = Refusal::from_status(status);
        if refusal.reason == NOT_INITIALISED {
            let after = refusal.retry_after;
            return Failure::PassOver(ClientError::Refused(refusal), after);
        }
    }
    match classify(status, endpoint) {
        Ok(
            error @ (ClientError::IdentityRefused { .. } | ClientError::ServerNotTrusted { .. }),
        ) => Failure::PassOver(error, None),
        Ok(error) => Failure::Final(error),
        Err((what, outcome_unknown, after)) => Failure::Retry { what, outcome_unknown, after },
    }
}

/// The error that a status stands for, or why the call should be tried again.
fn classify(
    status: &Status,
    endpoint: &Endpoint,
) -> Result<ClientError, (String, bool, Option<Duration>)> {
    match local_failure(status) {
        Some(LocalFailure::Untrusted(what)) => {
            Ok(ClientError::ServerNotTrusted { endpoint: endpoint.address().to_string(), what })
        }
        Some(LocalFailure::IdentityRefused(what)) => {
            Ok(ClientError::IdentityRefused { endpoint: endpoint.address().to_string(), what })
        }
        Some(LocalFailure::Transport { what, sent }) => Err((what, sent, None)),
        None => {
            let refusal = Refusal::from_status(status);
            match status.code() {
                Code::Unavailable => Err((refusal.to_string(), false, refusal.retry_after)),
                Code::DeadlineExceeded | Code::Cancelled | Code::Aborted => {
                    Err((refusal.to_string(), true, refusal.retry_after))
                }
                // A server that waits to be added says this of itself; the others are in the cluster already.
                Code::FailedPrecondition if refusal.reason == NOT_INITIALISED => {
                    Err((refusal.to_string(), false, refusal.retry_after))
                }
                // A node that serves as much as it may names no fault of the request: another one may be free.
                Code::ResourceExhausted if refusal.reason == OVERLOADED => {
                    Err((refusal.to_string(), false, refusal.retry_after))
                }
                _ => Ok(ClientError::Refused(refusal)),
            }
        }
    }
}

/// The error for a stream that broke, and whether it makes sense to open it again.
pub(super) fn stream_error(status: &Status, endpoint: &Endpoint) -> (ClientError, bool) {
    match classify(status, endpoint) {
        Ok(error) => (error, false),
        Err((what, outcome_unknown, _)) => {
            let answers = format!("{}: {what}", endpoint.address());
            let waited = Duration::ZERO;
            (ClientError::Unreachable { waited, attempts: 1, answers, outcome_unknown }, true)
        }
    }
}

/// Pauses: none while a server is left that wasn't asked, then growing with jitter. Beyond a quarter of a second a pause is
/// at most a quarter of what was waited already: a long outage is asked about less often, and a short one is not prolonged.
struct Backoff {
    waited: Duration,
    untried: usize,
    servers: usize,
    most: Duration,
}

impl Backoff {
    const fn new(servers: usize) -> Self {
        Self {
            waited: Duration::ZERO,
            untried: servers.saturating_sub(1),
            servers,
            most: BACKOFF_FIRST,
        }
    }

    fn next(&mut self, asked_for: Option<Duration>) -> Duration {
        if let Some(left) = self.untried.checked_sub(1) {
            self.untried = left;
            return Duration::ZERO;
        }
        self.untried = self.servers.saturating_sub(1);
        let most = self.most;
        let ceiling = (self.waited / 4).clamp(BACKOFF_SOON, BACKOFF_MOST);
        self.most = most.saturating_mul(2).min(ceiling);
        let most = most.max(asked_for.unwrap_or_default().min(ASKED_MOST));
        let pause = most.mul_f64(rand::rng().random_range(0.5..=1.0));
        self.waited = self.waited.saturating_add(pause);
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_server_is_asked_once_before_the_first_pause() {
        let mut backoff = Backoff::new(3);
        assert_eq!([backoff.next(None), backoff.next(None)], [Duration::ZERO; 2]);
        assert!(backoff.next(None) >= BACKOFF_FIRST / 2);
        assert_eq!(backoff.next(None), Duration::ZERO);
    }

    #[test]
    fn pauses_grow_to_a_limit() {
        let mut backoff = Backoff::new(1);
        let pauses: Vec<_> = (0..40).map(|_| backoff.next(None)).collect();
        assert!(pauses.iter().all(|pause| *pause <= BACKOFF_MOST && *pause >= BACKOFF_FIRST / 2));
        assert!(pauses[39] >= BACKOFF_MOST / 2);
    }

    #[test]
    fn a_pause_prolongs_an_outage_by_a_quarter_at_most() {
        let mut backoff = Backoff::new(1);
        let mut waited = Duration::ZERO;
        for _ in 0..40 {
            let pause = backoff.next(None);
            assert!(pause <= BACKOFF_SOON.max(waited / 4), "{pause:?} after {waited:?}");
            waited += pause;
        }
    }
}
