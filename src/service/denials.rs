//! The deny-list as this node has applied it: asked for every call, and watched for those that are open; and tokens that are
//! refused.

use std::collections::BTreeSet;

use tokio::sync::watch;

use super::{Consensus, Context, ServiceError};
use crate::auth::{Caller, Denied, TokenError};
use crate::domain::{OidcSubject, Timestamp};
use crate::state::{Heads, query};

/// What was refused, in audit records, if it was a token: its call was not looked at.
const TOKEN: &str = "AccessToken";

impl<C: Consensus> Context<C> {
    /// Refuses a caller that is on the deny-list, or whose certificate is. The refusal is counted, to be recorded later.
    ///
    /// # Errors
    /// [`ServiceError::Denied`], or a local fault.
    pub fn refuse_denied(&self, caller: &Caller, what: &'static str) -> Result<(), ServiceError> {
        self.check_denied(caller).inspect_err(|error| {
            if let ServiceError::Denied(denied) = error {
                self.count_refusal(caller, what, denied);
            }
        })
    }

    /// The same, not counted: for who asks twice about one call.
    ///
    /// # Errors
    /// As [`Context::refuse_denied`].
    pub fn check_denied(&self, caller: &Caller) -> Result<(), ServiceError> {
        let view = self.consensus().view();
        match query::denial_of(view, caller.actor(), caller.certificate())? {
            None => Ok(()),
            Some(_) => Err(ServiceError::Denied(Denied::by_list(caller.actor()))),
        }
    }

    /// Counts a token that was refused: in the name of whom it proves, or in this node's own if it proves nobody.
    pub fn count_token(&self, proven: Option<OidcSubject>, error: &TokenError) {
        match proven {
            Some(subject) => {
                let caller = Caller::by_token(subject, Timestamp::default(), BTreeSet::new(), None);
                self.count_refused(&caller, TOKEN, error.reason());
            }
            None => self.count_stranger(TOKEN, error.reason()),
        }
    }

    /// Looks whether the deny-list has changed since the last time, and tells those who wait for that.
    ///
    /// # Errors
    /// A local fault.
    pub fn refresh_denials(&self) -> Result<(), ServiceError> {
        let changes = Heads::load(self.consensus().view())?.denial_changes;
        self.denials.send_if_modified(|known| std::mem::replace(known, changes) != changes);
        Ok(())
    }

    /// Tells when the deny-list has changed, as far as [`Context::refresh_denials`] has looked.
    pub fn denial_changes(&self) -> watch::Receiver<u64> {
        self.denials.subscribe()
    }
}
