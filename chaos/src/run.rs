//! A run: hosts, load, faults, and what is looked at from outside meanwhile and after.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use anyhow::Context as _;
use holdfast::client::IdentityFiles;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use tokio::sync::watch;

use crate::env::command::call_blocking;
use crate::env::{ADMINISTRATOR, AUDITOR, Plan, World};
use crate::fault::{Fault, Hit, Kind, lacks};
use crate::history::{Begin, Effect, Event, FaultEvent, FaultStep, Finding};
use crate::recorder::Recorder;
use crate::sample;
use crate::scan;
use crate::schedule::{Next, Schedule};
use crate::workload::{Agent, FinalPass, Operator, Workload, WorkloadOptions};

/// How long a step of a fault may take: a replacement waits for a whole copy.
const STEP: Duration = Duration::from_secs(180);
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
}

/// Runs it all. To be called outside of a runtime: the threads of the runtime are to be in the clients' network.
///
/// # Errors
/// If the hosts can't be made, the cluster doesn't come to life, or the history can't be written.
pub fn run(options: Options) -> anyhow::Result<Ended> {
    let plan = Plan {
        program: options.program.clone(),
        out: options.out.clone(),
        nodes: options.nodes,
        isolated: options.isolated,
    };
    let world = World::make(plan)?;
    let cast = Cast::make(&world, options.seed)?;
    let recorder = Recorder::create(&options.out.join(HISTORY))?;
    let run = Run { options, world, recorder };
    run.begin()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let driven = runtime.block_on(run.drive(cast));
    let stopped = runtime.block_on(run.stop_servers());
    let searched = run.search_files();
    let ended = runtime.block_on(run.world.end());
    let searched = searched.and_then(|()| run.search_images());
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

/// Devices and help-desk operators of a run.
const DEVICES: usize = 12;
const HELPERS: usize = 40;

fn operator(world: &World, name: &str) -> anyhow::Result<Operator> {
    let (cert, key) = world.papers().operator(name);
    Ok(Operator { name: name.parse()?, files: IdentityFiles { cert, key } })
}

impl Cast {
    fn make(world: &World, seed: u64) -> anyhow::Result<Self> {
        let mut rng = StdRng::seed_from_u64(seed ^ 0x6361_7374);
        let mut agents = Vec::new();
        for _ in 0..DEVICES {
            let device = uuid::Builder::from_random_bytes(rng.random()).into_uuid();
            let (cert, key) = world.papers().issue_agent(device)?;
            agents.push(Agent { device, files: IdentityFiles { cert, key } });
        }
        let mut help_desk = Vec::new();
        for number in 1..=HELPERS {
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

/// Completes when the run is to end early.
pub(crate) async fn interrupted() {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut term) = signal(SignalKind::terminate()) else { return std::future::pending().await };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = term.recv() => {}
    }
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
            faults: options.kinds.iter().map(|kind| kind.name.to_owned()).collect(),
            left_out,
            command: options.command.clone(),
        }));
        Ok(())
    }

    /// Why a kind of fault is left out, if it is.
    fn left_out(&self, kind: &Kind) -> Option<String> {
        let hosts = kind.needs.contains(&crate::fault::Need::Hosts);
        if hosts && !self.options.isolated {
            return Some("the hosts have no network and disk of their own".to_owned());
        }
        lacks(kind)
    }

    fn phase(&self, name: &str) {
        tracing::info!("phase {name}");
        self.recorder.record(&Event::Phase { at: self.recorder.now(), name: name.to_owned() });
    }

    fn finding(&self, checker: &str, bad: bool, what: String) {
        if bad {
            tracing::error!("{checker}: {what}");
        }
        let checker = checker.to_owned();
        self.recorder.record(&Event::Finding(Finding {
            at: self.recorder.now(),
            checker,
            bad,
            what,
        }));
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
            () = interrupted() => {
                tracing::warn!("interrupted: healing and taking away");
                stop.send_replace(true);
                // What is under way is healed first; a second interruption ends that too.
                tokio::select! {
                    worked = &mut work => worked.map(|_| Ended::Interrupted),
                    () = interrupted() => Ok(Ended::Interrupted),
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
            self.finding("converge", true, format!("after all faults: {error:#}"));
        }
        pause(Duration::from_secs(12), &stop).await;
        workload.stop().await?;
        if *stop.borrow() {
            return Ok(());
        }
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

    async fn faults(&self, load: &Workload, stop: &watch::Receiver<bool>) -> anyhow::Result<()> {
        let possible: Vec<_> = self
            .options
            .kinds
            .iter()
            .copied()
            .filter(|kind| self.left_out(kind).is_none())
            .collect();
        let millis = u64::try_from(self.options.duration.as_millis())?;
        let deadline = Instant::now() + self.options.duration;
        for (number, next) in (1..).zip(Schedule::new(possible, self.options.seed, millis)) {
            if *stop.borrow() || Instant::now() >= deadline {
                return Ok(());
            }
            self.one_fault(number, next, load, stop).await?;
            pause(Duration::from_millis(next.rest), stop).await;
        }
        // No fault was chosen that this machine can do.
        pause(deadline.saturating_duration_since(Instant::now()), stop).await;
        Ok(())
    }

    async fn one_fault(
        &self,
        number: u64,
        next: Next,
        load: &Workload,
        stop: &watch::Receiver<bool>,
    ) -> anyhow::Result<()> {
        let mut fault = (next.kind.make)();
        let before = self.world.ids();
        let hit = self.install(number, next, fault.as_mut(), stop).await;
        if self.world.ids() != before {
            load.set_endpoints(self.endpoints());
        }
        pause(Duration::from_millis(next.hold), stop).await;
        self.heal(number, next.kind, fault.as_mut(), &hit).await?;
        if let Err(error) = self.world.healthy(WELL).await {
            let what =
                format!("after fault {number}, {} of {}: {error:#}", next.kind.name, hit.target);
            self.finding("converge", true, what);
        }
        Ok(())
    }

    async fn install(
        &self,
        number: u64,
        next: Next,
        fault: &mut dyn Fault,
        stop: &watch::Receiver<bool>,
    ) -> Hit {
        let at = self.recorder.now();
        let mut rng = StdRng::seed_from_u64(next.seed);
        let mut stop = stop.clone();
        let installed = tokio::select! {
            installed = tokio::time::timeout(STEP, fault.install(&self.world, &mut rng)) => installed,
            _ = stop.wait_for(|stop| *stop) => Ok(Err(anyhow::anyhow!("interrupted"))),
        };
        let hit = match installed {
            Ok(Ok(hit)) => hit,
            Ok(Err(error)) => unclear(format!("{error:#}")),
            Err(_) => unclear(format!("it took longer than {STEP:?}")),
        };
        tracing::info!("fault {number}: {} of {}: {:?}", next.kind.name, hit.target, hit.effect);
        self.record(at, number, next.kind, &hit, (FaultStep::Install, hit.effect.clone()));
        hit
    }

    /// Heals a fault. If that fails, the run can go on no longer: what comes after it would be judged wrongly.
    async fn heal(
        &self,
        number: u64,
        kind: &'static Kind,
        fault: &mut dyn Fault,
        hit: &Hit,
    ) -> anyhow::Result<()> {
        let at = self.recorder.now();
        let healed = tokio::time::timeout(STEP, fault.heal(&self.world)).await;
        let healed = healed.map_err(anyhow::Error::from).flatten();
        let effect = match &healed {
            Ok(seen) => Effect::Installed { seen: seen.clone() },
            Err(error) => Effect::Indeterminate { why: format!("{error:#}") },
        };
        self.record(at, number, kind, hit, (FaultStep::Heal, effect));
        if let Err(error) = healed {
            let what = format!(
                "fault {number}, {} of {}, is not healed: {error:#}",
                kind.name, hit.target
            );
            self.finding("converge", true, what.clone());
            anyhow::bail!(what);
        }
        Ok(())
    }

    fn record(
        &self,
        at: u64,
        number: u64,
        kind: &Kind,
        hit: &Hit,
        (step, effect): (FaultStep, Effect),
    ) {
        self.recorder.record(&Event::Fault(FaultEvent {
            at,
            until: self.recorder.now(),
            number,
            kind: kind.name.to_owned(),
            target: hit.target.clone(),
            nodes: hit.nodes.clone(),
            step,
            effect,
        }));
    }

    /// Stops the servers in order, so that what is in memory is on disk as well.
    async fn stop_servers(&self) -> anyhow::Result<()> {
        for server in self.world.servers() {
            server.set_at_risk(true);
            if server.pid().is_some()
                && let Err(error) = server.stop().await
            {
                self.finding("panic", true, format!("{error:#}: {}", server.last_line()));
            }
            let log = server.log();
            let lines = log.lines().count();
            let panics = scan::panics(&log);
            let host = server.host;
            for panic in &panics {
                self.finding("panic", true, format!("host {host}: {panic}"));
            }
            if panics.is_empty() {
                self.finding(
                    "panic",
                    false,
                    format!("host {host}: none in {lines} lines of its log"),
                );
            }
        }
        Ok(())
    }

    fn search(&self, paths: &[PathBuf], what: &str) -> anyhow::Result<()> {
        let keys = scan::keys(self.recorder.path())?;
        let Some(first) = keys.first() else { return Ok(()) };
        let search = scan::Search::new(keys.iter().map(String::as_str));
        let control = scan::control(&search, first, &self.options.out)?;
        let (found, about) = scan::search_files(&search, paths)?;
        for place in &found {
            self.finding("plaintext", true, place.clone());
        }
        if found.is_empty() {
            self.finding("plaintext", false, format!("{what}: none in {about}; {control}"));
        }
        Ok(())
    }

    fn search_files(&self) -> anyhow::Result<()> {
        let mut paths = Vec::new();
        for server in self.world.servers() {
            paths.extend(crate::env::files::all_below(&server.data_dir()));
            paths.push(server.log_path());
        }
        self.search(&paths, "data and logs")
    }

    /// Searches the images, where deleted files lie too, and removes them.
    fn search_images(&self) -> anyhow::Result<()> {
        let disks = self.world.servers().iter().filter_map(|server| server.disk.as_ref());
        let images: Vec<PathBuf> = disks.map(|disk| disk.image().to_owned()).collect();
        if images.is_empty() {
            return Ok(());
        }
        self.search(&images, "disk images")?;
        for image in images.iter().filter(|_| !self.options.keep) {
            std::fs::remove_file(image).with_context(|| image.display().to_string())?;
        }
        Ok(())
    }
}

fn unclear(why: String) -> Hit {
    Hit { target: String::new(), nodes: Vec::new(), effect: Effect::Indeterminate { why } }
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
