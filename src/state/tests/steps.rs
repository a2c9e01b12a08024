//! The random command sequences that the property tests run.

use proptest::prelude::*;

use super::fixtures::*;
use super::model::Model;
use super::oidc::person;
use crate::domain::*;
use crate::state::*;

/// What happens next. Numbers are chosen from small pools, so that things meet.
#[derive(Debug, Clone)]
pub(super) enum Step {
    Blank,
    Membership(u8),
    Garbage(Vec<u8>),
    /// A command of an actor with a request id.
    Command {
        actor: Who,
        certificate: u8,
        request: u64,
        body: What,
    },
    /// An earlier command once more, with another time.
    Retry(prop::sample::Index),
}

#[derive(Debug, Clone)]
pub(super) enum Who {
    /// The actor that may do it, if it is anyone's.
    Right,
    Agent(u8),
    Operator(u8),
    Node(u64),
    /// A person whose token gave the roles of these bits.
    Person(u8, u8),
}

#[derive(Debug, Clone)]
pub(super) enum What {
    Bootstrap,
    Escrow {
        d: u8,
        v: u8,
        p: u8,
        expected: Option<u32>,
        fill: u8,
        package: bool,
        epoch: u32,
        import: bool,
    },
    Report {
        d: u8,
        volumes: Vec<u8>,
        status: bool,
    },
    Find(u8, u8),
    Disclose {
        p: u8,
        v: u32,
        named: bool,
    },
    /// For all devices, or for those of a group.
    Grant(u8, Role, Option<u8>),
    Revoke(u8, Role),
    AuditRead,
    Refusals(u8),
    ClusterChange,
    Deny(u8),
    Allow(u8),
    Seal(u8),
    /// The next epoch, or one that does not follow.
    Rotate {
        late: bool,
    },
    /// A key that is sealed anew to the newest epoch or the one after: made from what is stored, or from what was escrowed.
    Reseal {
        key: u8,
        fill: u8,
        from_escrow: bool,
        ahead: bool,
    },
    /// By shares or by order; by the newest count of seals or an older one.
    Unseal {
        shares: bool,
        late: bool,
    },
    AgentCa(u32, u8),
    /// For a device, or for a group.
    Issue(u8, Option<u8>),
    RevokeToken(u8),
    /// Into a group, or out of it.
    Group {
        d: u8,
        g: u8,
        into: bool,
    },
    Enrol {
        t: u8,
        secret: u8,
        d: u8,
        key: u8,
        ca: u32,
        fill: u8,
    },
    Renew {
        d: u8,
        key: u8,
        age: u64,
        fill: u8,
    },
}

pub(super) const OPERATORS: [&str; 5] = [ROOT, HUGO, ADA, ODO, MIA];

/// Groups that devices are put into.
pub(super) const GROUPS: [&str; 3] = ["berlin", "munich", "vip"];

/// People with tokens; one of them is called like an operator.
pub(super) const PEOPLE: [&str; 2] = [HUGO, "auth0|eve"];

/// Whom and what denials are about.
const SUBJECTS: u8 = 14;

fn subject(n: u8) -> DenialSubject {
    match n {
        0..4 => DenialSubject::Identity(operator(OPERATORS[usize::from(n)])),
        4..7 => DenialSubject::Identity(agent(n - 4)),
        7..10 => DenialSubject::Identity(node(u64::from(n - 6))),
        12.. => DenialSubject::Identity(person(PEOPLE[usize::from(n - 12)])),
        _ => DenialSubject::Certificate(certificate(n - 9).unwrap()),
    }
}

fn role() -> impl Strategy<Value = Role> {
    prop::sample::select(Role::ALL.to_vec())
}

