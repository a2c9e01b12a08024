//! Where checkpoints of the audit chain go, and who takes them there.

use std::sync::Arc;

use tokio::task::JoinSet;

use super::{ServeError, Server};
use crate::client::evidence::Checkpoint;
use crate::server::checkpoints::{CheckpointFile, Keeper, Sink};
use crate::server::node::ServerNode;
use crate::server::renewal::Renewal;

/// The places that are configured.
#[derive(Default)]
pub(in crate::server) struct Checkpoints {
    /// The file.
    pub(in crate::server) file: Option<Arc<CheckpointFile>>,
}

impl<N: ServerNode> Server<N> {
    /// Begins to keep checkpoints in all places that are configured.
    pub(super) fn keep_checkpoints(
        &self,
        background: &mut JoinSet<()>,
        renewal: &Arc<Renewal>,
    ) -> Result<Checkpoints, ServeError> {
        let (audit, cluster) = (&self.config.audit, self.config.cluster_id);
        let mut places = Checkpoints::default();
        if let Some(path) = &audit.checkpoint_file {
            let (file, newest) =
                CheckpointFile::find(path, cluster).map_err(ServeError::Checkpoints)?;
            let file = Arc::new(file);
            background.spawn(self.keeper(renewal, Arc::clone(&file), newest).run());
            places.file = Some(file);
        }
        Ok(places)
    }

    fn keeper<S: Sink>(
        &self,
        renewal: &Renewal,
        sink: Arc<S>,
        newest: Option<Checkpoint>,
    ) -> Keeper<N, S> {
        let authorities = Arc::clone(&self.credentials.authorities);
        let records = self.config.audit.checkpoint_records;
        let context = Arc::clone(&self.context);
        Keeper::new(context, renewal.signer(), authorities, (sink, newest), records)
    }
}
