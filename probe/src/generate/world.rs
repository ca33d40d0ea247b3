//! Runs a story: who begins to talk when, and who gets which packet.
//!
//! In: a [`Story`] and its network. Out: the same network with everything captured.
//! Invariants: after the story's end nothing begins; what has begun is brought to its end.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;

use super::cloud::{Demand, Endpoint, HOSTS, NodeIndex, Place, Story, Talk};
use super::event::{Action, ConnectionIndex, Delivery};
use super::network::{Network, Packet, START_US};
use super::talk::{Filler, Script};
use super::tcp::Connection;
use super::truth::Migration;
use super::{attack, datagram};

/// VMs ask for their gateways one after the other, then conversations begin.
const ASK_FIRST_US: u64 = 1_000;
const ASK_INTERVAL_US: u64 = 60;
const BEGIN_FIRST_US: u64 = 100_000;
/// A query without answer is repeated after this.
const LOOKUP_TIMEOUT_US: u64 = 1_000_000;
const LOOKUP_ATTEMPTS: u32 = 4;

/// A DNS query that waits for its answer.
struct Lookup {
    client: Endpoint,
    port: u16,
    server: Endpoint,
    name: String,
    /// What the name stands for.
    address: IpAddr,
    /// What the client does then.
    then: Option<(Endpoint, Script)>,
    attempts: u32,
}

/// A scenario while it runs.
pub(super) struct World {
    network: Network,
    filler: Filler,
    story: Plot,
    connections: Vec<Option<Box<Connection>>>,
    free: Vec<usize>,
    opened: u64,
    lookups: BTreeMap<u64, Lookup>,
    asked: u64,
    pinged: u64,
}

/// What of a story is not in the network.
struct Plot {
    demands: Vec<Demand>,
    moves: Vec<super::cloud::Move>,
    scans: Vec<super::cloud::Scan>,
    floods: Vec<super::cloud::Flood>,
    gateway: NodeIndex,
    last_begin_us: u64,
}

impl World {
    /// Plans everything that does not follow from something else. The network holds the cloud
    /// of the story already.
    pub(super) fn new(mut network: Network, story: Story) -> Self {
        let filler = Filler::new(&mut network.random);
        for vm in 0..network.cloud.vms.len() {
            let at_us = ASK_FIRST_US + vm as u64 * ASK_INTERVAL_US;
            network.schedule(at_us, Action::AskGateway(vm));
        }
        for (place, step) in story.moves.iter().enumerate() {
            network.schedule(step.at_us, Action::Stop(place));
        }
        for (place, scan) in story.scans.iter().enumerate() {
            network.schedule(scan.at_us, Action::Probe(place, 0));
        }
        for (place, flood) in story.floods.iter().enumerate() {
            network.schedule(flood.at_us, Action::Flood(place, flood.packets));
        }
        for (place, demand) in story.demands.iter().enumerate() {
            let wait_us = network.random.below(2 * demand.interval_us);
            network.schedule(BEGIN_FIRST_US + wait_us, Action::Begin(place));
        }
        let story = Plot {
            last_begin_us: story.duration_us - story.duration_us / 20,
            demands: story.demands,
            moves: story.moves,
            scans: story.scans,
            floods: story.floods,
            gateway: story.gateway,
        };
        let (connections, free, lookups) = (Vec::new(), Vec::new(), BTreeMap::new());
        Self { network, filler, story, connections, free, opened: 0, lookups, asked: 0, pinged: 0 }
    }

    /// Runs until nothing is under way.
    pub(super) fn run(mut self) -> io::Result<Network> {
        while let Some(action) = self.network.next() {
            let actor = self.actor(&action);
            match actor.and_then(|node| self.network.paused_until(node)) {
                Some(until_us) => self.network.schedule(until_us, action),
                None => self.happen(action)?,
            }
        }
        Ok(self.network)
    }

