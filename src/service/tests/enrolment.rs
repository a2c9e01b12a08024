//! Enrolment: who gets a certificate, when, and what is recorded of it.

use std::sync::Arc;

use super::harness::*;
use crate::auth::{Action, Caller};
use crate::crypto::testing::{CLUSTER, DEVICE, days_from_now, rng};
use crate::crypto::{CsrError, DeviceKey, EnrolmentToken, Leaf};
use crate::domain::{Actor, TokenBinding};
use crate::service::{Consensus as _, EnrolmentService, Issued, ServiceError};
use crate::state::{Command, CommandBody, IssueToken, Rejection, query};

struct Desk {
    bench: Bench,
    service: EnrolmentService<Fake>,
    token: EnrolmentToken,
    key: DeviceKey,
}

impl Desk {
    /// With a token for the device, and no CA yet.
    async fn without_ca() -> Self {
        let bench = Bench::ready().await;
        let service = EnrolmentService::new(Arc::clone(&bench.context), Arc::clone(&bench.sealing));
        let token = EnrolmentToken::generate(&mut rng());
        let issue = IssueToken {
            id: token.id(),
            digest: token.digest(),
            binding: TokenBinding::Device(DEVICE),
            ttl_ms: 3_600_000,
        };
        let permit = bench.permit(&alice(), Action::IssueToken).unwrap();
        service.issue_token(&permit, request(31), issue).await.unwrap();
        let key = DeviceKey::generate(&mut rng()).unwrap();
        Self { bench, service, token, key }
    }

    async fn ready() -> Self {
        let desk = Self::without_ca().await;
        let permit = desk.bench.permit(&alice(), Action::CreateAgentCa).unwrap();
        desk.service.create_agent_ca(&permit, request(30), 1).await.unwrap();
        desk
    }

    async fn enrol(&self, n: u8) -> Result<Issued, ServiceError> {
        let csr = self.key.csr(None).unwrap();
        self.service.enrol(request(n), &self.token, DEVICE, &csr).await
    }

    fn proposals(&self) -> usize {
        self.bench.fake.proposed.lock().len()
    }

    /// What the node has refused by itself since the last time.
    async fn refusals(&self) -> Vec<(String, String, u64)> {
        self.bench.context.flush_refusals().await.unwrap();
        let CommandBody::Refusals(counts) = self.bench.last_proposal() else { panic!() };
        let said = counts.into_iter().map(|count| {
            assert_eq!(count.actor.to_string(), "node/1");
            (count.action.to_string(), count.reason.to_string(), count.count)
        });
        said.collect()
    }
}

#[tokio::test]
async fn a_device_gets_the_certificate_that_is_recorded() {
    let desk = Desk::ready().await;
    let issued = desk.enrol(40).await.unwrap();
    let leaf = Leaf::read(&issued.chain[0]).unwrap();
    assert_eq!(leaf.uri, Actor::Agent(DEVICE).spiffe_uri(CLUSTER));
    assert_eq!(&leaf.public_key, desk.key.public_key());
    let view = desk.bench.context.consensus().view();
    let known = query::enrolment(view, DEVICE).unwrap().unwrap();
    assert_eq!(known.certificate.der, issued.chain[0]);
    assert_eq!(known.certificate.not_after, leaf.not_after);
    assert_eq!(query::agent_cas(view).unwrap()[0].certificate, issued.chain[1]);
    // A retry signs anew, and gives what was recorded.
    assert_eq!(desk.enrol(40).await.unwrap().chain, issued.chain);
    let replayed = desk.enrol(41).await.unwrap_err();
    assert!(matches!(replayed, ServiceError::Rejected(Rejection::TokenUsed)), "{replayed:?}");
    let counters = desk.bench.context.counters();
    assert_eq!((counters.enrolments(), counters.enrolments_refused()), (1, 1));
}

#[tokio::test]
async fn what_is_signed_and_not_recorded_is_not_given_away() {
    let desk = Desk::ready().await;
    for log in [Log::NoLeader, Log::Stalls] {
        *desk.bench.fake.log.lock() = log;
        let error = desk.enrol(40).await.unwrap_err();
        assert!(matches!(error, ServiceError::Raft(_)), "{log:?}: {error:?}");
    }
}

#[tokio::test]
async fn who_has_no_token_gets_nothing_into_the_log_and_is_counted() {
    let mut desk = Desk::ready().await;
    let before = desk.proposals();
    let good = std::mem::replace(
        &mut desk.token,
        EnrolmentToken::generate(&mut crate::crypto::system_rng()),
    );
    for _ in 0..3 {
        let error = desk.service.enrol(request(40), &desk.token, DEVICE, b"not even looked at");
        let error = error.await.unwrap_err();
        assert!(matches!(error, ServiceError::Rejected(Rejection::UnknownToken)), "{error:?}");
    }
    // The right id with another secret is no better.
    let mut text = good.expose_text().to_string();
    let last = if text.pop() == Some('0') { '1' } else { '0' };
    text.push(last);
    desk.token = text.parse().unwrap();
    assert_eq!(desk.token.id(), good.id());
    let error = desk.enrol(40).await.unwrap_err();
    assert!(matches!(error, ServiceError::Rejected(Rejection::UnknownToken)), "{error:?}");
    assert_eq!(desk.proposals(), before);
    assert_eq!(desk.refusals().await, [("Enrol".to_owned(), "UNKNOWN_TOKEN".to_owned(), 4)]);
    desk.token = good;
    desk.enrol(40).await.unwrap();
}

