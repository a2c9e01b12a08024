//! The workloads: what is made ready, and what each client sends.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use holdfast_proto::v1;
use prost::Message as _;
use rand::Rng as _;
use uuid::Uuid;

use super::load::{Measured, Step, Worker, run};
use super::pool::{Pool, VolumeKeys, fill};
use super::setup::{AgentClient, Identities, Target};
use super::{BenchArgs, Workload};
use crate::cli::exit::CliError;
use crate::cli::output::Printer;
use crate::client::{Client, ClientError, EncodedEscrow, ErrorKind, Method, new_request_id};
use crate::clock::{Clock as _, SystemClock};
use crate::domain::{DeviceId, ProtectorId, ProtectorKind, RecoveryKey, Role, limits};

/// Escrows in flight while keys are made ready.
const SETUP_IN_FLIGHT: usize = 32;

/// Work that is ready to run.
pub(super) enum Work {
    Escrow(Vec<EscrowWorker>, usize),
    Call(Vec<CallWorker>, usize),
}

impl Work {
    /// Runs it.
    pub(super) async fn run(self, time: Duration) -> Result<Measured, CliError> {
        let measured = match self {
            Self::Escrow(workers, lanes) => run(workers, lanes, time).await,
            Self::Call(workers, lanes) => run(workers, lanes, time).await,
        };
        measured.map_err(|error| CliError::failed(format!("making a histogram: {error}")))
    }
}

fn size(count: u64) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX)
}

/// Makes everything ready: certificates, grants, keys, connections.
pub(super) async fn prepare(
    printer: Printer,
    args: &BenchArgs,
    target: &Target,
) -> Result<Work, CliError> {
    let identities = target.identities().await?;
    let connections = size(args.connections);
    match args.workload {
        Workload::Escrow | Workload::Gap => {
            let agents = identities.agents(connections)?;
            escrow(printer, args, agents).await
        }
        Workload::Compliance => {
            let agents = identities.agents(connections)?;
            let makers = agents.into_iter().map(|agent| {
                let message = compliance(agent.device);
                (agent.client, Maker::Compliance(Box::new(message)))
            });
            Ok(calls(args, makers.collect()))
        }
        Workload::Find | Workload::Disclose => {
            let keys: Arc<[ProtectorId]> = keys(printer, args, &identities).await?.into();
            let roles = [Role::AdvancedHelpDesk];
            let operators = identities.operators(connections, &roles).await?;
            let makers = operators.into_iter().map(|client| {
                let keys = Arc::clone(&keys);
                let maker = match args.workload {
                    Workload::Disclose => Maker::Disclose(keys),
                    _ => Maker::Find(keys),
                };
                (client, maker)
            });
            Ok(calls(args, makers.collect()))
        }
        Workload::Read => {
            let device = device_to_read(printer, args, &identities).await?;
            let operators = identities.operators(connections, &[Role::ReportReader]).await?;
            let message = v1::GetDeviceRequest { device_id: device.to_string(), stale: false };
            let message = Bytes::from(message.encode_to_vec());
            let makers = operators.into_iter();
            let makers = makers.map(|client| (client, Maker::Read(message.clone(), device)));
            Ok(calls(args, makers.collect()))
        }
    }
}

async fn escrow(
    printer: Printer,
    args: &BenchArgs,
    agents: Vec<AgentClient>,
) -> Result<Work, CliError> {
    let most = agents.len().saturating_mul(limits::DEVICE_VOLUMES);
    if size(args.clients) > most {
        let what = format!("a device has at most 64 volumes: {most} clients for these connections");
        return Err(CliError::usage(what));
    }
    let first = agents.first().ok_or_else(|| CliError::usage("--connections must be 1 or more"))?;
    let key = first.client.escrow_key().await?;
    // Every connection is made before the clock starts.
    for agent in &agents {
        agent.client.escrow_key().await?;
    }
    let lanes: Vec<_> = agents.iter().cycle().take(size(args.clients)).collect();
    let devices: Vec<_> = lanes.iter().map(|agent| agent.device).collect();
    let begun = Instant::now();
    let wanted = args.rate.saturating_mul(args.seconds);
    let pools = fill(&key, &devices, wanted).await?;
    printer.progress(format!("keys sealed in {:.1} s", begun.elapsed().as_secs_f64()));
    let workers = lanes.into_iter().zip(pools).map(|(agent, pool)| EscrowWorker {
        client: agent.client.clone(),
        pool,
        again: None,
        count: 0,
        every: args.verify.every(),
    });
    Ok(Work::Escrow(workers.collect(), agents.len()))
}