fn what() -> impl Strategy<Value = What> {
    let expected = prop_oneof![4 => Just(None), 1 => (0_u32..4).prop_map(Some)];
    let epoch = prop_oneof![9 => Just(1_u32), 1 => Just(2_u32)];
    // Protectors 0..3 are mostly of the first volumes, so that ids are used again and by others.
    let import = prop::bool::weighted(0.3);
    let escrow = (0_u8..3, 0_u8..3, 0_u8..8, expected, 0_u8..3, any::<bool>(), epoch, import)
        .prop_map(|(d, v, p, expected, fill, package, epoch, import)| What::Escrow {
            d,
            v,
            p: if p < 5 { d * 3 + v } else { p },
            expected,
            fill,
            package,
            epoch,
            import,
        });
    let report = (0_u8..3, prop::collection::vec(0_u8..4, 0..3), any::<bool>())
        .prop_map(|(d, volumes, status)| What::Report { d, volumes, status });
    let disclose =
        (0_u8..9, 0_u32..4, any::<bool>()).prop_map(|(p, v, named)| What::Disclose { p, v, named });
    let secret = prop_oneof![9 => Just(None), 1 => (0_u8..6).prop_map(Some)];
    let ca = prop_oneof![9 => Just(1_u32), 1 => 0_u32..3];
    let enrol = (0_u8..6, secret, 0_u8..3, 0_u8..2, ca, any::<u8>()).prop_map(
        |(t, secret, d, key, ca, fill)| What::Enrol {
            t,
            secret: secret.unwrap_or(t),
            d,
            key,
            ca,
            fill,
        },
    );
    let renew = (0_u8..3, 0_u8..2, 50_u64..80, any::<u8>())
        .prop_map(|(d, key, age, fill)| What::Renew { d, key, age, fill });
    prop_oneof![
        1 => Just(What::Bootstrap),
        10 => escrow,
        4 => report,
        4 => (0_u8..4, 0_u8..9).prop_map(|(kind, n)| What::Find(kind, n)),
        14 => disclose,
        3 => (0_u8..5, role(), prop::option::of(0_u8..3))
            .prop_map(|(o, role, g)| What::Grant(o, role, g.filter(|_| role.may_be_limited()))),
        2 => (0_u8..5, role()).prop_map(|(o, role)| What::Revoke(o, role)),
        1 => Just(What::AuditRead),
        1 => (0_u8..3).prop_map(What::Refusals),
        1 => Just(What::ClusterChange),
        1 => prop_oneof![0..SUBJECTS, 7..12_u8, 7..10_u8].prop_map(What::Deny),
        2 => (0..SUBJECTS).prop_map(What::Allow),
        1 => (0_u8..3).prop_map(What::Seal),
        1 => prop::bool::weighted(0.3).prop_map(|late| What::Rotate { late }),
        4 => (any::<u8>(), 0_u8..3, any::<bool>(), prop::bool::weighted(0.1)).prop_map(
            |(key, fill, from_escrow, ahead)| What::Reseal { key, fill, from_escrow, ahead }
        ),
        4 => (any::<bool>(), prop::bool::weighted(0.2))
            .prop_map(|(shares, late)| What::Unseal { shares, late }),
        1 => (0_u32..4, any::<u8>()).prop_map(|(number, fill)| What::AgentCa(number, fill)),
        3 => (0_u8..6, prop::option::of(0_u8..3)).prop_map(|(n, g)| What::Issue(n, g)),
        4 => (0_u8..4, 0_u8..3, prop::bool::weighted(0.7))
            .prop_map(|(d, g, into)| What::Group { d, g, into }),
        1 => (0_u8..6).prop_map(What::RevokeToken),
        8 => enrol,
        3 => renew,
    ]
}

fn who() -> impl Strategy<Value = Who> {
    prop_oneof![
        12 => Just(Who::Right),
        1 => (0_u8..3).prop_map(Who::Agent),
        2 => (0_u8..5).prop_map(Who::Operator),
        1 => (1_u64..3).prop_map(Who::Node),
        2 => (0_u8..2, 0_u8..32).prop_map(|(n, roles)| Who::Person(n, roles)),
    ]
}

