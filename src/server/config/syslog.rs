//! Where a collector of logs is.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

use super::validate::is_host_and_port;

/// A collector: `tls://HOST:PORT` or `tcp://HOST:PORT`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyslogTarget {
    /// Whether it is reached by TLS.
    pub tls: bool,
    /// A name or an address; one of IPv6 in brackets.
    pub host: String,
    /// Its port.
    pub port: u16,
}

impl FromStr for SyslogTarget {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (tls, place) = match text.split_once("://") {
            Some(("tls", place)) => (true, place),
            Some(("tcp", place)) => (false, place),
            Some(("udp", _)) => {
                return Err("must be tls://host:port or tcp://host:port: UDP loses without a word");
            }
            _ => return Err("must be tls://host:port or tcp://host:port"),
        };
        let parts = place.rsplit_once(':').filter(|_| is_host_and_port(place));
        let (host, port) = parts.ok_or("must end in host:port, such as logs.example.org:6514")?;
        let port = port.parse().map_err(|_| "must end in a port")?;
        Ok(Self { tls, host: host.to_owned(), port })
    }
}

impl fmt::Display for SyslogTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "tls" } else { "tcp" };
        write!(f, "{scheme}://{}:{}", self.host, self.port)
    }
}

impl Serialize for SyslogTarget {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        out.collect_str(self)
    }
}
