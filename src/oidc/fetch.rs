//! Asking a provider over HTTPS: with a limit on the time and on the size, without redirects, and believing no CA but those
//! of one file.

use std::io;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, HOST, HeaderValue};
use http::{Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::task::JoinSet;

use crate::crypto::read_pem_certificates;
use crate::tls::{Connector, TlsError, provider_config};

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const FORM: HeaderValue = HeaderValue::from_static("application/x-www-form-urlencoded");
const HTTPS_PORT: u16 = 443;

/// Why a provider gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// It is not asked at such an address.
    #[error("{0} is no https:// URL")]
    Url(String),
    /// There is no connection, or none to be trusted.
    #[error("no connection: {0}")]
    Connect(#[source] io::Error),
    /// The connection broke, or what came is no HTTP.
    #[error("no answer: {0}")]
    Http(String),
    /// It answered something else than 200.
    #[error("the answer is {0}")]
    Status(StatusCode),
    /// The answer is too long.
    #[error("the answer has more than {0} bytes")]
    TooLarge(usize),
    /// It took too long.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
}

/// Asks one provider.
#[derive(Clone)]
pub struct Fetcher {
    connector: Connector,
    timeout: Duration,
}

impl std::fmt::Debug for Fetcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Fetcher")
    }
}

impl Fetcher {
    /// Believes the CAs of a PEM file; a question may take as long as `timeout`, all in all.
    ///
    /// # Errors
    /// If the file can't be read, or holds no CA.
    pub fn new(ca_file: &Path, timeout: Duration) -> Result<Self, TlsError> {
        let roots = read_pem_certificates(ca_file)?;
        Ok(Self { connector: Connector::new(provider_config(&roots)?, timeout), timeout })
    }

    /// Gets what is at a URL, if it is at most `most` bytes.
    ///
    /// # Errors
    /// If there is no such answer in time.
    pub async fn get(&self, url: &str, most: usize) -> Result<Bytes, FetchError> {
        let request = Request::builder().method(Method::GET).header(ACCEPT, JSON);
        self.ask(url, request, Bytes::new(), most).await
    }

    /// Sends a form to a URL.
    ///
    /// # Errors
    /// As [`Fetcher::get`].
    pub async fn post(&self, url: &str, form: String, most: usize) -> Result<Bytes, FetchError> {
        let request = Request::builder().method(Method::POST).header(ACCEPT, JSON);
        self.ask(url, request.header(CONTENT_TYPE, FORM), form.into(), most).await
    }

    async fn ask(
        &self,
        url: &str,
        request: http::request::Builder,
        body: Bytes,
        most: usize,
    ) -> Result<Bytes, FetchError> {
        let target = Target::of(url).ok_or_else(|| FetchError::Url(url.to_owned()))?;
        let request = request
            .uri(target.path)
            .header(HOST, target.authority)
            .body(Full::new(body))
            .map_err(|error| FetchError::Http(error.to_string()))?;
        let asking = self.exchange(&target.host, target.port, request, most);
        match tokio::time::timeout(self.timeout, asking).await {
            Ok(answer) => answer,
            Err(_) => Err(FetchError::Timeout(self.timeout)),
        }
    }

    async fn exchange(
        &self,
        host: &str,
        port: u16,
        request: Request<Full<Bytes>>,
        most: usize,
    ) -> Result<Bytes, FetchError> {
        let http = |error: hyper::Error| FetchError::Http(error.to_string());
        let stream = self.connector.connect(host, port).await.map_err(FetchError::Connect)?;
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(http)?;
        // The connection ends with this set, whatever becomes of the question.
        let mut driver = JoinSet::new();
        driver.spawn(async move { drop(connection.await) });
        let response = sender.send_request(request).await.map_err(http)?;
        if response.status() != StatusCode::OK {
            return Err(FetchError::Status(response.status()));
        }
        match Limited::new(response.into_body(), most).collect().await {
            Ok(body) => Ok(body.to_bytes()),
            Err(error) if error.is::<LengthLimitError>() => Err(FetchError::TooLarge(most)),
            Err(error) => Err(FetchError::Http(error.to_string())),
        }
    }
}

/// Where a URL leads.
struct Target {
    host: String,
    port: u16,
    authority: String,
    path: String,
}

impl Target {
    /// `None` if it is no `https://` URL with a host, or has a user's name in it.
    fn of(url: &str) -> Option<Self> {
        let uri: Uri = url.parse().ok()?;
        let authority = uri.authority()?;
        if uri.scheme_str() != Some("https") || authority.as_str().contains('@') {
            return None;
        }
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        Some(Self {
            host: authority.host().to_owned(),
            port: authority.port_u16().unwrap_or(HTTPS_PORT),
            authority: authority.to_string(),
            path: path.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_https_urls_without_a_user_are_asked() {
        let target = Target::of("https://idp.example/keys?a=1").unwrap();
        assert_eq!((target.host.as_str(), target.port), ("idp.example", 443));
        assert_eq!(target.path, "/keys?a=1");
        assert_eq!(Target::of("https://[::1]:8443").unwrap().port, 8443);
        for bad in ["http://idp.example/", "file:///etc/passwd", "/keys", "", "https://u@h/"] {
            assert!(Target::of(bad).is_none(), "{bad}");
        }
    }
}
