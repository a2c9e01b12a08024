//! Who calls, and may they: the way into every call. Whom a token proves is known by then.

use std::sync::Arc;

use tonic::{Request, Status};

use crate::auth::{Action, Authorities, Caller, IdentityError, Permit, identify_once};
use crate::crypto::CertificateError;
use crate::service::{Consensus, Context, ServiceError, Staleness};
use crate::tls::PeerCertificates;

use super::bearer::TokenCaller;
use super::status;

/// Identifies callers by their token, else by the certificate of their connection.
pub(super) struct Gate<C> {
    context: Arc<Context<C>>,
    authorities: Arc<Authorities>,
}

impl<C: Consensus> Gate<C> {
    pub(super) fn new(context: Arc<Context<C>>, authorities: Arc<Authorities>) -> Self {
        Self { context, authorities }
    }

    /// Who is at the other end. Concluded once for a connection; the certificate's time is checked each time.
    pub(super) fn caller<T>(&self, request: &Request<T>) -> Result<Arc<Caller>, ServiceError> {
        if let Some(TokenCaller(caller)) = request.extensions().get() {
            caller.check_valid(self.context.now())?;
            tracing::Span::current().record("caller", caller.actor().to_string());
            return Ok(Arc::clone(caller));
        }
        let missing = || IdentityError::Certificate(CertificateError::Missing);
        let peer = request.extensions().get::<PeerCertificates>().ok_or_else(missing)?;
        let caller =
            identify_once(peer, &self.authorities, self.context.cluster(), self.context.now())?;
        tracing::Span::current().record("caller", caller.actor().to_string());
        Ok(caller)
    }

    /// Permits an action that needs recent grants.
    pub(super) fn permit(&self, caller: &Caller, action: Action) -> Result<Permit, ServiceError> {
        self.permit_read(caller, action, Staleness::Refused)
    }

    /// Permits an action that old grants may be good enough for.
    pub(super) fn permit_read(
        &self,
        caller: &Caller,
        action: Action,
        staleness: Staleness,
    ) -> Result<Permit, ServiceError> {
        tracing::Span::current().record("action", action.name());
        self.context.permit(caller, action, staleness)
    }

    /// The error as it goes out.
    pub(super) fn status(&self, error: ServiceError) -> Status {
        if let ServiceError::Store(fault) = &error {
            self.context.report_fault(fault);
        }
        status::from_error(&error, self.context.now())
    }
}
