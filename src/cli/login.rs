//! `holdfast login` and `holdfast logout`: a person's access token, from their OIDC provider into a file of theirs.
//!
//! The browser comes back to a port of this machine that is open for one answer and for a limited time. No secret comes
//! from or goes to an argument list, a log or a terminal.

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::exit::{CliError, Exit};
use super::output::{Sheet, Show, time};
use super::token_file;
use super::{Context, Done};
use crate::client::with_causes;
use crate::domain::{FieldError, Issuer};
use crate::oidc::{Fetcher, Login, LoginClient, LoginError, Metadata, ProviderError};

/// Where the browser comes back to.
const CALLBACK: &str = "/callback";
/// How long a question to the provider may take.
const ASKING: Duration = Duration::from_secs(10);
/// How long a browser may take to say what it wants.
const HEADER: Duration = Duration::from_secs(5);
/// Most connections at a time: browsers open one or two more than they use.
const CONNECTIONS: usize = 16;

/// Where and as what to log in.
#[derive(Debug, clap::Args)]
pub(super) struct LoginArgs {
    /// URL of the OIDC provider, as the servers have it
    #[arg(long, env = "HOLDFAST_LOGIN_ISSUER", value_name = "URL")]
    issuer: String,
    /// What the provider knows this program by: a public client, without a secret
    #[arg(long, env = "HOLDFAST_LOGIN_CLIENT_ID", value_name = "ID")]
    client_id: String,
    /// CA of the provider's certificate (PEM); no other one is believed
    #[arg(long, env = "HOLDFAST_LOGIN_CA", value_name = "FILE")]
    provider_ca: PathBuf,
    /// What is asked for
    #[arg(long, env = "HOLDFAST_LOGIN_SCOPE", value_name = "WORDS", default_value = "openid")]
    scope: String,
    /// The service that the token is to be for, if the provider has to be told (RFC 8707)
    #[arg(long, env = "HOLDFAST_LOGIN_RESOURCE", value_name = "URI")]
    resource: Option<String>,
    /// Seconds to wait for the browser
    #[arg(long, value_name = "SECONDS", default_value_t = 300,
        value_parser = clap::value_parser!(u64).range(1..=3600))]
    wait: u64,
}

/// What came of a login.
#[derive(Debug, Serialize)]
struct LoggedIn {
    subject: String,
    expires_ms: u64,
    file: PathBuf,
}

impl Show for LoggedIn {
    fn sheet(&self) -> Sheet {
        Sheet::new().facts([
            ("subject", self.subject.clone()),
            ("expires", time(self.expires_ms)),
            ("access token", self.file.display().to_string()),
        ])
    }
}

/// What came of a logout.
#[derive(Debug, Serialize)]
struct LoggedOut {
    removed: bool,
    file: PathBuf,
}

impl Show for LoggedOut {
    fn sheet(&self) -> Sheet {
        let file = self.file.display();
        Sheet::new().line(if self.removed {
            format!("{file} is removed; a copy of the token is good until it expires")
        } else {
            format!("there is no {file}: nobody was logged in")
        })
    }
}

pub(super) async fn run(context: &Context, args: LoginArgs) -> Done {
    let file = token_file::path(&context.connection)?;
    let issuer: Issuer = args
        .issuer
        .parse()
        .map_err(|error: FieldError| CliError::usage(format!("--issuer: {}", error.what)))?;
    let fetcher = Fetcher::new(&args.provider_ca, ASKING)
        .map_err(|error| CliError::usage(format!("--provider-ca: {}", with_causes(&error))))?;
    let metadata = Metadata::discover(&fetcher, &issuer).await.map_err(provider_failed)?;
    let (listener, redirect_uri) = listen().await?;
    let LoginArgs { client_id, scope, resource, wait, .. } = args;
    let client = LoginClient { issuer, client_id, scope, resource };
    let login = Login::begin(&metadata, client, redirect_uri).map_err(login_failed)?;
    context.printer.progress("open this address in a browser on this machine, and log in there:");
    context.printer.progress(login.url());
    let limit = Duration::from_secs(wait);
    let query = tokio::time::timeout(limit, answer(&listener)).await.map_err(|_| {
        CliError::new(Exit::Unavailable, format!("no browser came back within {wait} s"))
    })??;
    // Nothing else is heard.
    drop(listener);
    let code = login.code(&query).map_err(login_failed)?;
    let token = login.redeem(&fetcher, &code).await.map_err(login_failed)?;
    token_file::write(&file, &token.token)?;
    context.printer.print(&LoggedIn {
        subject: token.subject.unwrap_or_default(),
        expires_ms: token.expires_s.unwrap_or_default().saturating_mul(1000),
        file,
    })?;
    Ok(Exit::Ok)
}

