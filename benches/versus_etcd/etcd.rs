//! Three etcd servers on loopback, with mTLS between all, and connections to them.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use hyper_util::rt::TokioIo;
use prost::Message;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SanType};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tonic::client::Grpc;
use tonic::transport::{Channel, Endpoint};
use tonic_prost::ProstCodec;

use crate::wire::{StatusRequest, StatusResponse};

const READY: Duration = Duration::from_secs(30);

struct Member {
    name: String,
    client: u16,
    peer: u16,
    process: Option<Child>,
}

/// A running cluster; its processes end when it is dropped.
pub(crate) struct Etcd {
    dir: tempfile::TempDir,
    members: Vec<Member>,
    tls: Arc<rustls::ClientConfig>,
}

impl Drop for Etcd {
    fn drop(&mut self) {
        for process in self.members.iter_mut().filter_map(|member| member.process.as_mut()) {
            // A process that has ended already needs no end.
            drop(process.kill());
            drop(process.wait());
        }
    }
}

fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// One authority, and one certificate that all servers and clients use.
#[allow(clippy::disallowed_methods, reason = "files of a measurement need no fsync")]
fn certificates(dir: &Path) -> Result<Arc<rustls::ClientConfig>> {
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority_key = KeyPair::generate()?;
    let authority_certificate = authority.self_signed(&authority_key)?;
    let mut leaf = CertificateParams::new(vec!["localhost".to_owned()])?;
    leaf.subject_alt_names.push(SanType::IpAddress([127, 0, 0, 1].into()));
    let key = KeyPair::generate()?;
    let certificate = leaf.signed_by(&key, &Issuer::new(authority, authority_key))?;
    std::fs::write(dir.join("ca.pem"), authority_certificate.pem())?;
    std::fs::write(dir.join("cert.pem"), certificate.pem())?;
    std::fs::write(dir.join("key.pem"), key.serialize_pem())?;
    let mut roots = rustls::RootCertStore::empty();
    roots.add(authority_certificate.der().clone())?;
    let chain = vec![CertificateDer::from(certificate.der().to_vec())];
    let key = PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes())?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(config))
}

impl Etcd {
    /// Starts three members in a directory below `base`, and waits until they have a leader.
    pub(crate) async fn start(program: &Path, base: Option<&Path>) -> Result<Self> {
        let dir = match base {
            Some(base) => tempfile::tempdir_in(base)?,
            None => tempfile::tempdir()?,
        };
        let tls = certificates(dir.path())?;
        let mut members = Vec::new();
        for number in 1..=3 {
            let name = format!("e{number}");
            members.push(Member { name, client: free_port()?, peer: free_port()?, process: None });
        }
        let mut cluster = Self { dir, members, tls };
        for number in 0..cluster.members.len() {
            cluster.run(program, number)?;
        }
        cluster.leader().await?;
        Ok(cluster)
    }

    fn run(&mut self, program: &Path, number: usize) -> Result<()> {
        let all: Vec<_> = self
            .members
            .iter()
            .map(|member| format!("{}=https://127.0.0.1:{}", member.name, member.peer))
            .collect();
        let member = self.members.get_mut(number).context("no such member")?;
        let file = |name: &str| self.dir.path().join(name);
        let url = |port: u16| format!("https://127.0.0.1:{port}");
        let log = std::fs::File::options().create(true).append(true).open(file("log"))?;
        let mut command = Command::new(program);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let plain = [
            ("--name", member.name.clone()),
            ("--initial-cluster", all.join(",")),
            ("--listen-client-urls", url(member.client)),
            ("--advertise-client-urls", url(member.client)),
            ("--listen-peer-urls", url(member.peer)),
            ("--initial-advertise-peer-urls", url(member.peer)),
        ];
        let files: [(&str, PathBuf); 7] = [
            ("--data-dir", file(&member.name)),
            ("--trusted-ca-file", file("ca.pem")),
            ("--cert-file", file("cert.pem")),
            ("--key-file", file("key.pem")),
            ("--peer-trusted-ca-file", file("ca.pem")),
            ("--peer-cert-file", file("cert.pem")),
            ("--peer-key-file", file("key.pem")),
        ];
        for (flag, value) in plain {
            command.arg(flag).arg(value);
        }
        for (flag, value) in files {
            command.arg(flag).arg(value);
        }
        command.args(["--client-cert-auth", "--peer-client-cert-auth"]);
        // Its defaults, but for the space: 2 GiB would be full before a million keys are in.
        command.args(["--quota-backend-bytes", "8589934592"]);
        member.process = Some(command.spawn().context("etcd does not start")?);
        Ok(())
    }

