//! Links that carry nothing: by nft in the hosts' own networks, or by the rules of the proxy.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use rand::Rng as _;
use rand::rngs::StdRng;
use tokio::task::JoinHandle;

use super::{Fault, Hit, SEEN, Step, Whom, restore, targets, watch};
use crate::env::command::{call, call_with};
use crate::env::network::Network;
use crate::env::proxy::{CLIENTS, Proxy, Rule, Rules};
use crate::env::{Server, World};

/// Removes our rules, whether there are any or not.
const CLEAR: &str = "table inet chaos\ndelete table inet chaos\n";

/// Which links.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cut {
    /// The leader sees nobody, and is seen by clients.
    Leader,
    /// A follower sees nobody, and is seen by clients.
    Follower,
    /// The leader sees nobody at all, clients neither.
    Host,
    /// Nobody sees anybody.
    Everybody,
    /// Leader and a follower don't see each other, and both see the third.
    Bridge,
    /// What the leader sends to a follower is lost. The other way is sound.
    OneWay,
    /// No new connection from the leader to others; what stands goes on.
    NewOnly,
    /// As `Leader`, on and off every second or so.
    Flapping,
    /// As `Leader`, but every packet is answered with a reset.
    Resets,
}

/// A partition.
pub(crate) struct Partition {
    cut: Cut,
    flapping: Option<JoinHandle<()>>,
}

impl Partition {
    pub(crate) const fn new(cut: Cut) -> Self {
        Self { cut, flapping: None }
    }

    const fn whom(&self) -> Whom {
        match self.cut {
            Cut::Follower => Whom::Follower,
            Cut::Everybody => Whom::All,
            Cut::Bridge | Cut::OneWay => Whom::Two,
            Cut::Leader | Cut::Host | Cut::NewOnly | Cut::Flapping | Cut::Resets => Whom::Leader,
        }
    }
}

pub(crate) fn network(server: &Server) -> anyhow::Result<&Network> {
    server.network.as_ref().context("the host has no network of its own")
}

/// Loads rules in a host's network.
pub(crate) async fn load(server: &Server, rules: &str) -> anyhow::Result<()> {
    let [program, namespace] = network(server)?.enter();
    call_with(&program, &[&namespace, "nft", "-f", "-"], rules).await.map(drop)
}

/// Packets that our rules in a host's network have counted.
pub(crate) async fn counted(server: &Server, table: &str) -> anyhow::Result<u64> {
    let [program, namespace] = network(server)?.enter();
    let args = [&namespace, "nft", "list", "table", table, "chaos"];
    let listed = call(&program, &args).await?;
    Ok(sum_of_packets(&listed))
}

fn sum_of_packets(listed: &str) -> u64 {
    let mut words = listed.split_whitespace();
    let mut sum = 0;
    while let Some(word) = words.next() {
        if word == "packets" {
            sum += words.next().and_then(|count| count.parse::<u64>().ok()).unwrap_or(0);
        }
    }
    sum
}

/// Waits until rules have counted something at one of the hosts.
pub(crate) async fn watch_counters(servers: &[&Server], table: &str) -> Option<u64> {
    watch(SEEN, || async {
        let mut sum = 0;
        for server in servers {
            sum += counted(server, table).await.unwrap_or(0);
        }
        (sum > 0).then_some(sum)
    })
    .await
}

/// One table with a rule a line; several on one line are rejected by nft.
fn table(rules: &[String]) -> String {
    let (inputs, outputs): (Vec<_>, Vec<_>) = rules.iter().partition(|rule| rule.contains("saddr"));
    let lines =
        |rules: Vec<&String>| rules.into_iter().fold(String::new(), |all, r| all + r + "\n");
    format!(
        "{CLEAR}table inet chaos {{\n\
         chain in {{\ntype filter hook input priority 0; policy accept;\n{}}}\n\
         chain out {{\ntype filter hook output priority 0; policy accept;\n{}}}\n}}\n",
        lines(inputs),
        lines(outputs)
    )
}

/// Rules of one host that cut it from some addresses, both ways.
fn isolate(from: &[String]) -> Vec<String> {
    let both = |address: &String| {
        [format!("ip saddr {address} counter drop"), format!("ip daddr {address} counter drop")]
    };
    from.iter().flat_map(both).collect()
}

fn address(server: &Server) -> anyhow::Result<String> {
    Ok(network(server)?.address.clone())
}

fn others(world: &World, server: &Server) -> anyhow::Result<Vec<String>> {
    let others = world.all().filter(|other| other.host != server.host);
    others.map(address).collect()
}

