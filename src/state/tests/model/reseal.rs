//! New epochs and keys that are sealed anew, naively.

use super::*;

impl Model {
    pub(super) fn rotate(&mut self, position: Position, c: &Command, rotate: &Rotate) -> Outcome {
        if let Some(answer) = self.answered_to(c, &[Role::Administrator], AuditAction::Rotate)? {
            return Ok(answer);
        }
        if self.sealed.is_some() {
            return Err(Rejection::Sealed);
        }
        if rotate.epoch.epoch.get() != self.rotations + 2 {
            return Err(Rejection::KeyringChanged);
        }
        self.rotations += 1;
        self.log(position, c, "rotate", "ok", None, None);
        self.remember(c, None, true);
        Ok(Accepted::Granted { changed: true })
    }

    /// What the sequences reseal is always sealed to the newest epoch, with or without a package as the stored key is.
    pub(super) fn reseal(&mut self, position: Position, c: &Command, reseal: &Reseal) -> Outcome {
        match self.seen(c) {
            Seen::Same(n) => {
                return Ok(Accepted::Resealed { count: u32::from(self.requests[n].changed) });
            }
            Seen::Other => {
                self.need(c, &[Role::Administrator], AuditAction::Reseal)?;
                return Err(Rejection::RequestIdReused);
            }
            Seen::New => self.need(c, &[Role::Administrator], AuditAction::Reseal)?,
        }
        if reseal.epoch.get() > self.rotations + 1 && !reseal.keys.is_empty() {
            return Err(Rejection::UnknownEpoch(reseal.epoch));
        }
        let mut count = 0;
        for new in &reseal.keys {
            let is_it = |key: &&mut ModelKey| {
                key.escrow.protector == new.at.protector && key.version == new.at.version.get()
            };
            let Some(key) = self.keys.iter_mut().find(is_it) else { continue };
            let (stored, package) = &mut key.stored;
            let same = sealed_digest(stored, package.as_ref()) == new.replaces;
            if same && package.is_some() == new.package.is_some() {
                (*stored, *package) = (new.sealed.clone(), new.package.clone());
                count += 1;
            }
        }
        self.log(position, c, "reseal", "ok", None, None);
        self.remember(c, None, count > 0);
        Ok(Accepted::Resealed { count })
    }
}
