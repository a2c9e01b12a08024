//! Which of our servers made a connection.

use std::net::SocketAddr;

use crate::env::files;

/// Tells the host whose process made a connection.
pub trait Source: std::fmt::Debug + Send + Sync {
    /// The host; none if it is none of the servers.
    fn host_of(&self, from: SocketAddr, to: SocketAddr) -> Option<u64>;
}

/// How the kernel writes an address of IPv4 in `/proc/net/tcp`.
fn written(address: SocketAddr) -> Option<String> {
    let SocketAddr::V4(address) = address else { return None };
    let ip = u32::from_ne_bytes(address.ip().octets());
    Some(format!("{ip:08X}:{:04X}", address.port()))
}

/// The inode of the socket that a connection was made with.
fn inode(table: &str, from: SocketAddr, to: SocketAddr) -> Option<u64> {
    let (from, to) = (written(from)?, written(to)?);
    table.lines().find_map(|line| {
        let mut words = line.split_whitespace().skip(1);
        let is_it = words.next() == Some(&from) && words.next() == Some(&to);
        // The inode is the tenth word of the line.
        if is_it { words.nth(6)?.parse().ok() } else { None }
    })
}

fn holds(pid: u32, inode: u64) -> bool {
    let name = format!("socket:[{inode}]");
    let files = files::entries(std::path::Path::new(&format!("/proc/{pid}/fd")));
    files.iter().any(|file| std::fs::read_link(file).is_ok_and(|to| to.as_os_str() == &*name))
}

/// The one of some processes that made a connection.
pub(crate) fn process_of(
    from: SocketAddr,
    to: SocketAddr,
    processes: impl IntoIterator<Item = (u64, u32)>,
) -> Option<u64> {
    let table = std::fs::read_to_string("/proc/self/net/tcp").ok()?;
    let inode = inode(&table, from, to)?;
    processes.into_iter().find(|(_, pid)| holds(*pid, inode)).map(|(host, _)| host)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn a_connection_is_known_by_the_process_that_made_it() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let to = listener.local_addr().unwrap();
        let made = TcpStream::connect(to).unwrap();
        let from = made.local_addr().unwrap();
        let own = std::process::id();
        assert_eq!(process_of(from, to, [(7, 1), (3, own)]), Some(3));
        assert_eq!(process_of(from, to, [(7, u32::MAX)]), None);
    }
}
