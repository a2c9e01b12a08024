//! One file of the spool: a header of 16 bytes, then a message.
//!
//! ```text
//! 0   4  "HFSP"
//! 4   2  version of the format, little-endian
//! 6   1  kind: 1 an escrow, 2 a report
//! 7   1  zero
//! 8   4  bytes of the message, little-endian
//! 12  4  CRC-32C of the twelve bytes before and of the message, little-endian
//! 16     the message
//! ```

use bytes::Bytes;
use holdfast_proto::v1;
use prost::Message;

use super::error::Damage;
use crate::client::SealedEscrow;
use crate::domain::{ClusterId, DeviceId, FieldError, Timestamp};

/// Version of the format that is written, and the newest that is read.
pub(super) const FORMAT: u16 = 1;
const MAGIC: &[u8; 4] = b"HFSP";
const HEADER: usize = 16;
const COVERED: usize = 12;
const ESCROW: u8 = 1;
const REPORT: u8 = 2;

/// An escrow as its file has it.
#[derive(Clone, PartialEq, Message)]
struct EscrowMessage {
    /// The cluster that it is sealed for: 16 bytes.
    #[prost(bytes = "bytes", tag = "1")]
    cluster: Bytes,
    /// When it was made, in milliseconds since the Unix epoch.
    #[prost(uint64, tag = "2")]
    made_at_ms: u64,
    /// The request that is sent, again and again with the same bytes.
    #[prost(message, optional, tag = "3")]
    request: Option<v1::EscrowRecoveryKeyRequest>,
}

/// A compliance report as its file has it.
#[derive(Clone, PartialEq, Message)]
struct ReportMessage {
    /// Counts the reports of this spool.
    #[prost(uint64, tag = "1")]
    number: u64,
    /// When it was made, in milliseconds since the Unix epoch.
    #[prost(uint64, tag = "2")]
    made_at_ms: u64,
    /// The request that is sent.
    #[prost(message, optional, tag = "3")]
    request: Option<v1::ReportComplianceRequest>,
}

/// A sealed key that waits for its receipt.
#[derive(Debug, Clone, PartialEq)]
pub struct SpooledEscrow {
    /// Where it stands in the order in which entries were made.
    pub number: u64,
    /// When it was made.
    pub made_at: Timestamp,
    /// What is sent.
    pub sealed: SealedEscrow,
}

/// The compliance report that waits to be delivered.
#[derive(Debug, Clone, PartialEq)]
pub struct SpooledReport {
    /// Counts the reports of this spool: a later one takes the place of an earlier one.
    pub number: u64,
    /// When it was made.
    pub made_at: Timestamp,
    /// What is sent.
    pub request: v1::ReportComplianceRequest,
}

impl SpooledEscrow {
    /// The bytes of its file. The number stands in the name.
    pub(super) fn encode(sealed: &SealedEscrow, made_at: Timestamp) -> Vec<u8> {
        let message = EscrowMessage {
            cluster: Bytes::copy_from_slice(sealed.cluster().as_bytes()),
            made_at_ms: made_at.as_millis(),
            request: Some(sealed.message().clone()),
        };
        frame(ESCROW, &message)
    }

    /// Reads a file.
    pub(super) fn decode(number: u64, bytes: &[u8], device: DeviceId) -> Result<Self, Damage> {
        let message: EscrowMessage = unframe(ESCROW, bytes)?;
        let cluster = ClusterId::from_slice(&message.cluster).map_err(malformed)?;
        let request = message.request.ok_or_else(|| missing("request"))?;
        let sealed = SealedEscrow::from_message(cluster, request).map_err(malformed)?;
        if sealed.device() != device {
            return Err(Damage::ForeignDevice(sealed.device()));
        }
        Ok(Self { number, made_at: Timestamp::from_millis(message.made_at_ms), sealed })
    }
}

impl SpooledReport {
    /// The bytes of its file.
    pub(super) fn encode(&self) -> Vec<u8> {
        let message = ReportMessage {
            number: self.number,
            made_at_ms: self.made_at.as_millis(),
            request: Some(self.request.clone()),
        };
        frame(REPORT, &message)
    }

    /// Reads a file.
    pub(super) fn decode(bytes: &[u8], device: DeviceId) -> Result<Self, Damage> {
        let message: ReportMessage = unframe(REPORT, bytes)?;
        let request = message.request.ok_or_else(|| missing("request"))?;
        let stated: DeviceId = request.device_id.parse().map_err(malformed)?;
        if stated != device {
            return Err(Damage::ForeignDevice(stated));
        }
        let made_at = Timestamp::from_millis(message.made_at_ms);
        Ok(Self { number: message.number, made_at, request })
    }
}

fn malformed(error: FieldError) -> Damage {
    Damage::Malformed(error.to_string())
}

fn missing(name: &str) -> Damage {
    Damage::Malformed(format!("{name} is missing"))
}

fn frame(kind: u8, message: &impl Message) -> Vec<u8> {
    let length = message.encoded_len();
    let mut bytes = Vec::with_capacity(HEADER.saturating_add(length));
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&FORMAT.to_le_bytes());
    bytes.extend_from_slice(&[kind, 0]);
    // A message is far below this: requests have at most 1 MiB.
    bytes.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes());
    let payload = message.encode_to_vec();
    let sum = crc32c::crc32c_append(crc32c::crc32c(&bytes), &payload);
    bytes.extend_from_slice(&sum.to_le_bytes());
    bytes.extend_from_slice(&payload);
    bytes
}

fn unframe<M: Message + Default>(kind: u8, bytes: &[u8]) -> Result<M, Damage> {
    let (header, payload) = bytes.split_at_checked(HEADER).ok_or(Damage::NoEntry)?;
    let (covered, sum) = header.split_at_checked(COVERED).ok_or(Damage::NoEntry)?;
    let &[m0, m1, m2, m3, f0, f1, found, _, l0, l1, l2, l3] = covered else {
        return Err(Damage::NoEntry);
    };
    if [m0, m1, m2, m3] != *MAGIC {
        return Err(Damage::NoEntry);
    }
    let format = u16::from_le_bytes([f0, f1]);
    let computed = crc32c::crc32c_append(crc32c::crc32c(covered), payload);
    // Whether the checksum of a later format lies here too nobody knows.
    if format > FORMAT {
        return Err(Damage::Newer(format));
    }
    let length = usize::try_from(u32::from_le_bytes([l0, l1, l2, l3])).unwrap_or(usize::MAX);
    if sum != computed.to_le_bytes() || length != payload.len() || format != FORMAT {
        return Err(Damage::Rotten);
    }
    if found != kind {
        return Err(Damage::Malformed(format!("it is of kind {found} and not {kind}")));
    }
    M::decode(payload).map_err(|error| Damage::Malformed(error.to_string()))
}
