//! `holdfast enrol`: a device gets its certificate; administrators issue the tokens for that.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::exit::{CliError, Exit};
use super::out_file::{OutFile, refuse_existing};
use super::output::{Sheet, Show, time};
use super::pki::{create_private_dir, read_private, write_private};
use super::token::TokenCommand;
use super::values::guid;
use super::{Context, Done, token};
use crate::client::{Client, ClientError, NewCertificate};
use crate::crypto::{DeviceKey, EnrolmentToken, Leaf, certificate_pem, system_rng};
use crate::domain::{DeviceId, Fingerprint};
use crate::tls::Identity;

/// Enrols this device, or what is needed for that.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct EnrolArgs {
    #[command(subcommand)]
    command: Option<EnrolCommand>,
    #[command(flatten)]
    device: Option<DeviceArgs>,
}

#[derive(Debug, clap::Subcommand)]
enum EnrolCommand {
    /// Issue, list and revoke enrolment tokens
    #[command(subcommand)]
    Token(TokenCommand),
    /// Get the next certificate by the one of --cert and --key, from two thirds of its life
    Renew {
        /// Directory for the new certificate and its new private key
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
    },
}

/// What a device enrols with. --addr is the enrolment port.
#[derive(Debug, clap::Args)]
struct DeviceArgs {
    /// File with the token that an administrator issued
    #[arg(long, value_name = "FILE")]
    token_file: PathBuf,
    /// Id of this device
    #[arg(long, value_name = "UUID", value_parser = guid::<DeviceId>)]
    device: DeviceId,
    /// Directory for the certificate and its private key, which is made here and never sent
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

pub(super) async fn run(context: &Context, args: EnrolArgs) -> Done {
    match (args.command, args.device) {
        (Some(EnrolCommand::Token(command)), _) => token::run(context, command).await,
        (Some(EnrolCommand::Renew { out }), _) => renew(context, &out).await,
        (None, Some(args)) => enrol(context, &args).await,
        (None, None) => Err(CliError::usage("give --token-file, --device and --out")),
    }
}

async fn enrol(context: &Context, args: &DeviceArgs) -> Done {
    let text = read_private(&args.token_file)?;
    let token: EnrolmentToken = text.trim().parse()?;
    let client = Client::open(context.connection.nameless_options()?)?;
    let place = Place::prepare(&args.out, args.device)?;
    let got = client.enrol(&token, args.device, &place.key).await.map_err(not_certified)?;
    finish(context, place, args.device, got)
}

async fn renew(context: &Context, out: &Path) -> Done {
    let options = context.connection.options()?;
    let files = options.identity.clone();
    let files = files.ok_or_else(|| CliError::usage("give --cert and --key"))?;
    let identity = Identity::load(&files.cert, &files.key)
        .map_err(|error| CliError::usage(crate::client::with_causes(&error)))?;
    let device = device_of(identity.leaf())?;
    let old = identity.chain().first().map(|der| Fingerprint::of(der));
    let old = old.ok_or_else(|| CliError::usage("--cert holds no certificate"))?;
    let client = Client::open(options)?;
    let place = Place::prepare(out, device)?;
    let got = client.renew_certificate(device, old, &place.key).await.map_err(not_certified);
    let got = got.map_err(|mut error| {
        if error.reason() == "RENEWAL_TOO_EARLY" {
            error.add(format!("from {} on", time(two_thirds(identity.leaf()))));
        }
        error
    })?;
    finish(context, place, device, got)
}

/// A repeat is safe: it is for the key that is kept.
fn not_certified(error: ClientError) -> CliError {
    let unknown = matches!(error, ClientError::Unreachable { outcome_unknown: true, .. });
    let mut error = CliError::from(error);
    if unknown {
        let what =
            "or just run the same command again: with the same key it gets the same certificate";
        error.add(what.to_owned());
    }
    error
}

/// When a certificate may be renewed, in milliseconds since the Unix epoch.
fn two_thirds(leaf: &Leaf) -> u64 {
    let (begin, end) = (leaf.not_before.as_millis(), leaf.not_after.as_millis());
    begin.saturating_add(end.saturating_sub(begin) / 3 * 2)
}

fn device_of(leaf: &Leaf) -> Result<DeviceId, CliError> {
    let device = leaf.uri.split_once("/agent/").and_then(|(_, device)| device.parse().ok());
    device.ok_or_else(|| CliError::usage(format!("--cert is no device's but that of {}", leaf.uri)))
}

/// Where a new certificate goes, and the key that it is for.
struct Place {
    certificate: PathBuf,
    private_key: PathBuf,
    key: DeviceKey,
}

impl Place {
    /// Makes the key, or finds the one of a try that was cut off: with it, the cluster gives the same certificate again. The
    /// certificate must not be there yet.
    fn prepare(out: &Path, device: DeviceId) -> Result<Self, CliError> {
        create_private_dir(out)?;
        let certificate = out.join(format!("agent-{device}.pem"));
        let private_key = out.join(format!("agent-{device}.key"));
        refuse_existing(&certificate)?;
        let key = if private_key.exists() {
            let pem = read_private(&private_key)?;
            DeviceKey::from_pem(&pem)
                .map_err(|error| CliError::usage(format!("{}: {error}", private_key.display())))?
        } else {
            let key = DeviceKey::generate(&mut system_rng())
                .map_err(|error| CliError::failed(error.to_string()))?;
            write_private(&private_key, key.expose_pem().as_bytes())?;
            key
        };
        Ok(Self { certificate, private_key, key })
    }
}

fn finish(context: &Context, place: Place, device: DeviceId, got: NewCertificate) -> Done {
    let Some(first) = got.chain.first() else {
        return Err(CliError::failed("the answer holds no certificate"));
    };
    let file = OutFile::create(&place.certificate)?;
    file.write(certificate_pem(first).as_bytes())?;
    context.printer.print(&EnrolledView {
        device,
        certificate: place.certificate,
        private_key: place.private_key,
        fingerprint: Fingerprint::of(first).to_string(),
        not_after_ms: got.not_after_ms,
        again: got.again,
    })?;
    Ok(Exit::Ok)
}

/// A new certificate.
#[derive(Debug, Serialize)]
struct EnrolledView {
    device: DeviceId,
    certificate: PathBuf,
    private_key: PathBuf,
    fingerprint: String,
    not_after_ms: u64,
    /// Whether the device had enrolled before.
    again: bool,
}

impl Show for EnrolledView {
    fn sheet(&self) -> Sheet {
        let sheet = Sheet::new().facts([
            ("device", self.device.to_string()),
            ("certificate", self.certificate.display().to_string()),
            ("private key", self.private_key.display().to_string()),
            ("fingerprint", self.fingerprint.clone()),
            ("valid until", time(self.not_after_ms)),
        ]);
        if self.again {
            sheet.line("This device had enrolled before; that is recorded.")
        } else {
            sheet
        }
    }
}
