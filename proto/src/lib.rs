//! Wire and storage messages of Holdfast, generated from the .proto files beside this crate.

#![forbid(unsafe_code)]

/// The public API.
pub mod v1 {
    tonic::include_proto!("holdfast.v1");

    impl std::fmt::Debug for DiscloseKeyResponse {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("DiscloseKeyResponse([redacted])")
        }
    }

    impl std::fmt::Debug for EnrolRequest {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            write!(f, "EnrolRequest(device {}, [redacted])", self.device_id)
        }
    }

    impl std::fmt::Debug for InitClusterRequest {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("InitClusterRequest([redacted])")
        }
    }

    impl std::fmt::Debug for GiveShareRequest {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("GiveShareRequest([redacted])")
        }
    }

    impl std::fmt::Debug for RekeyRootKeyRequest {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("RekeyRootKeyRequest([redacted])")
        }
    }

    impl std::fmt::Debug for SealedKey {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            write!(f, "SealedKey(epoch {}, {} bytes)", self.epoch, self.ciphertext.len())
        }
    }
}

/// Node to node.
pub mod peer {
    /// Version 1.
    pub mod v1 {
        tonic::include_proto!("holdfast.peer.v1");
    }
}

/// What is written to the log, the view and snapshots.
pub mod store {
    /// Version 1.
    pub mod v1 {
        tonic::include_proto!("holdfast.store.v1");
    }
}

/// All descriptors, for gRPC reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/holdfast.bin"));

/// Name of a service, for health checks.
pub const ESCROW_SERVICE: &str = "holdfast.v1.EscrowService";
