//! Holdfast: a consensus-backed store for disk-encryption recovery keys.
//!
//! Agents seal a recovery key, any node takes it, a majority logs it durably, a pure state machine applies it, and a
//! disclosure is itself a logged command whose audit record is committed before the secret is opened.
//!
//! # The layers
//!
//! A layer knows those to its left and never those to its right; leaves may be known by all.
//!
//! ```text
//! domain <- state <- storage <- raft <- service <- grpc <- server <- bin
//! domain <- crypto, auth <- service
//! domain, crypto, auth <- oidc <- grpc, cli
//! domain, crypto, proto <- client <- agent, cli <- bin
//! client::evidence <- server: its checkpoints are files like any other evidence
//! leaves: fs, clock, tls, telemetry, turns, planted
//! ```
//!
//! - [`domain`]: the vocabulary. Pure: no I/O, no clock, no async.
//! - [`state`]: the replicated state machine. Synchronous and deterministic.
//! - [`crypto`]: sealing and opening, the keyring, signatures.
//! - [`storage`]: write-ahead log, view, snapshots, data directory.
//! - [`raft`]: the only user of openraft.
//! - [`auth`]: certificate or token -> caller -> permit.
//! - [`oidc`]: the provider of people's tokens, its keys, what its tokens prove, and a login there.
//! - [`service`]: use cases, free of any transport.
//! - [`grpc`]: decode, call the service, encode.
//! - [`server`]: configuration, composition root, health, metrics, shutdown.
//! - [`client`]: the API client that everyone outside uses.
//! - [`cli`]: operator and help-desk commands.
//! - [`agent`]: the client machine: volumes and what protects them.
//! - `fuzzing`: what the targets of `fuzz/` call, of every layer; only in tests and with the feature of that name.

#![forbid(unsafe_code)]

#[cfg(feature = "agent")]
pub mod agent;
pub mod client;
pub mod clock;
pub mod crypto;
pub mod domain;
pub mod fs;
#[cfg(any(all(test, feature = "server"), feature = "fuzzing"))]
pub mod fuzzing;
pub mod hardening;
pub mod planted;
pub mod telemetry;
pub mod tls;
pub mod turns;

#[cfg(feature = "server")]
pub mod auth;
#[cfg(feature = "server")]
pub mod cli;
#[cfg(feature = "server")]
pub mod grpc;
#[cfg(feature = "server")]
pub mod oidc;
#[cfg(feature = "server")]
pub mod raft;
#[cfg(feature = "server")]
pub mod server;
#[cfg(feature = "server")]
pub mod service;
#[cfg(feature = "server")]
pub mod state;
#[cfg(feature = "server")]
pub mod storage;

#[cfg(test)]
mod testing;
