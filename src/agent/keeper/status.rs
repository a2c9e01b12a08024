//! What is so with a volume, in plain words.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::KeeperError;
use crate::agent::courier::Obstacle;
use crate::agent::gate::Step;
use crate::agent::ledger::VolumeRecord;
use crate::agent::volume::{Volume, VolumeState};
use crate::domain::VolumeId;

/// What a volume waits for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "for", content = "why", rename_all = "snake_case")]
pub enum Waiting {
    /// For nothing: it is protected.
    Nothing,
    /// For the servers to take its key: it stays as it is until then.
    Escrow(Option<String>),
    /// For something about the volume or its disk.
    Volume(String),
    /// For something that has failed and is tried again.
    Retry(String),
}

/// What is so with a volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct VolumeReport {
    /// Its device or file.
    pub path: PathBuf,
    /// Its id, once it has one.
    pub volume_id: Option<VolumeId>,
    /// Whether all of it is encrypted and its newest key is escrowed and proven.
    pub protected: bool,
    /// When its key was last proven, in milliseconds since the Unix epoch.
    pub proven_at_ms: Option<u64>,
    /// Version of its key.
    pub version: u32,
    /// What it waits for.
    pub waiting: Waiting,
}

impl VolumeReport {
    pub(super) fn of(
        volume: Volume,
        step: Step,
        record: Option<&VolumeRecord>,
        obstacle: Option<&Obstacle>,
    ) -> Self {
        let waiting = match step {
            Step::Nothing => Waiting::Nothing,
            Step::AwaitVolume(why) => Waiting::Volume(why),
            Step::Exhausted => Waiting::Volume("the versions of its key are used up".to_owned()),
            _ => Waiting::Escrow(obstacle.map(|obstacle| obstacle.what.clone())),
        };
        let whole = matches!(volume.state, VolumeState::Protected | VolumeState::Locked);
        Self {
            protected: whole && waiting == Waiting::Nothing,
            path: volume.path,
            volume_id: volume.id.or_else(|| record.map(|record| record.volume)),
            proven_at_ms: record.and_then(|r| Some(r.proof.as_ref()?.proven_at_ms)),
            version: record.map_or(0, |record| record.known),
            waiting,
        }
    }

    pub(super) fn failed(path: &Path, volume: Option<Volume>, error: &KeeperError) -> Self {
        Self {
            path: path.to_owned(),
            volume_id: volume.and_then(|volume| volume.id),
            protected: false,
            proven_at_ms: None,
            version: 0,
            waiting: Waiting::Retry(error.to_string()),
        }
    }

    /// One line for a person.
    pub fn sentence(&self) -> String {
        let path = self.path.display();
        match &self.waiting {
            Waiting::Nothing => {
                format!(
                    "{path} is protected: version {} of its key is escrowed and proven",
                    self.version
                )
            }
            Waiting::Escrow(None) => format!("{path} waits for the escrow of its key"),
            Waiting::Escrow(Some(why)) => {
                format!(
                    "{path} waits for the escrow of its key, and stays as it is until then: {why}"
                )
            }
            Waiting::Volume(why) => format!("{path} can't be protected now: {why}"),
            Waiting::Retry(why) => format!("{path} is not finished, and is tried again: {why}"),
        }
    }
}