pub(super) fn log_out(context: &Context) -> Done {
    let file = token_file::path(&context.connection)?;
    let removed = remove(&file)?;
    context.printer.print(&LoggedOut { removed, file })?;
    Ok(Exit::Ok)
}

fn remove(file: &Path) -> Result<bool, CliError> {
    match std::fs::remove_file(file) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(CliError::failed(format!("{}: {error}", file.display()))),
    }
}

fn provider_failed(error: ProviderError) -> CliError {
    CliError::new(Exit::Unavailable, error.to_string())
}

fn login_failed(error: LoginError) -> CliError {
    let exit = match error {
        LoginError::Refused(_) => Exit::Denied,
        LoginError::Fetch(_) => Exit::Unavailable,
        LoginError::Endpoint(_) | LoginError::Foreign(_) | LoginError::Answer(_) => Exit::Failed,
    };
    CliError::new(exit, error.to_string())
}

/// A port of this machine that nobody else can reach, and its URL.
async fn listen() -> Result<(TcpListener, String), CliError> {
    let failed = |error: std::io::Error| CliError::failed(format!("listening for it: {error}"));
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.map_err(failed)?;
    let port = listener.local_addr().map_err(failed)?.port();
    Ok((listener, format!("http://127.0.0.1:{port}{CALLBACK}")))
}

/// The query of the first request that comes to the callback, whatever it is; browsers ask for other things too.
async fn answer(listener: &TcpListener) -> Result<String, CliError> {
    let first = Arc::new(Mutex::new(None::<String>));
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (stream, _) = accepted
                    .map_err(|error| CliError::failed(format!("listening for it: {error}")))?;
                if connections.len() < CONNECTIONS {
                    connections.spawn(serve(TokioIo::new(stream), Arc::clone(&first)));
                }
            }
            // What is served has been read as well, so that the browser shows it.
            Some(_) = connections.join_next() => {
                if let Some(query) = first.lock().take() {
                    return Ok(query);
                }
            }
        }
    }
}

async fn serve(stream: TokioIo<tokio::net::TcpStream>, first: Arc<Mutex<Option<String>>>) {
    let service = service_fn(|request: Request<Incoming>| {
        let response = respond(&request, &first);
        async move { Ok::<_, Infallible>(response) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER)
        .keep_alive(false)
        .serve_connection(stream, service)
        .await;
    // Whoever is gone before the answer is there has no use for it.
    drop(served);
}

fn respond<B>(request: &Request<B>, first: &Mutex<Option<String>>) -> Response<Full<Bytes>> {
    let (status, text) = if request.uri().path() != CALLBACK {
        (StatusCode::NOT_FOUND, "There is nothing here.\n")
    } else if request.method() != Method::GET {
        (StatusCode::METHOD_NOT_ALLOWED, "Only GET.\n")
    } else {
        let mut first = first.lock();
        if first.is_some() {
            (StatusCode::CONFLICT, "There was an answer before this one.\n")
        } else {
            *first = Some(request.uri().query().unwrap_or_default().to_owned());
            (
                StatusCode::OK,
                "Holdfast has the answer. See the terminal; this window can be closed.\n",
            )
        }
    };
    let mut response = Response::new(Full::new(Bytes::from_static(text.as_bytes())));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    async fn ask(port: u16, target: &str) -> String {
        let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        let request = format!("GET {target} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn the_first_answer_counts_and_what_browsers_ask_besides_does_not() {
        let (listener, url) = listen().await.unwrap();
        let port = listener.local_addr().unwrap().port();
        assert_eq!(url, format!("http://127.0.0.1:{port}/callback"));
        // A connection that is opened ahead and never used.
        let idle = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        let browser = async {
            assert!(ask(port, "/favicon.ico").await.starts_with("HTTP/1.1 404"));
            ask(port, "/callback?code=c1&state=s").await
        };
        let (query, page) = tokio::join!(answer(&listener), browser);
        assert_eq!(query.unwrap(), "code=c1&state=s");
        assert!(page.starts_with("HTTP/1.1 200") && page.contains("no-store"), "{page}");
        drop(idle);
    }

    #[test]
    fn a_second_answer_is_told_that_it_is_one() {
        let first = Mutex::new(None);
        let request = |query: &str| {
            let uri = format!("{CALLBACK}?{query}");
            Request::builder().uri(uri).body(()).unwrap()
        };
        assert_eq!(respond(&request("a"), &first).status(), StatusCode::OK);
        assert_eq!(respond(&request("b"), &first).status(), StatusCode::CONFLICT);
        assert_eq!(first.lock().as_deref(), Some("a"));
    }
}