/// Key ids to search for: those that were given, or newly escrowed ones.
async fn keys(
    printer: Printer,
    args: &BenchArgs,
    identities: &Identities<'_>,
) -> Result<Vec<ProtectorId>, CliError> {
    if !args.key_ids.is_empty() {
        return Ok(args.key_ids.clone());
    }
    if !identities.can_issue() {
        return Err(CliError::usage("give --key-id, or --pki, or --local"));
    }
    let begun = Instant::now();
    let wanted = size(args.keys);
    let agents = identities.agents(wanted.div_ceil(limits::DEVICE_VOLUMES).min(16))?;
    let volumes = agents.len().saturating_mul(limits::DEVICE_VOLUMES).min(wanted);
    let each = wanted.div_ceil(volumes.max(1));
    let jobs = agents.iter().cycle().take(volumes).map(|agent| volume(agent.clone(), each));
    let found: Vec<Vec<ProtectorId>> =
        stream::iter(jobs).buffer_unordered(SETUP_IN_FLIGHT).try_collect().await?;
    let took = begun.elapsed().as_secs_f64();
    let mut ids: Vec<_> = found.into_iter().flatten().collect();
    ids.truncate(wanted);
    printer.progress(format!("{} keys escrowed in {took:.1} s", ids.len()));
    Ok(ids)
}

/// Escrows keys to one new volume, one after the other.
async fn volume(agent: AgentClient, count: usize) -> Result<Vec<ProtectorId>, CliError> {
    let mut keys = VolumeKeys::new(agent.client.escrow_key().await?, agent.device)?;
    let mut ids = Vec::with_capacity(count);
    for _ in 0..count {
        let (id, sealed) = keys.seal()?;
        agent.client.send(&sealed).await?;
        ids.push(id);
    }
    Ok(ids)
}

async fn device_to_read(
    printer: Printer,
    args: &BenchArgs,
    identities: &Identities<'_>,
) -> Result<DeviceId, CliError> {
    if let Some(device) = args.device {
        return Ok(device);
    }
    if !identities.can_issue() {
        return Err(CliError::usage("give --device, or --pki, or --local"));
    }
    let agents = identities.agents(1)?;
    let agent = agents.into_iter().next().ok_or_else(|| CliError::failed("no agent"))?;
    let device = agent.device;
    volume(agent, 1).await?;
    printer.progress(format!("device {device} is there to be read"));
    Ok(device)
}

fn compliance(device: DeviceId) -> v1::ReportComplianceRequest {
    let volume = |kind: v1::VolumeKind, mount: &str| v1::VolumeCompliance {
        volume_id: Uuid::new_v4().to_string(),
        volume_kind: kind.into(),
        mount_point: mount.to_owned(),
        status: v1::ComplianceStatus::Compliant.into(),
        reasons: Vec::new(),
        encryption_state: v1::EncryptionState::Encrypted.into(),
        protection_on: true,
        cipher: "XTS-AES 256".to_owned(),
        protector_types: "TPM+PIN, NumericalPassword".to_owned(),
    };
    v1::ReportComplianceRequest {
        request_id: String::new(),
        device_id: device.to_string(),
        host_name: "bench-host-0042".to_owned(),
        operating_system: "Windows 11 Enterprise 24H2".to_owned(),
        manufacturer: "Contoso".to_owned(),
        model: "Book 3".to_owned(),
        users: vec![v1::User { domain: "CORP".to_owned(), name: "alice".to_owned() }],
        volumes: vec![
            volume(v1::VolumeKind::OperatingSystem, "C:"),
            volume(v1::VolumeKind::FixedData, "D:"),
        ],
    }
}

fn calls(args: &BenchArgs, makers: Vec<(Client, Maker)>) -> Work {
    let lanes = makers.len();
    let workers =
        makers.iter().cycle().take(size(args.clients)).map(|(client, maker)| CallWorker {
            client: client.clone(),
            maker: maker.clone(),
            count: 0,
            every: args.verify.every(),
        });
    Work::Call(workers.collect(), lanes)
}

/// Escrows to one volume.
pub(super) struct EscrowWorker {
    client: Client,
    pool: Pool,
    /// An escrow whose outcome is not known: it is sent again, byte for byte.
    again: Option<EncodedEscrow>,
    count: u64,
    every: u64,
}

