//! The power goes on all three hosts at once.

use crate::disk::Mount;
use crate::harness::{Harness, LIMIT};
use crate::load::Load;
use crate::require;

#[tokio::test(flavor = "multi_thread")]
async fn acknowledged_writes_survive_a_power_loss_of_all_three_hosts_at_once() {
    let tools = require::root() && require::tool("mkfs.ext4") && require::tool("perl");
    if !tools {
        return;
    }
    let disks = |cluster: &_| Mount::ext4_each(cluster, 96);
    let mut harness = Harness::start_mounted(toml::Table::new(), disks).await;
    let agent = harness.client(&harness.agent);
    for _ in 0..2 {
        let load = Load::start(&agent, harness.device, 4);
        load.more(40).await;
        harness.mounts.iter().for_each(Mount::power_off);
        for node in [1, 2, 3] {
            harness.cluster.kill_node(node).await.unwrap();
        }
        let written = load.stop();
        harness.mounts.iter().for_each(Mount::power_on);
        harness.cluster.start().await.unwrap();
        written.all_are_there(&agent).await;
        harness.cluster.wait_same_digest(LIMIT).await.unwrap();
    }
    harness.cluster.stop().await.unwrap();
}
