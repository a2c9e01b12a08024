//! Reading the audit chain.
//!
//! A listing survives the loss of the server that it came from: it goes on at the next record from another one. The
//! chain is verified by [`super::chain`], from the bytes that were hashed, not from what a server says about them.

use holdfast_proto::v1;
use holdfast_proto::v1::audit_service_client::AuditServiceClient;
use tonic::Streaming;

use super::Client;
use super::call::stream_error;
use super::error::ClientError;
use super::evidence::Checkpoint;
use super::{wire, with_causes};

/// How often a listing that broke is opened again without a single new record.
const BARREN_REOPENS: u32 = 5;

/// Which records to list; what is `None` or empty matches all.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AuditFilter {
    /// First number; 0 for the first record.
    pub first: u64,
    /// Last number, itself included; 0 for the newest at the time of the call.
    pub last: u64,
    /// Only this actor, such as `operator/alice`.
    pub actor: String,
    /// Only this action, such as `disclose`.
    pub action: String,
    /// Only this device (UUID).
    pub device: String,
    /// Only this key id.
    pub protector: String,
    /// Only records at or after this time, in milliseconds since the Unix epoch; 0 for no bound.
    pub since_ms: u64,
    /// Only records before this time, in milliseconds since the Unix epoch; 0 for no bound.
    pub until_ms: u64,
    /// Serve what the called node has, without asking the cluster.
    pub stale: bool,
}

/// A listing under way.
pub struct AuditListing {
    client: Client,
    request: v1::ListRecordsRequest,
    stream: Option<Streaming<v1::ListRecordsResponse>>,
    head: Option<v1::AuditHead>,
    barren: u32,
}

impl std::fmt::Debug for AuditListing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AuditListing")
            .field("next", &self.request.first_sequence)
            .finish_non_exhaustive()
    }
}

impl Client {
    /// Lists records in the order of their numbers. Nothing is asked before the first [`AuditListing::next`].
    pub fn audit_records(&self, filter: &AuditFilter) -> AuditListing {
        let request = v1::ListRecordsRequest {
            first_sequence: filter.first.max(1),
            last_sequence: filter.last,
            actor: filter.actor.clone(),
            action: filter.action.clone(),
            device_id: filter.device.clone(),
            protector_id: filter.protector.clone(),
            since_ms: filter.since_ms,
            until_ms: filter.until_ms,
            stale: filter.stale,
        };
        AuditListing { client: self.clone(), request, stream: None, head: None, barren: 0 }
    }

    /// Number and hash of the newest record.
    ///
    /// # Errors
    /// If the caller is no auditor, or no server answers.
    pub async fn audit_head(&self, stale: bool) -> Result<v1::GetHeadResponse, ClientError> {
        self.call(&v1::GetHeadRequest { stale }, |channel, request| async move {
            AuditServiceClient::new(channel).get_head(request).await
        })
        .await
    }
}

impl Client {
    /// The head of the chain, signed by the node that answered, and verified against the pinned CA.
    ///
    /// # Errors
    /// If the caller is no auditor, no server answers, or the signature doesn't verify.
    pub async fn audit_checkpoint(&self, stale: bool) -> Result<Checkpoint, ClientError> {
        let answer = self.audit_head(stale).await?;
        let message = wire::present(answer.checkpoint, "checkpoint")?;
        let checkpoint = wire::well_formed(Checkpoint::from_message(message))?;
        let verified = checkpoint.verify(&self.inner.anchors, self.inner.clock.now());
        verified.map_err(|error| {
            ClientError::Answer(format!("the checkpoint doesn't verify: {}", with_causes(&error)))
        })?;
        Ok(checkpoint)
    }
}

impl AuditListing {
    /// Head of the chain when the listing began; `None` before the first records.
    pub const fn head(&self) -> Option<&v1::AuditHead> {
        self.head.as_ref()
    }

    /// The next records; `None` after the last.
    ///
    /// # Errors
    /// If the caller is no auditor, or no server goes on with it.
    pub async fn next(&mut self) -> Result<Option<Vec<v1::AuditRecord>>, ClientError> {
        loop {
            let mut stream = match self.stream.take() {
                Some(stream) => stream,
                None => self.open().await?,
            };
            match stream.message().await {
                Ok(None) => return Ok(None),
                Ok(Some(page)) => {
                    self.took(&page);
                    self.stream = Some(stream);
                    if !page.records.is_empty() {
                        return Ok(Some(page.records));
                    }
                }
                Err(status) => self.broke(&status)?,
            }
        }
    }

    /// Remembers where to go on, and up to where: a listing that is opened again must not grow.
    fn took(&mut self, page: &v1::ListRecordsResponse) {
        if let Some(last) = page.records.last() {
            self.request.first_sequence = last.sequence.saturating_add(1);
            self.barren = 0;
        }
        if self.head.is_none()
            && let Some(head) = page.head.clone()
        {
            if self.request.last_sequence == 0 {
                self.request.last_sequence = head.sequence;
            }
            self.head = Some(head);
        }
    }

    fn broke(&mut self, status: &tonic::Status) -> Result<(), ClientError> {
        let Some(endpoint) = self.client.pool().preferred() else {
            return Err(ClientError::Answer("there is no endpoint to call".to_owned()));
        };
        let (error, again) = stream_error(status, endpoint);
        self.barren = self.barren.saturating_add(1);
        if again && self.barren <= BARREN_REOPENS { Ok(()) } else { Err(error) }
    }

    async fn open(&self) -> Result<Streaming<v1::ListRecordsResponse>, ClientError> {
        self.client
            .call_stream(&self.request, |channel, request| async move {
                AuditServiceClient::new(channel).list_records(request).await
            })
            .await
    }
}