pub(super) fn step() -> impl Strategy<Value = Step> {
    let request = prop_oneof![6 => 100_u64..100_000_000, 1 => 0_u64..6];
    let certificate = prop_oneof![3 => Just(0_u8), 1 => 1_u8..4];
    let command =
        (who(), certificate, request, what()).prop_map(|(actor, certificate, request, body)| {
            Step::Command { actor, certificate, request, body }
        });
    prop_oneof![
        1 => Just(Step::Blank),
        1 => any::<u8>().prop_map(Step::Membership),
        1 => prop::collection::vec(any::<u8>(), 0..9).prop_map(Step::Garbage),
        28 => command,
        5 => any::<prop::sample::Index>().prop_map(Step::Retry),
    ]
}

/// How far the proposing node's clock moves: seldom back, seldom far.
pub(super) fn tick() -> impl Strategy<Value = i64> {
    prop_oneof![8 => 0_i64..2_000, 1 => -5_000_i64..0, 1 => 60_000_i64..4_000_000]
}

pub(super) fn right_actor(body: &What) -> Actor {
    match body {
        What::Escrow { import: true, .. } => operator(MIA),
        What::Escrow { d, .. } | What::Report { d, .. } => agent(*d),
        What::Find(..) => operator(HUGO),
        What::Disclose { named, .. } => operator(if *named { HUGO } else { ADA }),
        What::AuditRead | What::Unseal { shares: true, .. } => operator(ODO),
        What::Renew { d, .. } => agent(*d),
        What::Refusals(_) | What::Enrol { .. } => node(1),
        What::Bootstrap
        | What::Grant(..)
        | What::Revoke(..)
        | What::ClusterChange
        | What::Deny(_)
        | What::Allow(_)
        | What::Seal(_)
        | What::Rotate { .. }
        | What::Reseal { .. }
        | What::Unseal { shares: false, .. } => operator(ROOT),
        What::AgentCa(..) | What::Issue(..) | What::RevokeToken(_) | What::Group { .. } => {
            operator(ROOT)
        }
    }
}

pub(super) fn body_of(what: &What, model: &Model) -> CommandBody {
    match what {
        What::Bootstrap => bootstrap(),
        What::Escrow { d, v, p, expected, fill, package, epoch, import: _ } => {
            let right = model.current(device(*d), volume(*v));
            let mut escrow = escrow_of(*d, *v, *p, expected.unwrap_or(right), *fill);
            escrow.key.epoch = Epoch::new(*epoch);
            escrow.package = package.then(|| sealed(1, fill + 100));
            escrow.users = users(usize::from(*fill));
            if *fill == 1 {
                escrow.host_name = Text::default();
            }
            CommandBody::Escrow(escrow)
        }
        What::Report { d, volumes, status } => {
            let status =
                if *status { ComplianceStatus::Compliant } else { ComplianceStatus::Unknown };
            let volumes = volumes.iter().map(|v| compliance(*v, status)).collect();
            CommandBody::ReportCompliance(report_of(*d, volumes))
        }
        What::Find(kind, n) => CommandBody::FindKeys(match kind {
            0 => FindQuery::Prefix(protector(*n).prefix()),
            1 => FindQuery::Protector(protector(*n)),
            2 => FindQuery::Device(device(n % 4)),
            _ => FindQuery::Volume(device(n % 3), volume(n / 3)),
        }),
        What::Disclose { p, v, named } => disclose_of(*p, *v, named.then_some("eve")),
        What::Grant(to, role, None) => grant(OPERATORS[usize::from(*to)], *role),
        What::Grant(to, role, Some(g)) => {
            grant_for(OPERATORS[usize::from(*to)], *role, &[GROUPS[usize::from(*g)]])
        }
        What::Revoke(from, role) => revoke(OPERATORS[usize::from(*from)], *role),
        What::AuditRead => CommandBody::AuditRead { detail: name("1 to 9") },
        What::Refusals(count) => {
            let refusal = |n| RefusalCount {
                actor: agent(n),
                action: name("EscrowRecoveryKey"),
                reason: name("FOREIGN_DEVICE"),
                count: u64::from(n) + 2,
            };
            CommandBody::Refusals((0..*count).map(refusal).collect())
        }
        What::ClusterChange => CommandBody::ClusterChange { detail: name("add node/4") },
        What::Deny(n) => {
            let reason = if n % 2 == 0 { name("stolen") } else { name("left the company") };
            CommandBody::Deny { subject: subject(*n), reason }
        }
        What::Allow(n) => CommandBody::Allow { subject: subject(*n) },
        What::Seal(n) => seal(&format!("incident {n}")),
        What::Rotate { late } => rotate(model.rotations + if *late { 1 } else { 2 }),
        What::Reseal { key, fill, from_escrow, ahead } => {
            let epoch = model.rotations + if *ahead { 2 } else { 1 };
            reseal_body(model, (*key, *fill), *from_escrow, epoch)
        }
        What::Unseal { shares, late } => {
            let seals = model.seals.saturating_sub(u64::from(*late));
            if *shares { unseal_by_shares(seals) } else { unseal(seals) }
        }
        What::Group { d, g, into: true } => add_to_group(*d, GROUPS[usize::from(*g)]),
        What::Group { d, g, into: false } => remove_from_group(*d, GROUPS[usize::from(*g)]),
        What::AgentCa(..)
        | What::Issue(..)
        | What::RevokeToken(_)
        | What::Enrol { .. }
        | What::Renew { .. } => enrolment_body(what, model),
    }
}

