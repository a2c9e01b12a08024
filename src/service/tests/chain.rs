//! An audit chain that is not the one that was signed before.

use std::sync::atomic::Ordering;

use super::harness::*;
use crate::auth::Action;
use crate::domain::AuditPosition;
use crate::service::{Consensus as _, Contained, Missing, ServiceError};
use crate::state::{Heads, query};

#[tokio::test]
async fn a_chain_has_its_records_and_no_others_and_one_that_may_only_be_behind_is_not_judged() {
    let bench = Bench::ready().await;
    let view = bench.fake.view();
    let head = Heads::load(view).unwrap().audit;
    let first = query::audit_records(view, 1, 1, 1).unwrap()[0].head();
    let contains = |known| bench.context.chain_contains(known);
    for known in [first, head] {
        assert_eq!(contains(known).await.unwrap(), Contained::Yes);
        let other = AuditPosition { hash: [9; 32], ..known };
        assert_eq!(contains(other).await.unwrap(), Contained::No(Missing::Another));
    }
    let beyond = AuditPosition { sequence: head.sequence + 1, hash: [9; 32] };
    let gone = Missing::Beyond { ends: head.sequence };
    assert_eq!(contains(beyond).await.unwrap(), Contained::No(gone));
    for log in [Log::NoLeader, Log::Stalls] {
        *bench.fake.log.lock() = log;
        assert_eq!(contains(beyond).await.unwrap(), Contained::NotYet, "{log:?}");
        assert_eq!(contains(head).await.unwrap(), Contained::Yes, "it asks nobody for that");
    }
}

#[tokio::test]
async fn a_node_with_another_chain_than_was_signed_stores_keys_and_opens_none() {
    let bench = Bench::ready().await;
    assert!(bench.context.report_chain_conflict("it ends at record 7".to_owned()));
    assert!(!bench.context.report_chain_conflict("later".to_owned()), "the first word stays");
    bench.escrow(luks2_key().as_bytes()).await;
    let (recovery, spy) = bench.recovery();
    let permit = bench.permit(&alice(), Action::DiscloseKey).unwrap();
    let before = bench.fake.proposed.lock().len();
    let refused = recovery.disclose(&permit, request(20), disclosure(), false).await;
    let Err(ServiceError::ChainConflict(why)) = refused else { panic!("it was not refused") };
    assert_eq!(why, "it ends at record 7");
    assert_eq!(bench.fake.proposed.lock().len(), before, "nothing is recorded");
    assert_eq!(spy.opened.load(Ordering::SeqCst), 0);
}
