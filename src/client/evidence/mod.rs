//! Evidence that outlives the servers: receipts, checkpoints and exports of the audit chain, in files.
//!
//! Everything here is verified from the file and the pinned node CA alone: no server is asked, and none has to exist any
//! more. A file is not trusted in any way; its size is bounded or it is read line by line, and what is wrong with it is a
//! typed error that names the check that failed. `docs/formats-evidence.md` lays down every format.

mod checkpoint;
mod error;
mod export;
mod lines;
mod receipt;
#[cfg(test)]
mod tests;
mod verify;

use std::io::Read;

pub use checkpoint::Checkpoint;
pub use error::EvidenceError;
#[cfg(feature = "server")]
pub(crate) use error::when;
pub use export::{ExportHead, ExportWriter};
pub use receipt::{ReceiptWanted, SavedReceipt, VerifiedReceipt};
#[cfg(all(test, feature = "server"))]
pub(crate) use tests::seeds;
pub use verify::{Anchor, Resumable, VerifiedExport, resumable, verify_export};

use crate::domain::Timestamp;

/// Largest file that holds one statement, in bytes; also the longest line of any file here.
const STATEMENT_BYTES: u64 = 64 * 1024;
/// How far a statement may be dated ahead of this machine's clock: as far as a cluster lets clocks differ.
const AHEAD: u64 = 10 * 60 * 1000;

/// Reads a file that holds one statement.
fn read_statement(reader: impl Read, what: &'static str) -> Result<Vec<u8>, EvidenceError> {
    read_bounded(reader, what, STATEMENT_BYTES)
}

fn read_bounded(
    reader: impl Read,
    what: &'static str,
    most: u64,
) -> Result<Vec<u8>, EvidenceError> {
    let mut bytes = Vec::new();
    reader.take(most.saturating_add(1)).read_to_end(&mut bytes).map_err(EvidenceError::Read)?;
    if u64::try_from(bytes.len()).is_ok_and(|length| length <= most) {
        Ok(bytes)
    } else {
        Err(EvidenceError::TooLarge { what, most })
    }
}

/// Nothing can have been signed later than now.
fn not_after_now(stated: Timestamp, now: Timestamp) -> Result<(), EvidenceError> {
    if stated.as_millis() <= now.as_millis().saturating_add(AHEAD) {
        Ok(())
    } else {
        Err(EvidenceError::Future { stated, now })
    }
}

/// Bytes in hexadecimal digits, as the files have them.
mod hex_bytes {
    use serde::{Deserialize, Deserializer, Serializer, de::Error as _};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8; 32], out: S) -> Result<S::Ok, S::Error> {
        out.serialize_str(&hex::encode(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<[u8; 32], D::Error> {
        let text = String::deserialize(from)?;
        let mut bytes = [0; 32];
        hex::decode_to_slice(&text, &mut bytes)
            .map_err(|_| D::Error::custom("a hash must have 64 hexadecimal digits"))?;
        Ok(bytes)
    }
}

/// Byte strings in base64, as the files have them.
mod base64_bytes {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use bytes::Bytes;
    use serde::{Deserialize, Deserializer, Serializer, de::Error as _};

    pub(super) fn serialize<S: Serializer>(bytes: &Bytes, out: S) -> Result<S::Ok, S::Error> {
        out.serialize_str(&STANDARD.encode(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Bytes, D::Error> {
        decode(&String::deserialize(from)?).map_err(D::Error::custom)
    }

    fn decode(text: &str) -> Result<Bytes, String> {
        STANDARD.decode(text).map(Bytes::from).map_err(|error| format!("bad base64: {error}"))
    }

    /// A list of them.
    pub(super) mod list {
        use base64::Engine as _;
        use serde::de::Error as _;

        use super::{Bytes, Deserialize, Deserializer, STANDARD, Serializer, decode};

        pub(in super::super) fn serialize<S: Serializer>(
            list: &[Bytes],
            out: S,
        ) -> Result<S::Ok, S::Error> {
            out.collect_seq(list.iter().map(|bytes| STANDARD.encode(bytes)))
        }

        pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
            from: D,
        ) -> Result<Vec<Bytes>, D::Error> {
            let texts = Vec::<String>::deserialize(from)?;
            texts.iter().map(|text| decode(text).map_err(D::Error::custom)).collect()
        }
    }
}