impl Partition {
    /// The hosts that get rules, the rules of each, and a name for it all.
    async fn plan<'a>(
        &self,
        world: &'a World,
        rng: &mut StdRng,
    ) -> anyhow::Result<(Vec<(&'a Server, Vec<String>)>, String)> {
        let (hit, name) = targets(world, self.whom(), rng).await?;
        let mut plan = Vec::new();
        match (self.cut, hit.as_slice()) {
            (Cut::Bridge, [follower, leader]) => {
                plan.push((*leader, isolate(&[address(follower)?])));
            }
            (Cut::OneWay, [follower, leader]) => {
                let rule = format!("ip saddr {} counter drop", address(leader)?);
                plan.push((*follower, vec![rule]));
            }
            (Cut::Host, [leader]) => plan.push((*leader, isolate(&["10.77.0.0/24".to_owned()]))),
            (Cut::NewOnly, [leader]) => {
                let rule = |to: &String| format!("ip daddr {to} ct state new counter drop");
                plan.push((*leader, others(world, leader)?.iter().map(rule).collect()));
            }
            (Cut::Resets, [leader]) => {
                let rule = |to: &String| {
                    let reset = "meta l4proto tcp counter reject with tcp reset";
                    [format!("ip saddr {to} {reset}"), format!("ip daddr {to} {reset}")]
                };
                plan.push((*leader, others(world, leader)?.iter().flat_map(rule).collect()));
            }
            (_, hit) => {
                for server in hit {
                    plan.push((*server, isolate(&others(world, server)?)));
                }
            }
        }
        Ok((plan, name))
    }
}

/// Turns rules on and off until it is aborted.
fn flap(namespace: [String; 2], rules: String, pauses: Vec<u64>) -> JoinHandle<()> {
    tokio::spawn(async move {
        let [program, namespace] = namespace;
        for (turn, pause) in pauses.into_iter().enumerate() {
            tokio::time::sleep(Duration::from_millis(pause)).await;
            let input = if turn % 2 == 0 { CLEAR } else { rules.as_str() };
            let args = [namespace.as_str(), "nft", "-f", "-"];
            if let Err(error) = call_with(&program, &args, input).await {
                tracing::warn!("flapping: {error:#}");
            }
        }
    })
}

impl Partition {
    /// Puts it in place in the hosts' own networks.
    async fn by_nft(&mut self, world: &World, rng: &mut StdRng) -> anyhow::Result<Hit> {
        let (plan, name) = self.plan(world, rng).await?;
        let hosts: Vec<&Server> = plan.iter().map(|(server, _)| *server).collect();
        for (server, rules) in &plan {
            load(server, &table(rules)).await?;
        }
        if self.cut == Cut::NewOnly {
            // Its standing connections end, and it has to make new ones.
            let [program, namespace] = network(plan.first().context("nobody")?.0)?.enter();
            let args = [&namespace, "ss", "-K", "dst", "10.77.0.0/25", "dport", "=", "7402"];
            drop(call(&program, &args).await);
        }
        let seen = watch_counters(&hosts, "inet").await;
        if self.cut == Cut::Flapping
            && let Some((server, rules)) = plan.first()
        {
            self.flapping = Some(flap(network(server)?.enter(), table(rules), pauses(rng)));
        }
        Ok(match seen {
            Some(packets) => Hit::seen(&hosts, name, format!("{packets} packets counted")),
            None => Hit::unseen(&hosts, name, "no packet was counted"),
        })
    }

