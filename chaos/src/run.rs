//! A run: hosts, load, faults, and what is looked at from outside meanwhile and after.

mod after;
mod faults;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use holdfast::client::IdentityFiles;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use tokio::sync::watch;

use crate::env::command::call_blocking;
use crate::env::{ADMINISTRATOR, AUDITOR, Interrupt, Plan, World};
use crate::fault::{Kind, lacks, lacks_plain};
use crate::history::{Begin, Event};
use crate::recorder::Recorder;
use crate::sample;
use crate::workload::{Agent, FinalPass, Operator, Workload, WorkloadOptions};

/// How long all may take to be well again after a fault.
const WELL: Duration = Duration::from_secs(60);
/// The file of the history in a run's directory.
pub const HISTORY: &str = "history.jsonl";

/// What is run.
#[derive(Debug, Clone)]
pub struct Options {
    /// How long faults go on.
    pub duration: Duration,
    /// Everything random follows from it.
    pub seed: u64,
    /// Kinds of faults.
    pub kinds: Vec<&'static Kind>,
    /// Whether they were asked for by name: then the run proves nothing without each of them. Else those will do that can be done here.
    pub named: bool,
    /// Servers.
    pub nodes: u64,
    /// Directory of everything; made new.
    pub out: PathBuf,
    /// The program `holdfast`.
    pub program: PathBuf,
    /// Whether each host gets a network and a disk of its own.
    pub isolated: bool,
    /// Calls a second at most.
    pub rate: u32,
    /// Clients.
    pub clients: u32,
    /// Devices.
    pub devices: u32,
    /// Whether disks and data are kept when nothing bad was found.
    pub keep: bool,
    /// The command that repeats the run.
    pub command: String,
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// It came to its end.
    Complete,
    /// It was interrupted; everything was healed and taken away.
    Interrupted,
}

/// What a run is made of while it goes on.
struct Run {
    options: Options,
    world: Arc<World>,
    recorder: Arc<Recorder>,
    interrupt: Interrupt,
}

/// Runs it all. To be called outside of a runtime: the threads of the runtime are to be in the clients' network.
///
/// # Errors
/// If the hosts can't be made, the cluster doesn't come to life, or the history can't be written.
pub fn run(options: Options) -> anyhow::Result<Ended> {
    // First of all: whatever is made from now on is taken away again, however early the end is.
    let interrupt = Interrupt::listen()?;
    let plan = Plan {
        program: options.program.clone(),
        out: options.out.clone(),
        nodes: options.nodes,
        isolated: options.isolated,
        interrupt: interrupt.clone(),
    };
    let made = World::make(plan).and_then(|world| {
        let cast = Cast::make(&world, &options, &interrupt)?;
        Ok((world, cast))
    });
    let (world, cast) = match made {
        Err(_) if interrupt.happened() => return Ok(Ended::Interrupted),
        made => made?,
    };
    let recorder = Recorder::create(&options.out.join(HISTORY))?;
    world.set_recorder(Arc::clone(&recorder));
    let run = Run { options, world, recorder, interrupt };
    run.begin()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let driven = runtime.block_on(run.drive(cast));
    let stopped = runtime.block_on(run.stop_servers());
    // Whoever interrupts a run waits for what has to be taken away, and for nothing else.
    let search = !matches!(driven, Ok(Ended::Interrupted));
    let searched = if search { run.search_files() } else { Ok(()) };
    let ended = runtime.block_on(run.world.end());
    let searched = searched.and_then(|()| run.search_images(search));
    if matches!(driven, Ok(Ended::Complete)) {
        run.recorder.record(&Event::End { at: run.recorder.now() });
    }
    run.recorder.finish()?;
    let driven = driven?;
    stopped?;
    ended?;
    searched?;
    Ok(driven)
}

/// Everybody who calls the servers.
struct Cast {
    agents: Vec<Agent>,
    help_desk: Vec<Operator>,
}

/// Help-desk operators of a run.
const HELPERS: usize = 40;

fn operator(world: &World, name: &str) -> anyhow::Result<Operator> {
    let (cert, key) = world.papers().operator(name);
    Ok(Operator { name: name.parse()?, files: IdentityFiles { cert, key } })
}

impl Cast {
    fn make(world: &World, options: &Options, interrupt: &Interrupt) -> anyhow::Result<Self> {
        let mut rng = StdRng::seed_from_u64(options.seed ^ 0x6361_7374);
        let mut agents = Vec::new();
        for _ in 0..options.devices {
            interrupt.check()?;
            let device = uuid::Builder::from_random_bytes(rng.random()).into_uuid();
            let (cert, key) = world.papers().issue_agent(device)?;
            agents.push(Agent { device, files: IdentityFiles { cert, key } });
        }
        let mut help_desk = Vec::new();
        for number in 1..=HELPERS {
            interrupt.check()?;
            let name = format!("helper{number}");
            world.papers().issue_operator(&name)?;
            help_desk.push(operator(world, &name)?);
        }
        Ok(Self { agents, help_desk })
    }
}

