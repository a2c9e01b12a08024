//! The composition root: configuration, listeners, health, metrics and shutdown.

pub mod config;
