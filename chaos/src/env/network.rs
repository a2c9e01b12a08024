//! A network of its own for each host: a namespace with one link to a bridge, which lies in a namespace too and has no
//! address outside.

use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::command::call_blocking;
use super::registry::Registry;

/// The link of a host, by its own name for it.
pub const LINK: &str = "e0";
/// The last byte of the address of whoever calls the servers.
const CLIENTS: u8 = 200;

/// A host's network.
#[derive(Debug, Clone)]
pub struct Network {
    /// Name of the namespace.
    pub namespace: String,
    /// Address on the bridge.
    pub address: String,
}

impl Network {
    /// The namespace as a file.
    pub fn file(&self) -> PathBuf {
        Path::new("/run/netns").join(&self.namespace)
    }

    /// What stands before a program that is to run in it. The file systems stay those of this process: a namespace of mounts
    /// for each server would hold every disk that was mounted when it began.
    pub fn enter(&self) -> [String; 2] {
        ["nsenter".to_owned(), format!("--net={}", self.file().display())]
    }
}

/// The networks of all hosts, and of the clients.
#[derive(Debug)]
pub struct Switch {
    bridge: String,
    clients: Network,
}

fn address(last: u8) -> String {
    format!("10.77.0.{last}")
}

impl Switch {
    /// Makes the bridge, and the clients' network.
    ///
    /// # Errors
    /// If `ip` fails.
    pub fn make(registry: &Registry) -> anyhow::Result<Self> {
        let bridge = registry.name("b");
        call_blocking("ip", &["netns", "add", &bridge], "")?;
        let up = |args: &[&str]| call_blocking("ip", &[&["-n", &bridge][..], args].concat(), "");
        up(&["link", "add", "br0", "type", "bridge"])?;
        up(&["link", "set", "br0", "up"])?;
        let clients = Network { namespace: registry.name("c"), address: address(CLIENTS) };
        let switch = Self { bridge, clients };
        switch.plug(&switch.clients, CLIENTS)?;
        Ok(switch)
    }

    /// Makes the network of a host.
    ///
    /// # Errors
    /// If `ip` fails.
    pub fn host(&self, registry: &Registry, number: u8) -> anyhow::Result<Network> {
        let namespace = registry.name(&number.to_string());
        let network = Network { namespace, address: address(number) };
        self.plug(&network, number)?;
        Ok(network)
    }

    fn plug(&self, network: &Network, number: u8) -> anyhow::Result<()> {
        let name = network.namespace.as_str();
        call_blocking("ip", &["netns", "add", name], "")?;
        let port = format!("v{number}");
        let subnet = format!("{}/24", network.address);
        let bridge = ["-n", self.bridge.as_str()];
        let host = ["-n", name];
        let steps: [(&[&str], &[&str]); 5] = [
            (&bridge, &["link", "add", &port, "type", "veth", "peer", "name", LINK, "netns", name]),
            (&bridge, &["link", "set", &port, "master", "br0", "up"]),
            (&host, &["addr", "add", &subnet, "dev", LINK]),
            (&host, &["link", "set", LINK, "up"]),
            (&host, &["link", "set", "lo", "up"]),
        ];
        for (place, step) in steps {
            call_blocking("ip", &[place, step].concat(), "")?;
        }
        Ok(())
    }

    /// Moves this thread, and the threads that it starts from now on, into the clients' network.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn join(&self) -> anyhow::Result<()> {
        let path = self.clients.file();
        let file = std::fs::File::open(&path).with_context(|| path.display().to_string())?;
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
            .context("joining the clients' network")
    }
}