fn unix_ms() -> u64 {
    #[allow(clippy::disallowed_methods, reason = "the history tells when the run was")]
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    now.ok().and_then(|since| u64::try_from(since.as_millis()).ok()).unwrap_or(0)
}

impl Run {
    fn begin(&self) -> anyhow::Result<()> {
        let options = &self.options;
        let version = call_blocking(&options.program.display().to_string(), &["--version"], "")?;
        let left_out = options
            .kinds
            .iter()
            .filter_map(|kind| Some((kind.name.to_owned(), self.left_out(kind)?)))
            .collect();
        self.recorder.record(&Event::Begin(Begin {
            unix_ms: unix_ms(),
            version: version.trim().to_owned(),
            seed: options.seed,
            nodes: self.world.ids(),
            seconds: options.duration.as_secs(),
            faults: options
                .kinds
                .iter()
                .filter(|kind| options.named || self.left_out(kind).is_none())
                .map(|kind| kind.name.to_owned())
                .collect(),
            left_out,
            command: options.command.clone(),
        }));
        Ok(())
    }

    /// Why a kind of fault is left out, if it is.
    fn left_out(&self, kind: &Kind) -> Option<String> {
        if self.options.isolated { lacks(kind) } else { lacks_plain(kind) }
    }

    fn phase(&self, name: &str) {
        tracing::info!("phase {name}");
        self.recorder.record(&Event::Phase { at: self.recorder.now(), name: name.to_owned() });
    }

    async fn drive(&self, cast: Cast) -> anyhow::Result<Ended> {
        let (stop, stopped) = watch::channel(false);
        let work = async {
            let worked = self.work(cast, stopped).await;
            worked.map(|()| Ended::Complete)
        };
        tokio::pin!(work);
        tokio::select! {
            worked = &mut work => worked,
            () = self.interrupt.times(1) => {
                tracing::warn!("interrupted: healing and taking away");
                stop.send_replace(true);
                // What is under way is healed first; a second interruption ends that too.
                tokio::select! {
                    worked = &mut work => worked.map(|_| Ended::Interrupted),
                    () = self.interrupt.times(2) => Ok(Ended::Interrupted),
                }
            }
        }
    }

    async fn work(&self, cast: Cast, stop: watch::Receiver<bool>) -> anyhow::Result<()> {
        self.world.begin().await.context("the cluster does not come to life")?;
        let sampler = sample::start(&self.world, &self.recorder)?;
        let outcome = self.work_sampled(cast, stop).await;
        sampler.abort();
        outcome
    }

    async fn work_sampled(&self, cast: Cast, stop: watch::Receiver<bool>) -> anyhow::Result<()> {
        let options = &self.options;
        let warm_up =
            (options.duration / 10).clamp(Duration::from_secs(3), Duration::from_secs(10));
        self.phase("warm-up");
        let mut workload = self.workload(cast, warm_up).await?;
        pause(warm_up, &stop).await;
        self.phase("faults");
        self.faults(&workload, &stop).await?;
        self.phase("heal");
        if let Err(error) = self.world.healthy(WELL).await {
            self.world.finding("converge", true, format!("after all faults: {error:#}"));
        }
        pause(Duration::from_secs(12), &stop).await;
        workload.stop().await?;
        if *stop.borrow() {
            return Ok(());
        }
        self.world.record_members().await?;
        workload.final_pass(&self.endpoints(), FinalPass::default()).await
    }

    fn endpoints(&self) -> Vec<(u64, String)> {
        let servers = self.world.servers().iter();
        servers.map(|server| (server.id(), server.addresses.client.clone())).collect()
    }

    async fn workload(&self, cast: Cast, warm_up: Duration) -> anyhow::Result<Workload> {
        crate::workload::start(WorkloadOptions {
            endpoints: self.endpoints(),
            ca: self.world.papers().client_ca(),
            agents: cast.agents,
            help_desk: cast.help_desk,
            auditor: operator(&self.world, AUDITOR)?,
            administrator: operator(&self.world, ADMINISTRATOR)?,
            seed: self.options.seed,
            clients: self.options.clients,
            rate: self.options.rate,
            expected: warm_up + self.options.duration + Duration::from_secs(20),
            recorder: Arc::clone(&self.recorder),
        })
        .await
    }
}

/// Waits, unless the run is to end.
async fn pause(how_long: Duration, stop: &watch::Receiver<bool>) {
    let mut stop = stop.clone();
    tokio::select! {
        () = tokio::time::sleep(how_long) => {}
        _ = stop.wait_for(|stop| *stop) => {}
    }
}

/// A new directory for a run below the temporary one.
///
/// # Errors
/// If it can't be made.
pub fn fresh_out() -> anyhow::Result<PathBuf> {
    let dir = tempfile::Builder::new().prefix("holdfast-chaos-").tempdir()?;
    Ok(dir.keep())
}

/// The program `holdfast` beside this one.
///
/// # Errors
/// If there is none.
pub fn program(given: Option<&Path>) -> anyhow::Result<PathBuf> {
    let found = given.map(Path::to_owned).or_else(crate::env::beside);
    let found = found.context("no program holdfast beside this one; name it with --server")?;
    found.canonicalize().with_context(|| found.display().to_string())
}
