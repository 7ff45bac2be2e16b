//! Three masters that share the slots between them. There is no tool beside the server's binary, so the nodes are told
//! in the protocol's own words: which slots are theirs, and where the others are.
use std::{
    thread,
    time::{Duration, Instant},
};

use super::{Options, Redis};
use crate::{Failed, ports};

const SLOTS: u32 = 16_384;
const MASTERS: u32 = 3;
const READY_WITHIN: Duration = Duration::from_secs(60);

/// Three masters that are there until they are dropped.
pub struct Cluster {
    nodes: Vec<Redis>,
}

impl Cluster {
    /// Starts it, and waits until every node knows that every slot is served.
    pub fn start(options: &Options) -> Result<Self, Failed> {
        let mut nodes = Vec::new();
        for _ in 0..MASTERS {
            // By default the nodes talk on a port 10 000 above the clients', where it would be anybody's.
            let node = ports::start(None, 2, |ports| {
                let bus = format!("cluster-port {}", ports[1]);
                let arguments = ["cluster-enabled yes", "cluster-node-timeout 2000", &bus];
                Redis::on(ports[0], options, &arguments).map(|redis| (redis, ports[1]))
            });
            nodes.push(node?);
        }
        for (n, (node, _)) in (0..MASTERS).zip(&nodes) {
            let (from, to) = (SLOTS * n / MASTERS, SLOTS * (n + 1) / MASTERS - 1);
            node.ask(&["CLUSTER", "ADDSLOTSRANGE", &from.to_string(), &to.to_string()])?;
            // Each a different one: two who claim the same epoch would have to settle that first.
            node.ask(&["CLUSTER", "SET-CONFIG-EPOCH", &(n + 1).to_string()])?;
            if n > 0 {
                let (first, bus) = &nodes[0];
                node.ask(&["CLUSTER", "MEET", "127.0.0.1", &first.port.to_string(), &bus.to_string()])?;
            }
        }
        let cluster = Self { nodes: nodes.into_iter().map(|(node, _)| node).collect() };
        cluster.wait_ready()?;
        Ok(cluster)
    }

    /// Waits until every node knows all others, and that every slot is served.
    pub fn wait_ready(&self) -> Result<(), Failed> {
        let is_ready = |node: &Redis| {
            let info = node.ask(&["CLUSTER", "INFO"]).ok().and_then(|info| info.text()).unwrap_or_default();
            info.contains("cluster_state:ok") && info.contains(&format!("cluster_known_nodes:{MASTERS}\r"))
        };
        let until = Instant::now() + READY_WITHIN;
        while !self.nodes.iter().all(is_ready) {
            if Instant::now() > until {
                return Err(format!("the Redis cluster is not ready after {} s", READY_WITHIN.as_secs()));
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// The masters.
    pub fn nodes(&self) -> &[Redis] {
        &self.nodes
    }

    /// The masters, to be killed and restarted.
    pub fn nodes_mut(&mut self) -> &mut [Redis] {
        &mut self.nodes
    }

    /// Where clients begin: at any of these.
    pub fn addresses(&self) -> Vec<String> {
        self.nodes.iter().map(Redis::address).collect()
    }

    /// The slot of a key, from 0.
    pub fn slot_of(&self, key: &str) -> Result<u32, Failed> {
        let slot = self.nodes[0].ask(&["CLUSTER", "KEYSLOT", key])?.integer();
        slot.map(|slot| slot as u32).ok_or_else(|| "KEYSLOT says no number".into())
    }

    /// Which of the nodes serves a slot: as the first one that is there sees it.
    pub fn owner_of(&self, slot: u32) -> Result<usize, Failed> {
        let slots = self.nodes.iter().find_map(|node| node.ask(&["CLUSTER", "SLOTS"]).ok());
        let slots = slots.ok_or("no node of the Redis cluster answers")?;
        let port = slots.list().iter().find_map(|range| {
            let [from, to, owner, ..] = range.list() else { return None };
            (from.integer()?..=to.integer()?).contains(&i64::from(slot)).then(|| owner.list().get(1)?.integer())?
        });
        let owner = self.nodes.iter().position(|node| port == Some(i64::from(node.port)));
        owner.ok_or_else(|| format!("no node of the Redis cluster serves slot {slot}"))
    }

    /// Moves a slot and its keys to another node while clients go on: those that still ask the old one are sent on.
    pub fn move_slot(&self, slot: u32, to: usize) -> Result<(), Failed> {
        let from = &self.nodes[self.owner_of(slot)?];
        let to = &self.nodes[to];
        let id = |node: &Redis| Ok::<_, Failed>(node.ask(&["CLUSTER", "MYID"])?.text().unwrap_or_default());
        let (from_id, to_id, slot) = (id(from)?, id(to)?, slot.to_string());
        to.ask(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &from_id])?;
        from.ask(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &to_id])?;
        loop {
            let keys = from.ask(&["CLUSTER", "GETKEYSINSLOT", &slot, "100"])?;
            let keys: Vec<String> = keys.list().iter().filter_map(super::Value::text).collect();
            if keys.is_empty() {
                break;
            }
            let port = to.port.to_string();
            let mut words = vec!["MIGRATE", "127.0.0.1", &port, "", "0", "10000", "KEYS"];
            words.extend(keys.iter().map(String::as_str));
            from.ask(&words)?;
        }
        // The new owner first: until it knows, nobody would serve the slot.
        for node in [to, from].into_iter().chain(&self.nodes) {
            node.ask(&["CLUSTER", "SETSLOT", &slot, "NODE", &to_id])?;
        }
        Ok(())
    }
}