#[tokio::test]
async fn a_request_with_a_foreign_name_is_refused_and_the_token_stays_good() {
    let desk = Desk::ready().await;
    let before = desk.proposals();
    let foreign = Actor::Operator("root".parse().unwrap()).spiffe_uri(CLUSTER);
    let csr = desk.key.csr(Some(&foreign)).unwrap();
    let error = desk.service.enrol(request(40), &desk.token, DEVICE, &csr).await.unwrap_err();
    assert!(matches!(error, ServiceError::Csr(CsrError::ForeignName)), "{error:?}");
    assert_eq!(desk.proposals(), before);
    assert_eq!(desk.refusals().await, [("Enrol".to_owned(), "CSR_FOREIGN_NAME".to_owned(), 1)]);
    desk.enrol(40).await.unwrap();
}

#[tokio::test]
async fn without_a_ca_and_while_sealed_the_token_stays_good() {
    let desk = Desk::without_ca().await;
    let error = desk.enrol(40).await.unwrap_err();
    assert!(matches!(error, ServiceError::NoAgentCa), "{error:?}");
    let permit = desk.bench.permit(&alice(), Action::CreateAgentCa).unwrap();
    desk.service.create_agent_ca(&permit, request(30), 1).await.unwrap();
    let sealed = crate::service::Sealing::new(CLUSTER, None, desk.bench.dir.path().join("data"));
    let sealed = EnrolmentService::new(Arc::clone(&desk.bench.context), Arc::new(sealed));
    let before = desk.proposals();
    let csr = desk.key.csr(None).unwrap();
    let error = sealed.enrol(request(40), &desk.token, DEVICE, &csr).await.unwrap_err();
    assert!(matches!(error, ServiceError::Sealed(_)), "{error:?}");
    assert_eq!(desk.proposals(), before);
    let permit = desk.bench.permit(&alice(), Action::CreateAgentCa).unwrap();
    let error = sealed.create_agent_ca(&permit, request(32), 2).await.unwrap_err();
    assert!(matches!(error, ServiceError::Sealed(_)), "{error:?}");
    desk.enrol(40).await.unwrap();
}

#[tokio::test]
async fn a_token_ends_by_the_clock_of_the_state() {
    let desk = Desk::ready().await;
    let later = desk.bench.context.now().as_millis() + 3_600_001;
    let command = Command {
        actor: alice().actor().clone(),
        certificate: None,
        roles: Default::default(),
        request_id: request(60),
        time: crate::domain::Timestamp::from_millis(later),
        body: CommandBody::RevokeToken(crate::domain::TokenId::from_bytes([9; 16])),
    };
    desk.bench.fake.propose(command).await.unwrap();
    let error = desk.enrol(40).await.unwrap_err();
    assert!(matches!(error, ServiceError::Rejected(Rejection::TokenExpired(_))), "{error:?}");
}

#[tokio::test]
async fn a_device_renews_in_the_last_third_of_its_certificates_life() {
    let desk = Desk::ready().await;
    desk.enrol(40).await.unwrap();
    let caller = |from_days_ago: u64| {
        let days = |n: u64| days_from_now(1000).as_millis() - (1000 - n) * 86_400_000;
        let begin = days_from_now(0).as_millis() - from_days_ago * 86_400_000;
        let not_before = crate::domain::Timestamp::from_millis(begin);
        let not_after = crate::domain::Timestamp::from_millis(days(90 - from_days_ago));
        Caller::proven_between(Actor::Agent(DEVICE), not_before, not_after, "01")
    };
    let next = DeviceKey::generate(&mut crate::crypto::system_rng()).unwrap();
    let csr = next.csr(None).unwrap();
    let renew = async |n, caller: &Caller| {
        let permit = desk.bench.permit(caller, Action::RenewCertificate).unwrap();
        desk.service.renew(&permit, caller, request(n), &csr).await
    };
    let early = renew(50, &caller(59)).await.unwrap_err();
    assert!(matches!(early, ServiceError::Rejected(Rejection::RenewalTooEarly(_))), "{early:?}");
    let issued = renew(50, &caller(61)).await.unwrap();
    assert_eq!(&Leaf::read(&issued.chain[0]).unwrap().public_key, next.public_key());
    assert_eq!(renew(50, &caller(61)).await.unwrap().chain, issued.chain);
}
