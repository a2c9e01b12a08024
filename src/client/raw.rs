//! Calls whose messages are encoded already, for whoever makes many of them: the load generator and the agent's spool.
//!
//! They go through the same loop as all others, with the same failover and the same bytes on every attempt.

use bytes::{Buf as _, BufMut as _, Bytes};
use holdfast_proto::v1;
use http::uri::PathAndQuery;
use prost::Message as _;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::{Request, Status};

use super::error::ClientError;
use super::escrow::{EscrowKey, SealedEscrow};
use super::receipt::{Expected, Receipt};
use super::{Client, wire};
use crate::domain::Timestamp;

/// A method that takes an encoded message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// `EscrowService.EscrowRecoveryKey`.
    EscrowRecoveryKey,
    /// `RecoveryService.FindKeys`.
    FindKeys,
    /// `RecoveryService.DiscloseKey`.
    DiscloseKey,
    /// `ComplianceService.ReportCompliance`.
    ReportCompliance,
    /// `AdminService.GetDevice`.
    GetDevice,
}

impl Method {
    const fn path(self) -> &'static str {
        match self {
            Self::EscrowRecoveryKey => "/holdfast.v1.EscrowService/EscrowRecoveryKey",
            Self::FindKeys => "/holdfast.v1.RecoveryService/FindKeys",
            Self::DiscloseKey => "/holdfast.v1.RecoveryService/DiscloseKey",
            Self::ReportCompliance => "/holdfast.v1.ComplianceService/ReportCompliance",
            Self::GetDevice => "/holdfast.v1.AdminService/GetDevice",
        }
    }
}

/// A sealed escrow in the bytes that are sent, and what its receipt must say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodedEscrow {
    bytes: Bytes,
    expected: Expected,
}

impl EncodedEscrow {
    /// Encodes a sealed escrow.
    pub fn new(sealed: &SealedEscrow) -> Self {
        let bytes = Bytes::from(sealed.message().encode_to_vec());
        Self { bytes, expected: *sealed.expected() }
    }

    /// The message for [`Client::exchange`] with [`Method::EscrowRecoveryKey`].
    pub fn bytes(&self) -> Bytes {
        self.bytes.clone()
    }

    /// Checks the receipt in an answer.
    ///
    /// # Errors
    /// If the answer is not well-formed, or the receipt doesn't verify.
    pub fn check(
        &self,
        answer: Bytes,
        key: &EscrowKey,
        now: Timestamp,
    ) -> Result<Receipt, ClientError> {
        let answer = v1::EscrowRecoveryKeyResponse::decode(answer)
            .map_err(|error| ClientError::Answer(error.to_string()))?;
        let receipt = wire::present(answer.receipt, "receipt")?;
        Receipt::check(receipt, &self.expected, key.verifier(), now)
    }
}

impl Client {
    /// Sends an encoded message and gives the encoded answer.
    ///
    /// # Errors
    /// If it is refused, or no server answers.
    pub async fn exchange(&self, method: Method, message: Bytes) -> Result<Bytes, ClientError> {
        self.call(&message, |channel, request: Request<Bytes>| async move {
            let mut grpc = tonic::client::Grpc::new(channel);
            let path = PathAndQuery::from_static(method.path());
            grpc.ready().await.map_err(|error| Status::from_error(error.into()))?;
            grpc.unary(request, path, Raw).await
        })
        .await
    }
}

/// Bytes as they are.
#[derive(Debug, Clone, Copy, Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining())))
    }
}
