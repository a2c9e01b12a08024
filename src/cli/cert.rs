//! `holdfast cert`: whose certificates are good for nothing any more.

use std::path::PathBuf;

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

use super::exit::Exit;
use super::views::{ChangedView, DenialsView};
use super::{CliError, Context, Done};
use crate::domain::{DenialSubject, Fingerprint};

/// What to do with the deny-list.
#[derive(Debug, clap::Subcommand)]
pub(super) enum CertCommand {
    /// Deny an identity or a certificate: within a second it is refused everywhere
    Deny {
        #[command(flatten)]
        subject: SubjectArgs,
        /// Why; it is listed and audited
        #[arg(long)]
        reason: String,
    },
    /// Allow an identity or a certificate again
    Allow {
        #[command(flatten)]
        subject: SubjectArgs,
    },
    /// List what is denied
    List,
}

/// Whom or what.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
pub(super) struct SubjectArgs {
    /// All certificates of agent/DEVICE, operator/NAME or node/ID; all tokens of oidc/ISSUER#SUBJECT; or one certificate: sha256:FINGERPRINT
    subject: Option<DenialSubject>,
    /// The certificate in this PEM file
    #[arg(long)]
    file: Option<PathBuf>,
}

impl SubjectArgs {
    fn subject(self) -> Result<DenialSubject, CliError> {
        match (self.subject, self.file) {
            (Some(subject), _) => Ok(subject),
            (None, Some(path)) => {
                let certificate = CertificateDer::from_pem_file(&path)
                    .map_err(|error| CliError::usage(format!("{}: {error}", path.display())))?;
                Ok(DenialSubject::Certificate(Fingerprint::of(&certificate)))
            }
            (None, None) => Err(CliError::usage("name an identity, a fingerprint or a file")),
        }
    }
}

pub(super) async fn run(context: &Context, command: CertCommand) -> Done {
    match command {
        CertCommand::Deny { subject, reason } => {
            let subject = subject.subject()?;
            let changed = context.connection.client()?.deny(&subject, &reason).await?;
            let what = format!("{subject} is denied");
            context.printer.print(&ChangedView { what, changed })?;
        }
        CertCommand::Allow { subject } => {
            let subject = subject.subject()?;
            let changed = context.connection.client()?.allow(&subject).await?;
            let what = format!("{subject} is not denied");
            context.printer.print(&ChangedView { what, changed })?;
        }
        CertCommand::List => {
            let denials = context.connection.client()?.denials().await?;
            context.printer.print(&DenialsView::from(denials))?;
        }
    }
    Ok(Exit::Ok)
}
