//! Where checkpoints of the audit chain go, and who takes them there.

use std::sync::Arc;

use tokio::task::JoinSet;

use super::{ServeError, Server};
use crate::client::evidence::Checkpoint;
use crate::server::checkpoints::{CheckpointFile, Keeper, Sink};
use crate::server::node::ServerNode;
use crate::server::renewal::Renewal;
use crate::server::syslog::{Origin, Spool, Syslog};

/// The places that are configured.
#[derive(Default)]
pub(in crate::server) struct Checkpoints {
    /// The file.
    pub(in crate::server) file: Option<Arc<CheckpointFile>>,
    /// The collector of logs.
    pub(in crate::server) syslog: Option<Arc<Syslog>>,
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
        if let (Some(target), Some(dir)) = (&audit.syslog, &audit.syslog_spool) {
            let (spool, newest) = Spool::find(dir, cluster).map_err(ServeError::Spool)?;
            let spool = Arc::new(spool);
            background.spawn(self.keeper(renewal, Arc::clone(&spool), newest).run());
            let address = &self.config.client_address;
            let host = address.rsplit_once(':').map_or(address.as_str(), |(host, _)| host);
            let origin = Origin { host: host.to_owned(), process: std::process::id() };
            let clock = Arc::clone(&self.clock);
            let ca = audit.syslog_ca.clone();
            let syslog = Arc::new(Syslog::new(spool, target.clone(), ca, origin, clock));
            background.spawn(Arc::clone(&syslog).forward(Arc::clone(renewal)));
            places.syslog = Some(syslog);
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