    /// The node that acts, if it can be stopped by a migration.
    fn actor(&self, action: &Action) -> Option<NodeIndex> {
        match action {
            Action::Emit(packet) => Some(packet.from.node),
            Action::Tcp(index, side, _) => {
                self.connection(*index).map(|found| found.end(*side).node)
            }
            Action::Unanswered(lookup) => self.lookups.get(lookup).map(|found| found.client.node),
            Action::Probe(scan, _) => self.story.scans.get(*scan).map(|scan| scan.source.node),
            Action::AskGateway(vm) => Some(NodeIndex(*vm)),
            Action::Arrive(_)
            | Action::Begin(_)
            | Action::Stop(_)
            | Action::Resume(_)
            | Action::Flood(..) => None,
        }
    }

    fn happen(&mut self, action: Action) -> io::Result<()> {
        match action {
            Action::Emit(packet) => {
                self.network.emit(packet)?;
                while let Some(loss) = self.network.losses.pop() {
                    self.with_connection(loss.connection, |connection, _, _| connection.lost(loss));
                }
            }
            Action::Arrive(packet) => {
                if let Some(packet) = self.network.arrive(packet)? {
                    self.deliver(&packet);
                }
            }
            Action::Begin(demand) => self.begin(demand),
            Action::Tcp(index, side, timer) => {
                self.with_connection(index, |connection, network, filler| {
                    connection.timer(network, filler, side, timer);
                });
            }
            Action::Unanswered(lookup) => self.ask(lookup),
            Action::AskGateway(vm) => {
                datagram::ask_gateway(&mut self.network, vm, self.story.gateway);
            }
            Action::Stop(place) => self.stop(place),
            Action::Resume(place) => self.resume(place),
            Action::Probe(scan, number) => {
                attack::probe(&mut self.network, &self.story.scans[scan], (scan, number));
            }
            Action::Flood(place, left) => {
                let in_truth = self.story.scans.len() + place;
                let flood = &self.story.floods[place];
                attack::flood(&mut self.network, flood, (place, in_truth), left);
            }
        }
        Ok(())
    }

    /// The node of a packet's destination takes it.
    fn deliver(&mut self, packet: &Packet) {
        let network = &mut self.network;
        match packet.delivery {
            Delivery::Nothing => {}
            Delivery::Tcp(index, side, segment) => {
                self.with_connection(index, |connection, network, filler| {
                    connection.receive(network, filler, side, segment);
                });
            }
            Delivery::Query { lookup, port, id } => {
                if let Some(found) = self.lookups.get(&lookup) {
                    let answer = (found.name.as_str(), found.address);
                    datagram::tell(network, lookup, id, packet.to, (packet.from, port), answer);
                }
            }
            Delivery::Answer { lookup } => {
                let found = self.lookups.remove(&lookup);
                if let Some((client, (server, script))) =
                    found.and_then(|found| Some((found.client, found.then?)))
                {
                    self.open(client, server, script);
                }
            }
            Delivery::Echo { id, sequence, counter } => {
                datagram::pong(network, packet.to, packet.from, id, sequence, counter);
            }
            Delivery::Probe { scan, from_port, to_port, sequence } => {
                attack::answer_probe(network, packet, (scan, sequence), (from_port, to_port));
            }
            Delivery::Caught { scan, from_port, to_port, sequence } => {
                attack::hang_up(network, packet, (scan, sequence), (from_port, to_port));
            }
            Delivery::Flood { from_port, to_port, sequence } => {
                attack::answer_flood(network, packet, sequence, (from_port, to_port));
            }
        }
    }

