//! Tests of the state machine as a whole.

mod access;
mod chain;
mod disclosure;
mod escrow;
mod faults;
mod find;
mod fixtures;
mod golden;
mod model;
mod property;
mod report;
mod requests;
