//! Addresses of servers: `host:port`, several separated by commas.

use std::fmt;
use std::str::FromStr;

use crate::domain::FieldError;

/// One server's address.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Address {
    host: String,
    port: u16,
}

impl Address {
    /// Parses `host:port,host:port,...`.
    ///
    /// # Errors
    /// If there is none, or one is not `host:port`.
    pub fn parse_list(text: &str) -> Result<Vec<Self>, FieldError> {
        let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
        let addresses = parts.map(str::parse).collect::<Result<Vec<Self>, FieldError>>()?;
        if addresses.is_empty() {
            return Err(FieldError::new("addr", "names no server; give host:port,host:port,..."));
        }
        Ok(addresses)
    }

    /// Host name or IP address, the latter without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Port.
    pub const fn port(&self) -> u16 {
        self.port
    }
}

impl FromStr for Address {
    type Err = FieldError;

    fn from_str(text: &str) -> Result<Self, FieldError> {
        let bad = || FieldError::new("addr", format!("{text:?} is not host:port"));
        let bare = text.strip_prefix("https://").unwrap_or(text);
        let (host, port) = bare.rsplit_once(':').ok_or_else(bad)?;
        let host = match host.strip_prefix('[') {
            Some(rest) => rest.strip_suffix(']').ok_or_else(bad)?,
            None if host.contains(':') => return Err(bad()),
            None => host,
        };
        let plain = |b: u8| b.is_ascii_alphanumeric() || b".-_:".contains(&b);
        if host.is_empty() || !host.bytes().all(plain) {
            return Err(bad());
        }
        let port = port.parse().ok().filter(|port| *port != 0).ok_or_else(bad)?;
        Ok(Self { host: host.to_owned(), port })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_addresses_are_separated_by_commas() {
        let list = Address::parse_list("a.example:1, [::1]:2,https://127.0.0.1:3").unwrap();
        let printed: Vec<_> = list.iter().map(ToString::to_string).collect();
        assert_eq!(printed, ["a.example:1", "[::1]:2", "127.0.0.1:3"]);
    }

    #[test]
    fn an_address_that_is_not_host_and_port_is_refused() {
        for bad in
            ["", ",", "host", "host:", ":1", "host:0", "host:65536", "::1:1", "a b:1", "h/x:1"]
        {
            assert_eq!(Address::parse_list(bad).unwrap_err().field, "addr", "{bad}");
        }
    }
}
