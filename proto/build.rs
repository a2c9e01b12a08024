//! Compiles the .proto files with protox, so that no protoc has to be installed.

#![forbid(unsafe_code)]

use std::path::Path;

use prost::Message as _;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = [
        "holdfast/v1/common.proto",
        "holdfast/v1/escrow.proto",
        "holdfast/v1/compliance.proto",
        "holdfast/v1/recovery.proto",
        "holdfast/v1/disclosure.proto",
        "holdfast/v1/audit.proto",
        "holdfast/v1/admin.proto",
        "holdfast/v1/cluster.proto",
        "holdfast/v1/operator.proto",
        "holdfast/v1/enrolment.proto",
        "holdfast/peer/v1/peer.proto",
        "holdfast/store/v1/store.proto",
    ];
    println!("cargo::rerun-if-changed=holdfast");
    let descriptors = protox::compile(files, ["."])?;
    let out = std::env::var("OUT_DIR")?;
    #[allow(clippy::disallowed_methods, reason = "a build script's output needs no fsync")]
    std::fs::write(Path::new(&out).join("holdfast.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure()
        .btree_map(".")
        .bytes(".")
        // Messages that carry secrets or sealed secrets get a hand-written Debug.
        .skip_debug([
            ".holdfast.v1.DiscloseKeyResponse",
            ".holdfast.v1.EnrolRequest",
            ".holdfast.v1.InitClusterRequest",
            ".holdfast.v1.GiveShareRequest",
            ".holdfast.v1.RekeyRootKeyRequest",
            ".holdfast.v1.SealedKey",
        ])
        .compile_fds(descriptors)?;
    Ok(())
}
