//! What the help desk does: search, look at devices, disclose.

use std::time::Duration;

use holdfast::client::{Client, ClientError, ErrorKind, Method};
use holdfast_proto::v1;
use holdfast_proto::v1::find_keys_request::Query;
use prost::Message as _;
use rand::Rng as _;
use rand::rngs::StdRng;
use uuid::Uuid;

use super::Shared;
use super::agent::{missing, unreadable};
use super::calls::{Caller, Who, known};
use super::door::Door;
use super::registry::{KnownKey, new_uuid};
use crate::history::{Call, Outcome, Position, Reply};

/// Disclosures of each operator while faults are about; the quota's other half is for the last phase.
pub(super) const CHARGES: u32 = 90;
/// Disclosures that are allowed at once at the beginning.
const BURST: u32 = 30;

/// A person at the help desk, with the certificates of several.
pub(super) struct HelpDeskClient {
    id: u64,
    /// Operators: their number, and how they reach the servers.
    doors: Vec<(usize, Door)>,
    /// Whose turn it is.
    turn: usize,
    /// A disclosure that may be repeated, and by whom it was made.
    earlier: Option<(usize, Ask)>,
    unknown: bool,
}

/// A disclosure.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ask {
    pub(super) request: Uuid,
    pub(super) protector: Uuid,
    /// 0 for the newest.
    pub(super) version: u32,
}

impl HelpDeskClient {
    pub(super) fn new(shared: &Shared, id: u64, index: usize, bound: Option<usize>) -> Self {
        let operators = &shared.options.help_desk;
        // Of six clients two are at the help desk.
        let desks = usize::try_from(shared.options.clients.max(3)).unwrap_or(3).div_ceil(3);
        let desk = index / 3;
        let mine = operators.iter().enumerate();
        let mut doors: Vec<_> = mine
            .filter(|(at, _)| at % desks == desk % desks)
            .map(|(at, operator)| (at, shared.door(&operator.files, bound, index)))
            .collect();
        if doors.is_empty() {
            // Fewer operators than desks: they share.
            let at = index.checked_rem(operators.len()).unwrap_or(0);
            let files =
                operators.get(at).map(|operator| shared.door(&operator.files, bound, index));
            doors.extend(files.map(|door| (at, door)));
        }
        Self { id, doors, turn: 0, earlier: None, unknown: false }
    }

    /// The next call. Answers whether its outcome is known.
    pub(super) async fn step(&mut self, shared: &Shared, rng: &mut StdRng) -> bool {
        let again = if self.unknown { 0.8 } else { 0.1 };
        self.unknown = false;
        if let Some((turn, ask)) = self.earlier.take()
            && rng.random_bool(again)
        {
            return self.disclose(shared, turn, ask).await;
        }
        let all = allowed(shared);
        let turn = self.turn;
        let Some((operator, door)) = self.doors.get_mut(turn) else { return false };
        let operator = *operator;
        let Ok((node, client)) = door.client(&shared.endpoints) else { return false };
        let who = Who { client: self.id, node };
        let dice = rng.random_range(0..100);
        let Some(key) = shared.registry.some_key(rng) else {
            let device = some_device(shared, rng);
            return known(&read_device(shared, who, &client, device, false).await);
        };
        if dice < 25 && shared.registry.charge(operator, CHARGES, all) {
            self.turn = turn.saturating_add(1).checked_rem(self.doors.len()).unwrap_or(0);
            let version = if rng.random_bool(0.5) { key.version } else { 0 };
            let ask = Ask { request: new_uuid(rng), protector: key.protector, version };
            return self.disclose(shared, turn, ask).await;
        }
        let outcome = match dice {
            ..70 => {
                let protector = if dice == 69 { new_uuid(rng) } else { key.protector };
                let whole = rng.random_bool(0.4);
                let query = if whole { Find::Key(protector) } else { Find::Prefix(protector) };
                find(&shared.caller, who, &client, new_uuid(rng), query).await
            }
            _ => {
                let device = some_device(shared, rng);
                read_device(shared, who, &client, device, dice >= 90).await
            }
        };
        known(&outcome)
    }

    async fn disclose(&mut self, shared: &Shared, turn: usize, ask: Ask) -> bool {
        let Some((_, door)) = self.doors.get_mut(turn) else { return false };
        let Ok((node, client)) = door.client(&shared.endpoints) else { return false };
        let who = Who { client: self.id, node };
        let outcome = disclose(&shared.caller, who, &client, ask).await;
        self.unknown = !known(&outcome);
        self.earlier = Some((turn, ask));
        !self.unknown
    }
}

/// Disclosures that all operators may have made by now.
fn allowed(shared: &Shared) -> u32 {
    let operators = u32::try_from(shared.options.help_desk.len()).unwrap_or(u32::MAX);
    let all = f64::from(operators.saturating_mul(CHARGES));
    let expected = shared.options.expected.max(Duration::from_secs(1)).as_secs_f64();
    let part = (shared.began.elapsed().as_secs_f64() / expected).min(1.0);
    let now = std::time::Duration::try_from_secs_f64(all * part).unwrap_or_default().as_secs();
    u32::try_from(now).unwrap_or(u32::MAX).saturating_add(BURST)
}