    /// Connections, spread over the members.
    pub(crate) async fn connect(&self, count: usize) -> Result<Vec<Channel>> {
        let mut channels = Vec::new();
        for member in self.members.iter().cycle().take(count) {
            channels.push(self.channel(member).await?);
        }
        Ok(channels)
    }

    async fn channel(&self, member: &Member) -> Result<Channel> {
        let (port, tls) = (member.client, Arc::clone(&self.tls));
        let connector = tower::service_fn(move |_uri: http::Uri| {
            let tls = tokio_rustls::TlsConnector::from(Arc::clone(&tls));
            async move {
                let stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await?;
                stream.set_nodelay(true)?;
                let name = ServerName::try_from("localhost").map_err(std::io::Error::other)?;
                Ok::<_, std::io::Error>(TokioIo::new(tls.connect(name, stream).await?))
            }
        });
        let endpoint = Endpoint::from_shared(format!("http://127.0.0.1:{port}"))?;
        let endpoint = endpoint.connect_timeout(Duration::from_secs(1));
        Ok(endpoint.connect_with_connector_lazy(connector))
    }

    /// Waits until every live member knows the same leader; its place among the members.
    pub(crate) async fn leader(&self) -> Result<usize> {
        let deadline = Instant::now() + READY;
        loop {
            let mut known = Vec::new();
            for (number, member) in self.members.iter().enumerate() {
                if member.process.is_some()
                    && let Ok(status) = self.status(member).await
                {
                    let id = status.header.map_or(0, |header| header.member_id);
                    known.push((number, id, status.leader));
                }
            }
            let alive = self.members.iter().filter(|member| member.process.is_some()).count();
            if known.len() == alive
                && let Some((_, _, leader)) = known.first()
                && known.iter().all(|(_, _, other)| other == leader)
                && let Some((number, _, _)) = known.iter().find(|(_, id, _)| id == leader)
            {
                return Ok(*number);
            }
            if Instant::now() > deadline {
                bail!("etcd has no leader after {READY:?}; see {}", self.log().display());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    fn log(&self) -> PathBuf {
        self.dir.path().join("log")
    }

    async fn status(&self, member: &Member) -> Result<StatusResponse> {
        let path = "/etcdserverpb.Maintenance/Status";
        let channel = self.channel(member).await?;
        let call = unary(&channel, path, StatusRequest {});
        Ok(tokio::time::timeout(Duration::from_secs(1), call).await??)
    }

    /// Kills the leader with SIGKILL.
    pub(crate) async fn kill_leader(&mut self) -> Result<()> {
        let number = self.leader().await?;
        let member = self.members.get_mut(number).context("no such member")?;
        if let Some(mut process) = member.process.take() {
            process.kill()?;
            process.wait()?;
        }
        Ok(())
    }
}

/// One call.
pub(crate) async fn unary<Q, A>(
    channel: &Channel,
    path: &'static str,
    request: Q,
) -> Result<A, tonic::Status>
where
    Q: Message + Send + Sync + 'static,
    A: Message + Default + Send + Sync + 'static,
{
    let mut grpc = Grpc::new(channel.clone());
    grpc.ready().await.map_err(|error| tonic::Status::unavailable(error.to_string()))?;
    let codec = ProstCodec::<Q, A>::default();
    let path = http::uri::PathAndQuery::from_static(path);
    grpc.unary(tonic::Request::new(request), path, codec).await.map(tonic::Response::into_inner)
}