    /// One conversation of a demand begins, and the next is planned.
    fn begin(&mut self, place: usize) {
        let demand = &self.story.demands[place];
        let random = &mut self.network.random;
        let next_us = self.network.now_us + 1 + random.below(2 * demand.interval_us);
        let (client, server) = (*random.pick(&demand.clients), *random.pick(&demand.servers));
        let asks_first = random.chance(1, 2);
        let script = Script::of(&demand.talk, random);
        let talk = &demand.talk;
        let name = match talk {
            Talk::Https(name) | Talk::Http(_, name) | Talk::Dns(name) => name.clone(),
            Talk::Postgres => "db.internal".to_owned(),
            Talk::Ping => String::new(),
        };
        let is_ping = matches!(talk, Talk::Ping);
        let resolver = demand.resolver.filter(|_| asks_first);
        if next_us < self.story.last_begin_us {
            self.network.schedule(next_us, Action::Begin(place));
        }
        if client.node == server.node || self.network.paused_until(client.node).is_some() {
            return;
        }
        match (script, resolver) {
            (Some(script), Some(resolver)) => {
                let then = Some((server, script));
                self.look_up(client, resolver, name, server.address, then);
            }
            (Some(script), None) => self.open(client, server, script),
            (None, _) if is_ping => {
                self.pinged += 1;
                datagram::ping(&mut self.network, client, server, self.pinged);
            }
            (None, _) => self.look_up(client, server, name, server.address, None),
        }
    }

    fn look_up(
        &mut self,
        client: Endpoint,
        server: Endpoint,
        name: String,
        address: IpAddr,
        then: Option<(Endpoint, Script)>,
    ) {
        let port = self.network.ephemeral_port(client.node);
        self.asked += 1;
        let lookup = Lookup { client, port, server, name, address, then, attempts: 0 };
        self.lookups.insert(self.asked, lookup);
        self.ask(self.asked);
    }

    /// Sends a query, unless it was answered or there were too many.
    fn ask(&mut self, number: u64) {
        let Some(lookup) = self.lookups.get_mut(&number) else { return };
        if lookup.attempts == LOOKUP_ATTEMPTS {
            self.lookups.remove(&number);
            return;
        }
        lookup.attempts += 1;
        let client = (lookup.client, lookup.port);
        datagram::ask(&mut self.network, number, client, lookup.server, &lookup.name);
        let at_us = self.network.now_us + LOOKUP_TIMEOUT_US;
        self.network.schedule(at_us, Action::Unanswered(number));
    }

    fn open(&mut self, client: Endpoint, server: Endpoint, script: Script) {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.connections.push(None);
            self.connections.len() - 1
        });
        self.opened += 1;
        let index = ConnectionIndex(slot, self.opened);
        let connection = Connection::open(&mut self.network, index, client, server, script);
        self.connections[slot] = Some(Box::new(connection));
    }

    fn connection(&self, index: ConnectionIndex) -> Option<&Connection> {
        let found = self.connections.get(index.0)?.as_deref()?;
        (found.index() == index).then_some(found)
    }

    /// Lets a connection act, if it is still there; frees its slot when it is over.
    fn with_connection(
        &mut self,
        index: ConnectionIndex,
        act: impl FnOnce(&mut Connection, &mut Network, &Filler),
    ) {
        let Some(slot) = self.connections.get_mut(index.0) else { return };
        let Some(connection) = slot.as_deref_mut().filter(|found| found.index() == index) else {
            return;
        };
        act(connection, &mut self.network, &self.filler);
        if connection.is_over() {
            *slot = None;
            self.free.push(index.0);
        }
    }

    fn stop(&mut self, place: usize) {
        let step = &self.story.moves[place];
        let until_us = self.network.now_us + step.blackout_us;
        self.network.schedule(until_us, Action::Resume(place));
        self.network.cloud.node(NodeIndex(step.vm)).paused_until_us = Some(until_us);
    }

    /// The VM runs again, on the other host.
    fn resume(&mut self, place: usize) {
        let step = &self.story.moves[place];
        let node = self.network.cloud.node(NodeIndex(step.vm));
        node.paused_until_us = None;
        let Place::Host(from) = node.place else { return };
        let to = 1 - from;
        node.place = Place::Host(to);
        let vm = &self.network.cloud.vms[step.vm];
        self.network.truth.migrations.push(Migration {
            uuid: vm.uuid.clone(),
            name: vm.name.clone(),
            stopped_ns: (START_US + step.at_us) * 1_000,
            time_ns: (START_US + self.network.now_us) * 1_000,
            from: HOSTS[from].name,
            to: HOSTS[to].name,
        });
        datagram::announce(&mut self.network, step.vm);
    }
}