fn some_device(shared: &Shared, rng: &mut StdRng) -> Uuid {
    let agents = &shared.options.agents;
    let at = rng.random_range(0..agents.len().max(1));
    agents.get(at).map_or(Uuid::nil(), |agent| agent.device)
}

/// What is searched for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Find {
    /// By its first eight digits.
    Prefix(Uuid),
    /// By all 32.
    Key(Uuid),
    /// All keys of a volume of a device.
    Volume(Uuid, Uuid),
}

impl Find {
    /// As the history has it, and as it is sent.
    fn query(self) -> (String, Query) {
        match self {
            Self::Prefix(id) => {
                let digits = crate::check::prefix(id);
                (digits.clone(), Query::KeyIdPrefix(digits))
            }
            Self::Key(id) => (id.to_string(), Query::KeyId(id.to_string())),
            Self::Volume(device, volume) => (
                format!("volume {device} {volume}"),
                Query::Volume(v1::VolumeRef {
                    device_id: device.to_string(),
                    volume_id: volume.to_string(),
                }),
            ),
        }
    }
}

pub(super) async fn find(
    caller: &Caller,
    who: Who,
    client: &Client,
    request: Uuid,
    what: Find,
) -> Outcome {
    let (text, query) = what.query();
    let message = v1::FindKeysRequest { request_id: request.to_string(), query: Some(query) };
    let answer = async {
        let answer = client.exchange(Method::FindKeys, message.encode_to_vec().into()).await?;
        let answer = v1::FindKeysResponse::decode(answer).map_err(unreadable)?;
        let keys = answer.keys.iter().map(|key| Ok((uuid(&key.protector_id)?, key.version)));
        Ok(Reply::Find {
            keys: keys.collect::<Result<_, ClientError>>()?,
            audit: answer.audit.ok_or_else(|| missing("audit"))?.sequence,
            position: position(answer.position)?,
        })
    };
    caller.call(who, Call::Find { request, query: text }, answer).await
}

pub(super) async fn disclose(caller: &Caller, who: Who, client: &Client, ask: Ask) -> Outcome {
    let Ask { request, protector, version } = ask;
    let message = v1::DiscloseKeyRequest {
        request_id: request.to_string(),
        protector_id: protector.to_string(),
        version,
        reason: Some(v1::Reason { code: "LOST_PIN".to_owned(), text: String::new() }),
        user: Some(v1::User { domain: "CHAOS".to_owned(), name: "alice".to_owned() }),
        ticket: "INC-1".to_owned(),
        include_key_package: false,
        approval_id: 0,
    };
    let answer = async {
        let answer = client.exchange(Method::DiscloseKey, message.encode_to_vec().into()).await?;
        let answer = v1::DiscloseKeyResponse::decode(answer).map_err(unreadable)?;
        Ok(Reply::Disclose {
            key: answer.recovery_key,
            version: answer.key.ok_or_else(|| missing("key"))?.version,
            audit: answer.audit.ok_or_else(|| missing("audit"))?.sequence,
            position: position(answer.position)?,
            repeated: answer.repeated,
        })
    };
    caller.call(who, Call::Disclose { request, protector, version }, answer).await
}

/// Reads a device, and tells the others what versions its volumes have.
pub(super) async fn read_device(
    shared: &Shared,
    who: Who,
    client: &Client,
    device: Uuid,
    stale: bool,
) -> Outcome {
    let message = v1::GetDeviceRequest { device_id: device.to_string(), stale };
    let answer = async {
        let answer = client.exchange(Method::GetDevice, message.encode_to_vec().into()).await;
        let answer = match answer {
            Ok(answer) => v1::GetDeviceResponse::decode(answer).map_err(unreadable)?,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Ok(Reply::Device { volumes: Vec::new(), index: 0, age_ms: 0 });
            }
            Err(error) => return Err(error),
        };
        let volumes = answer.device.ok_or_else(|| missing("device"))?.volumes;
        let volumes = volumes.iter().map(|volume| {
            let id = uuid(&volume.volume_id)?;
            let key = &volume.protector_id;
            let protector = if key.is_empty() { Uuid::nil() } else { uuid(key)? };
            Ok((id, volume.key_version, protector))
        });
        Ok(Reply::Device {
            volumes: volumes.collect::<Result<_, ClientError>>()?,
            index: answer.applied_index,
            age_ms: answer.age_ms,
        })
    };
    let call = if stale { Call::ReadDeviceStale { device } } else { Call::ReadDevice { device } };
    let outcome = shared.caller.call(who, call, answer).await;
    if let Outcome::Ok { reply: Reply::Device { volumes, .. } } = &outcome {
        for (volume, version, protector) in volumes {
            shared.registry.learn(device, *volume, *version, *protector);
        }
    }
    outcome
}

/// A key as an answer names it.
fn uuid(text: &str) -> Result<Uuid, ClientError> {
    text.parse().map_err(|_| ClientError::Answer(format!("{text:?} is no UUID")))
}

fn position(position: Option<v1::LogPosition>) -> Result<Position, ClientError> {
    let v1::LogPosition { term, index } = position.ok_or_else(|| missing("position"))?;
    Ok(Position { term, index })
}

/// Keys to disclose, as the last phase asks for them.
pub(super) fn exactly(key: KnownKey, request: Uuid) -> Ask {
    Ask { request, protector: key.protector, version: key.version }
}