fn enrolment_body(what: &What, model: &Model) -> CommandBody {
    match what {
        What::AgentCa(number, fill) => agent_ca(*number, *fill),
        What::Issue(n, of) => {
            let device = TokenBinding::Device(device(n % 3));
            let binding = of.map_or(device, |g| group(GROUPS[usize::from(g)], 2));
            issue_for(*n, binding)
        }
        What::RevokeToken(n) => CommandBody::RevokeToken(token_id(*n)),
        What::Enrol { t, secret, d, key, ca, fill } => CommandBody::Enrol(Enrol {
            token: token_id(*t),
            token_digest: [*secret; 32],
            device: device(*d),
            certificate: DeviceCertificate {
                agent_ca: *ca,
                ..device_certificate(*key, *fill, 1_000_000)
            },
        }),
        // Days of age of the old certificate: 60 are two thirds of its life.
        What::Renew { d, key, age, fill } => {
            let day = 86_400_000;
            CommandBody::Renew(Renew {
                device: device(*d),
                certificate: device_certificate(*key, *fill, model.now()),
                old_not_before: at((model.now() + 90 * day).saturating_sub(age * day)),
                old_not_after: at((model.now() + 180 * day).saturating_sub(age * day)),
            })
        }
        _ => unreachable!("it is of enrolment"),
    }
}

/// A key that is sealed anew, made from what is stored or from what was escrowed.
fn reseal_body(model: &Model, (key, fill): (u8, u8), from_escrow: bool, epoch: u32) -> CommandBody {
    let Some(key) = model.keys.get(usize::from(key) % model.keys.len().max(1)) else {
        return reseal(epoch, Vec::new());
    };
    let escrowed = (key.escrow.key.clone(), key.escrow.package.clone());
    let (old, package) = if from_escrow { escrowed } else { key.stored.clone() };
    let version = KeyVersion::new(key.version);
    let new = ResealedKey {
        at: KeyRef { protector: key.escrow.protector, version },
        replaces: sealed_digest(&old, package.as_ref()),
        sealed: sealed(epoch, fill + 200),
        package: package.map(|_| sealed(epoch, fill + 210)),
    };
    reseal(epoch, vec![new])
}