impl Worker for EscrowWorker {
    async fn step(&mut self) -> Step {
        let escrow = match self.again.take() {
            Some(escrow) => escrow,
            None => match self.pool.next() {
                Ok(escrow) => escrow,
                Err(error) => return Step::Finished(error),
            },
        };
        self.count = self.count.wrapping_add(1);
        match self.client.exchange(Method::EscrowRecoveryKey, escrow.bytes()).await {
            Ok(answer) if self.count.is_multiple_of(self.every) => {
                match escrow.check(answer, self.pool.key(), SystemClock.now()) {
                    Ok(_) => Step::Done,
                    Err(error) => Step::Failed(error),
                }
            }
            Ok(_) => Step::Done,
            Err(error) => match error.kind() {
                ErrorKind::Unavailable | ErrorKind::Exhausted => {
                    self.again = Some(escrow);
                    Step::Failed(error)
                }
                // Every later version of the volume would be refused as well.
                ErrorKind::NotFound
                | ErrorKind::Denied
                | ErrorKind::Conflict
                | ErrorKind::Invalid
                | ErrorKind::Integrity
                | ErrorKind::Internal => Step::Finished(error),
            },
        }
    }
}

/// What a client sends, and what it expects.
#[derive(Clone)]
enum Maker {
    Find(Arc<[ProtectorId]>),
    Disclose(Arc<[ProtectorId]>),
    Compliance(Box<v1::ReportComplianceRequest>),
    Read(Bytes, DeviceId),
}

/// Makes one kind of call.
pub(super) struct CallWorker {
    client: Client,
    maker: Maker,
    count: u64,
    every: u64,
}

impl Worker for CallWorker {
    async fn step(&mut self) -> Step {
        let (method, message, about) = self.maker.next();
        self.count = self.count.wrapping_add(1);
        match self.client.exchange(method, message).await {
            Ok(answer) if self.count.is_multiple_of(self.every) => {
                match self.maker.check(answer, about) {
                    Ok(()) => Step::Done,
                    Err(error) => Step::Failed(error),
                }
            }
            Ok(_) => Step::Done,
            // An operator's quota does not come back while we measure.
            Err(error) if error.kind() == ErrorKind::Exhausted && method == Method::DiscloseKey => {
                Step::Finished(error)
            }
            Err(error) => Step::Failed(error),
        }
    }
}

fn pick(keys: &[ProtectorId]) -> ProtectorId {
    let index = rand::rng().random_range(0..keys.len().max(1));
    keys.get(index).copied().unwrap_or(ProtectorId::from_bytes([0; 16]))
}

impl Maker {
    /// The next message, and the key that it is about.
    fn next(&mut self) -> (Method, Bytes, Option<ProtectorId>) {
        match self {
            Self::Find(keys) => {
                let id = pick(keys);
                let query = v1::find_keys_request::Query::KeyIdPrefix(id.prefix().to_string());
                let message =
                    v1::FindKeysRequest { request_id: new_request_id(), query: Some(query) };
                (Method::FindKeys, message.encode_to_vec().into(), Some(id))
            }
            Self::Disclose(keys) => {
                let id = pick(keys);
                let reason = v1::Reason { code: "LOST_PIN".to_owned(), text: String::new() };
                let message = v1::DiscloseKeyRequest {
                    request_id: new_request_id(),
                    protector_id: id.to_string(),
                    version: 0,
                    reason: Some(reason),
                    user: None,
                    ticket: "BENCH-1".to_owned(),
                    include_key_package: false,
                    approval_id: 0,
                };
                (Method::DiscloseKey, message.encode_to_vec().into(), Some(id))
            }
            Self::Compliance(message) => {
                message.request_id = new_request_id();
                (Method::ReportCompliance, message.encode_to_vec().into(), None)
            }
            Self::Read(message, _) => (Method::GetDevice, message.clone(), None),
        }
    }

    fn check(&self, answer: Bytes, about: Option<ProtectorId>) -> Result<(), ClientError> {
        let unreadable = |error: prost::DecodeError| ClientError::Answer(error.to_string());
        let right = match self {
            Self::Find(_) => {
                let found = v1::FindKeysResponse::decode(answer).map_err(unreadable)?;
                let wanted = about.map(|id| id.to_string()).unwrap_or_default();
                found.keys.iter().any(|key| key.protector_id == wanted)
            }
            Self::Disclose(_) => {
                let disclosed = v1::DiscloseKeyResponse::decode(answer).map_err(unreadable)?;
                let kind = ProtectorKind::BitLockerRecoveryPassword;
                !disclosed.malformed && RecoveryKey::parse(kind, &disclosed.recovery_key).is_ok()
            }
            Self::Compliance(_) => {
                let reported = v1::ReportComplianceResponse::decode(answer).map_err(unreadable)?;
                reported.position.is_some()
            }
            Self::Read(_, device) => {
                let read = v1::GetDeviceResponse::decode(answer).map_err(unreadable)?;
                read.device.is_some_and(|found| found.device_id == device.to_string())
            }
        };
        if right {
            Ok(())
        } else {
            Err(ClientError::Answer("it is about something else".to_owned()))
        }
    }
}