    /// Puts it in place at the proxy.
    async fn by_proxy(
        &mut self,
        world: &World,
        proxy: &Arc<Proxy>,
        rng: &mut StdRng,
    ) -> anyhow::Result<Hit> {
        let (mut hit, name) = targets(world, self.whom(), rng).await?;
        let hosts: Vec<u64> = world.all().map(|server| server.host).collect();
        let ends: Vec<u64> = hit.iter().map(|server| server.host).collect();
        let rules = rules(self.cut, &ends, &hosts);
        if self.cut == Cut::NewOnly {
            // Its standing connections end, and it has to make new ones.
            let reset = |rule: &Rule| Rule { reset: true, ..*rule };
            proxy.set(rules.iter().map(|(ends, rule)| (*ends, reset(rule))).collect());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        proxy.set(rules.clone());
        // Only what has rules of its own counts as faulty, as with nft.
        match self.cut {
            Cut::Bridge => drop(hit.remove(0)),
            Cut::OneWay => hit.truncate(1),
            _ => {}
        }
        let seen = watch(SEEN, || async { Some(proxy.touched()).filter(|n| *n > 0) }).await;
        if self.cut == Cut::Flapping {
            let (proxy, pauses) = (Arc::clone(proxy), pauses(rng));
            self.flapping = Some(tokio::spawn(async move {
                for (turn, pause) in pauses.into_iter().enumerate() {
                    tokio::time::sleep(Duration::from_millis(pause)).await;
                    proxy.set(if turn % 2 == 0 { Rules::new() } else { rules.clone() });
                }
            }));
        }
        Ok(match seen {
            Some(touched) => {
                Hit::seen(&hit, name, format!("{touched} pieces or connections held or reset"))
            }
            // Servers that let nobody but root look at them hide whose connections are whose.
            None => Hit::unseen(
                &hit,
                name,
                "nothing was held; is /proc/PID/fd of the servers readable?",
            ),
        })
    }
}

fn pauses(rng: &mut StdRng) -> Vec<u64> {
    (0..200).map(|_| rng.random_range(200..1500)).collect()
}

/// The proxy's rules for a cut of the hosts `hit`, in the order of their choice: a follower before the leader.
fn rules(cut: Cut, hit: &[u64], hosts: &[u64]) -> Rules {
    let rule = match cut {
        Cut::Resets => Rule { reset: true, ..Rule::default() },
        Cut::NewOnly => Rule { no_new: true, ..Rule::default() },
        _ => Rule { hold: true, ..Rule::default() },
    };
    let mut rules = Rules::new();
    match (cut, hit) {
        (Cut::Bridge, [follower, leader]) => {
            rules.insert((*follower, *leader), rule);
            rules.insert((*leader, *follower), rule);
        }
        (Cut::OneWay, [follower, leader]) => {
            rules.insert((*leader, *follower), rule);
        }
        (_, hit) => {
            for one in hit {
                for other in hosts.iter().filter(|other| *other != one) {
                    rules.insert((*one, *other), rule);
                    if cut != Cut::NewOnly {
                        rules.insert((*other, *one), rule);
                    }
                }
                if cut == Cut::Host {
                    rules.insert((*one, CLIENTS), rule);
                    rules.insert((CLIENTS, *one), rule);
                }
            }
        }
    }
    rules
}

impl Fault for Partition {
    fn install<'a>(&'a mut self, world: &'a World, rng: &'a mut StdRng) -> Step<'a, Hit> {
        Box::pin(async move {
            match world.proxy() {
                Some(proxy) => self.by_proxy(world, proxy, rng).await,
                None => self.by_nft(world, rng).await,
            }
        })
    }

    fn heal<'a>(&'a mut self, world: &'a World) -> Step<'a, String> {
        Box::pin(async move {
            if let Some(task) = self.flapping.take() {
                task.abort();
                // It may be between two commands; none comes after it has ended.
                drop(task.await);
            }
            if let Some(proxy) = world.proxy() {
                let touched = proxy.touched();
                proxy.set(Rules::new());
                restore(world).await?;
                return Ok(format!("{touched} pieces or connections held or reset in all"));
            }
            let sum = AtomicU64::new(0);
            for server in world.servers().iter().filter(|server| server.network.is_some()) {
                sum.fetch_add(counted(server, "inet").await.unwrap_or(0), Ordering::SeqCst);
                load(server, CLEAR).await?;
            }
            restore(world).await?;
            Ok(format!("{} packets counted in all", sum.into_inner()))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_of_all_rules_are_added_up() {
        let listed = "table inet chaos {\n chain in {\n ip saddr 10.77.0.2 counter packets 12 bytes 900 drop\n\
                      ip saddr 10.77.0.3 counter packets 30 bytes 1 drop\n }\n}";
        assert_eq!(sum_of_packets(listed), 42);
    }

    #[test]
    fn a_table_has_one_rule_a_line_and_removes_an_older_one_first() {
        let text = table(&isolate(&["10.77.0.2".to_owned()]));
        assert!(text.starts_with(CLEAR), "{text}");
        assert!(text.lines().all(|line| line.matches("counter").count() <= 1), "{text}");
        let (before, after) = text.split_once("chain out").unwrap();
        assert!(before.contains("saddr") && !before.contains("daddr"), "{text}");
        assert!(after.contains("daddr") && !after.contains("saddr"), "{text}");
    }

    #[test]
    fn the_proxy_cuts_the_same_links_as_the_hosts_own_rules() {
        let hosts = [1, 2, 3, 4];
        let cut = |cut, hit: &[u64]| rules(cut, hit, &hosts).into_keys().collect::<Vec<_>>();
        assert_eq!(cut(Cut::Bridge, &[2, 1]), [(1, 2), (2, 1)]);
        assert_eq!(cut(Cut::OneWay, &[2, 1]), [(1, 2)], "from the leader to the follower");
        assert_eq!(cut(Cut::Leader, &[1]), [(1, 2), (1, 3), (1, 4), (2, 1), (3, 1), (4, 1)]);
        assert_eq!(cut(Cut::NewOnly, &[1]), [(1, 2), (1, 3), (1, 4)]);
        assert!(cut(Cut::Host, &[1]).contains(&(CLIENTS, 1)));
        assert_eq!(cut(Cut::Everybody, &[1, 2, 3]).len(), 12);
    }
}
