//! Tests of the state machine as a whole.
#![allow(
    clippy::wildcard_enum_match_arm,
    clippy::cast_possible_truncation,
    clippy::too_many_arguments,
    let_underscore_drop,
    dropping_copy_types,
    clippy::drop_non_drop,
    reason = "a model may say \"anything else\", and its numbers are small"
)]

mod access;
mod chain;
mod controls;
mod denial;
mod disclosure;
mod enrolment;
mod escrow;
mod faults;
mod find;
mod fixtures;
mod golden;
mod groups;
mod hostile;
mod import;
mod model;
mod oidc;
mod property;
mod reach;
mod rekey;
mod report;
mod requests;
mod reseal;
mod seal;
mod steps;

pub(super) use hostile::{command_and_answer, fuzzing_seeds};
