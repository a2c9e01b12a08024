//! What a local cluster is waited for. Nothing sleeps for a fixed time: a condition is looked at until it holds or its
//! deadline is over, and then the last reason is told.

use std::future::Future;
use std::time::Duration;

use holdfast_proto::v1;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::error::LocalError;
use super::{LocalCluster, LocalNode, POLL, START_DEADLINE};

impl LocalCluster {
    /// Waits until a running node has applied everything that the leader had committed when it was first asked.
    ///
    /// # Errors
    /// If a node ends by itself, or it does not come true in time.
    pub async fn wait_caught_up(&mut self, id: u64, limit: Duration) -> Result<u64, LocalError> {
        let status = self.wait_healthy(limit).await?;
        let goal = status.members.iter().map(|member| member.applied_index).max().unwrap_or(0);
        let client = self.administrator()?;
        let deadline = Instant::now().checked_add(limit);
        loop {
            self.check_running()?;
            let last = match client.status(true).await {
                Ok(status) => match member(&status, id) {
                    Some(member) if member.applied_index >= goal => return Ok(member.applied_index),
                    Some(member) => format!("it is at {} of {goal}", member.applied_index),
                    None => "it is no member".to_owned(),
                },
                Err(error) => error.to_string(),
            };
            if deadline.is_none_or(|deadline| Instant::now() >= deadline) {
                return Err(timeout(format!("node {id} catches up"), limit, last));
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Waits until all members have applied the same entry and gives their state digests, which must be equal then.
    ///
    /// # Errors
    /// If digests differ at the same index, or it does not come true in time.
    pub async fn wait_same_digest(&self, limit: Duration) -> Result<(u64, String), LocalError> {
        let client = self.administrator()?;
        wait_for("all members have the same state at the same log index", limit, || async {
            let status = client.status(true).await.map_err(|error| error.to_string())?;
            same_digest(&status)
        })
        .await
    }

    /// Waits until somebody leads and every running member answers, is unsealed, and knows of the leader.
    ///
    /// # Errors
    /// If a node ends by itself, or it does not come true in time.
    pub async fn wait_healthy(
        &mut self,
        limit: Duration,
    ) -> Result<v1::GetStatusResponse, LocalError> {
        let running: Vec<_> =
            self.nodes.iter().filter(|node| node.pid().is_some()).map(LocalNode::id).collect();
        let client = self.administrator()?;
        let deadline = Instant::now().checked_add(limit);
        loop {
            self.check_running()?;
            let last = match client.status(true).await {
                Ok(status) => match unhealthy(&status, &running) {
                    None => return Ok(status),
                    Some(why) => why,
                },
                Err(error) => error.to_string(),
            };
            if deadline.is_none_or(|deadline| Instant::now() >= deadline) {
                return Err(timeout("all running members work".to_owned(), limit, last));
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// The node that leads.
    ///
    /// # Errors
    /// If none does within the deadline.
    pub async fn leader(&self) -> Result<u64, LocalError> {
        let client = self.administrator()?;
        wait_for("somebody leads", START_DEADLINE, || async {
            let status = client.status(false).await.map_err(|error| error.to_string())?;
            if status.leader_id == 0 {
                Err("nobody leads".to_owned())
            } else {
                Ok(status.leader_id)
            }
        })
        .await
    }
}

pub(super) fn timeout(what: String, waited: Duration, last: String) -> LocalError {
    LocalError::Timeout { what, waited, last }
}

fn member(status: &v1::GetStatusResponse, id: u64) -> Option<&v1::MemberStatus> {
    status.members.iter().find(|member| member.node.as_ref().is_some_and(|n| n.node_id == id))
}

fn same_digest(status: &v1::GetStatusResponse) -> Result<(u64, String), String> {
    let Some(first) = status.members.first() else { return Err("no members".to_owned()) };
    for member in &status.members {
        let id = member.node.as_ref().map_or(0, |node| node.node_id);
        if !member.reachable {
            return Err(format!("node {id} does not answer: {}", member.error));
        }
        if member.applied_index != first.applied_index {
            return Err(format!("node {id} is at another log index"));
        }
        if member.state_digest.is_empty() || member.state_digest != first.state_digest {
            return Err(format!("node {id} has another state at index {}", member.applied_index));
        }
    }
    Ok((first.applied_index, hex::encode(&first.state_digest)))
}

fn unhealthy(status: &v1::GetStatusResponse, running: &[u64]) -> Option<String> {
    if status.leader_id == 0 {
        return Some("nobody leads".to_owned());
    }
    for id in running {
        match member(status, *id) {
            None => {}
            Some(member) if !member.reachable => {
                return Some(format!("node {id} does not answer: {}", member.error));
            }
            Some(member) if !member.unsealed => return Some(format!("node {id} is sealed")),
            Some(_) => {}
        }
    }
    None
}

/// Looks at a condition until it holds; the error says why it does not yet.
///
/// # Errors
/// If it does not hold within the limit, with the last reason.
pub async fn wait_for<T, F, Fut>(what: &str, limit: Duration, mut look: F) -> Result<T, LocalError>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T, String>>,
{
    let deadline = Instant::now().checked_add(limit);
    loop {
        let last = match look().await {
            Ok(value) => return Ok(value),
            Err(why) => why,
        };
        if deadline.is_none_or(|deadline| Instant::now() >= deadline) {
            return Err(timeout(what.to_owned(), limit, last));
        }
        tokio::time::sleep(POLL).await;
    }
}

/// A GET of plain HTTP/1.1: status and body.
///
/// # Errors
/// If nobody listens, or the answer is none.
pub async fn http_get(address: &str, path: &str) -> std::io::Result<(u16, String)> {
    let get = async {
        let mut stream = TcpStream::connect(address).await?;
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        Ok::<_, std::io::Error>(answer)
    };
    let answer = tokio::time::timeout(Duration::from_secs(5), get)
        .await
        .map_err(|_| std::io::Error::from(std::io::ErrorKind::TimedOut))??;
    let text = String::from_utf8_lossy(&answer);
    let status = text.split(' ').nth(1).and_then(|status| status.parse().ok());
    let body = text.split_once("\r\n\r\n").map(|(_, body)| body.to_owned());
    match (status, body) {
        (Some(status), Some(body)) => Ok((status, body)),
        _ => Err(std::io::Error::from(std::io::ErrorKind::InvalidData)),
    }
}
