//! The few messages of etcd's v3 API that the comparison sends. Field numbers are those of etcd's published `rpc.proto`.

use bytes::Bytes;
use prost::Message;

/// `RangeRequest`: here always one key, linearizable.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct RangeRequest {
    #[prost(bytes = "bytes", tag = "1")]
    pub(crate) key: Bytes,
}

/// `RangeResponse`, as far as it is looked at.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct RangeResponse {
    #[prost(int64, tag = "4")]
    pub(crate) count: i64,
}

/// `PutRequest`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct PutRequest {
    #[prost(bytes = "bytes", tag = "1")]
    pub(crate) key: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    pub(crate) value: Bytes,
}

/// `PutResponse`, of which nothing is looked at.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct PutResponse {}

/// `Compare` of a key's version with a number: `result` 0 means equal, `target` 0 means version.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Compare {
    #[prost(int32, tag = "1")]
    pub(crate) result: i32,
    #[prost(int32, tag = "2")]
    pub(crate) target: i32,
    #[prost(bytes = "bytes", tag = "3")]
    pub(crate) key: Bytes,
    #[prost(int64, optional, tag = "4")]
    pub(crate) version: Option<i64>,
}

/// `RequestOp` with a put.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct PutOp {
    #[prost(message, optional, tag = "2")]
    pub(crate) put: Option<PutRequest>,
}

/// `TxnRequest`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct TxnRequest {
    #[prost(message, repeated, tag = "1")]
    pub(crate) compare: Vec<Compare>,
    #[prost(message, repeated, tag = "2")]
    pub(crate) success: Vec<PutOp>,
}

/// `TxnResponse`, as far as it is looked at.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct TxnResponse {
    #[prost(bool, tag = "2")]
    pub(crate) succeeded: bool,
}

/// `StatusRequest` of the maintenance service.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct StatusRequest {}

/// `StatusResponse`, as far as it is looked at.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct StatusResponse {
    #[prost(message, optional, tag = "1")]
    pub(crate) header: Option<ResponseHeader>,
    #[prost(uint64, tag = "4")]
    pub(crate) leader: u64,
}

/// `ResponseHeader`, as far as it is looked at.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct ResponseHeader {
    #[prost(uint64, tag = "2")]
    pub(crate) member_id: u64,
}

/// A put of a 600-byte key, as small as an escrow.
pub(crate) fn put(key: Bytes, value: Bytes) -> PutRequest {
    PutRequest { key, value }
}

/// What an escrow does: only if the key is new, store it, its index entry, and a record of that.
pub(crate) fn escrow(number: u64, value: Bytes, record: Bytes) -> TxnRequest {
    let name = |kind: &str| Bytes::from(format!("/{kind}/{number:032x}"));
    let store = |kind, value| PutOp { put: Some(put(name(kind), value)) };
    TxnRequest {
        compare: vec![Compare { result: 0, target: 0, key: name("key"), version: Some(0) }],
        success: vec![
            store("key", value),
            store("index", Bytes::from_static(b"1")),
            store("audit", record),
        ],
    }
}
