//! What is looked at when all is over: how the servers stop, what they logged, and every byte that they wrote.

use std::path::PathBuf;

use anyhow::Context as _;

use super::Run;
use crate::scan;

impl Run {
    /// Stops the servers in order, so that what is in memory is on disk as well.
    pub(super) async fn stop_servers(&self) -> anyhow::Result<()> {
        for server in self.world.all() {
            server.set_at_risk(true);
            if server.pid().is_some()
                && let Err(error) = server.stop().await
            {
                self.world.finding("panic", true, format!("{error:#}: {}", server.last_line()));
            }
            let log = server.log();
            let lines = log.lines().count();
            let panics = scan::panics(&log);
            let host = server.host;
            for panic in &panics {
                self.world.finding("panic", true, format!("host {host}: {panic}"));
            }
            if panics.is_empty() {
                self.world.finding(
                    "panic",
                    false,
                    format!("host {host}: none in {lines} lines of its log"),
                );
            }
        }
        Ok(())
    }

    fn search(&self, paths: &[PathBuf], what: &str) -> anyhow::Result<()> {
        let search = scan::Search::new(scan::keys(self.recorder.path())?);
        let Some(first) = search.some_key() else { return Ok(()) };
        let control = scan::control(&search, first, &self.options.out)?;
        let (found, about) = scan::search_files(&search, paths)?;
        for place in &found {
            self.world.finding("plaintext", true, place.clone());
        }
        if found.is_empty() {
            self.world.finding("plaintext", false, format!("{what}: none in {about}; {control}"));
        }
        Ok(())
    }

    pub(super) fn search_files(&self) -> anyhow::Result<()> {
        let mut paths = Vec::new();
        for server in self.world.all() {
            paths.extend(crate::env::files::all_below(&server.data_dir()));
            // A spare host that was never needed has written nothing.
            paths.extend(Some(server.log_path()).filter(|log| log.exists()));
        }
        self.search(&paths, "data and logs")
    }

    /// Searches the images, where deleted files lie too, unless the run is worth nothing, and removes them.
    pub(super) fn search_images(&self, search: bool) -> anyhow::Result<()> {
        let disks = self.world.all().filter_map(|server| server.disk.as_ref());
        let images: Vec<PathBuf> = disks.map(|disk| disk.image().to_owned()).collect();
        if images.is_empty() {
            return Ok(());
        }
        if search {
            self.search(&images, "disk images")?;
        }
        for image in images.iter().filter(|_| !self.options.keep) {
            std::fs::remove_file(image).with_context(|| image.display().to_string())?;
        }
        Ok(())
    }
}
