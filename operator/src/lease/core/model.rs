//! The core against a model of the API server: ten thousand random histories of users, clocks, failing devices, late
//! watches, and operators that are killed between any two writes. The truth is what compare-and-swap lets through.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::life::{Ending, Sight, Step, step};
use super::schedule::{disturb, schedule};
use super::*;

const HISTORIES: u64 = 10_000;
const EVENTS: usize = 80;
const WAITING: &str = crate::frame::names::reason::WAITING_FOR_DEVICE;

/// xorshift64*: the same histories on every machine.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() >> 33) as usize % n
    }

    fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    fn pick<T: Clone>(&mut self, from: &[T]) -> Option<T> {
        if from.is_empty() { None } else { Some(from[self.below(from.len())].clone()) }
    }
}

#[derive(Clone)]
struct Versioned<T> {
    version: u64,
    value: T,
}

/// The API server.
struct Truth {
    clock: u64,
    now_ms: i64,
    devices: BTreeMap<DeviceId, Versioned<Device>>,
    leases: BTreeMap<LeaseUid, Versioned<Lease>>,
    queues: BTreeMap<QueueId, Queue>,
    namespaces: BTreeMap<String, Labels>,
    /// The highest token seen of each device name.
    tokens: BTreeMap<DeviceId, i64>,
    /// Devices that were deleted under a lease.
    lost: BTreeSet<(LeaseUid, DeviceId)>,
    /// Leases that were granted at some time.
    served: BTreeSet<LeaseUid>,
    /// Leases ended because two blocked each other.
    evicted: usize,
    granted: usize,
}

/// One write of the operator's, and what it is based on.
#[derive(Clone)]
enum Write {
    Assign { device: DeviceId, version: u64, lease: LeaseUid, token: i64 },
    Free { device: DeviceId, version: u64, holder: LeaseUid },
    Phase { lease: LeaseUid, version: u64, phase: Phase },
    Protect { lease: LeaseUid, version: u64 },
    Forget { lease: LeaseUid, version: u64 },
}

/// One operator: what it believes, and what it is about to write.
#[derive(Default)]
struct Operator {
    devices: BTreeMap<DeviceId, Versioned<Device>>,
    leases: BTreeMap<LeaseUid, Versioned<Lease>>,
    writes: VecDeque<Write>,
    evictions: BTreeSet<LeaseUid>,
    verdicts: BTreeMap<LeaseUid, schedule::Verdict>,
}

impl Truth {
    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    fn edit_device(&mut self, id: &DeviceId, edit: impl FnOnce(&mut Device)) {
        let version = self.tick();
        if let Some(device) = self.devices.get_mut(id) {
            edit(&mut device.value);
            device.version = version;
        }
    }

    fn edit_lease(&mut self, uid: &LeaseUid, edit: impl FnOnce(&mut Lease)) {
        let version = self.tick();
        if let Some(lease) = self.leases.get_mut(uid) {
            edit(&mut lease.value);
            lease.version = version;
            // As the API server does when the last finalizer goes.
            if lease.value.deleting && !lease.value.finalizer {
                self.leases.remove(uid);
            }
        }
    }

    /// Compare-and-swap. Gives whether it went through.
    fn write(&mut self, write: &Write) -> bool {
        match write {
            Write::Assign { device, version, lease, token } => {
                if self.devices.get(device).is_none_or(|d| d.version != *version) {
                    return false;
                }
                let highest = self.tokens.entry(device.clone()).or_default();
                assert!(*token > *highest, "token {token} of {device} after {highest}");
                *highest = *token;
                self.edit_device(device, |d| {
                    assert!(d.holder.is_none(), "a holder was replaced");
                    d.holder = Some(lease.clone());
                    d.token = Some(*token);
                });
            }
            Write::Free { device, version, holder } => {
                // The question to the API server that comes before this write: has the holder ended for good?
                if self.leases.get(holder).is_some_and(|lease| !lease.value.has_ended()) {
                    return false;
                }
                if self.devices.get(device).is_none_or(|d| d.version != *version) {
                    return false;
                }
                self.edit_device(device, |d| d.holder = None);
            }
            Write::Phase { lease, version, phase } => {
                if self.leases.get(lease).is_none_or(|l| l.version != *version) {
                    return false;
                }
                if let Phase::Granted { .. } = phase {
                    self.served.insert(lease.clone());
                    self.granted += 1;
                }
                self.edit_lease(lease, |l| {
                    assert_ne!(l.phase, Phase::Ended, "an ended lease came back");
                    l.phase = phase.clone();
                });
            }
            Write::Protect { lease, version } | Write::Forget { lease, version } => {
                if self.leases.get(lease).is_none_or(|l| l.version != *version) {
                    return false;
                }
                self.edit_lease(lease, |l| l.finalizer = matches!(write, Write::Protect { .. }));
            }
        }
        true
    }

    fn check(&self, isolation_too: bool) {
        let mut holders: BTreeMap<&DeviceId, &LeaseUid> = BTreeMap::new();
        for (uid, lease) in &self.leases {
            let Phase::Granted { devices, .. } = &lease.value.phase else { continue };
            if lease.value.has_ended() {
                continue;
            }
            for id in devices.iter().filter(|id| !self.lost.contains(&(uid.clone(), (*id).clone()))) {
                assert_eq!(self.devices[id].value.holder.as_ref(), Some(uid), "{id} left a granted lease");
                assert_eq!(holders.insert(id, uid), None, "{id} has two holders");
            }
        }
        if isolation_too {
            let held: Vec<_> = self.devices.iter().filter(|(_, d)| d.value.holder.is_some()).collect();
            for (at, (one_id, one)) in held.iter().enumerate() {
                for (other_id, other) in &held[at + 1..] {
                    let apart = one.value.holder == other.value.holder || !disturb(&one.value, &other.value);
                    assert!(apart, "{one_id} and {other_id} share a node that one of them needs alone");
                }
            }
        }
    }
}

impl Operator {
    fn fresh(truth: &Truth) -> Self {
        Self { devices: truth.devices.clone(), leases: truth.leases.clone(), ..Self::default() }
    }

    /// The watches bring some of what changed.
    fn catch_up(&mut self, truth: &Truth, random: &mut Random, percent: usize) {
        for (id, device) in &truth.devices {
            if random.chance(percent) {
                self.devices.insert(id.clone(), device.clone());
            }
        }
        for (uid, lease) in &truth.leases {
            if random.chance(percent) {
                self.leases.insert(uid.clone(), lease.clone());
            }
        }
        self.leases.retain(|uid, _| truth.leases.contains_key(uid) || !random.chance(percent));
        self.devices.retain(|id, _| truth.devices.contains_key(id) || !random.chance(percent));
    }

    fn world(&self, truth: &Truth) -> World {
        World {
            now_ms: truth.now_ms,
            devices: self.devices.iter().map(|(id, d)| (id.clone(), d.value.clone())).collect(),
            leases: self.leases.iter().map(|(uid, l)| (uid.clone(), l.value.clone())).collect(),
            queues: truth.queues.clone(),
            namespaces: truth.namespaces.clone(),
        }
    }

    fn run_scheduler(&mut self, truth: &Truth) {
        // One serialised loop: a pass begins when the writes of the one before are through.
        if self.writes.iter().any(|write| matches!(write, Write::Assign { .. })) {
            return;
        }
        let plan = schedule(&self.world(truth));
        self.verdicts = plan.verdicts;
        self.evictions = plan.evictions;
        for assignment in plan.assignments {
            let version = self.devices[&assignment.device].version;
            let super::schedule::Assignment { device, lease, token } = assignment;
            self.writes.push_back(Write::Assign { device, version, lease, token });
        }
    }

    fn step_lease(&mut self, truth: &Truth, world: &World, uid: &LeaseUid) {
        let Some(Versioned { version, value: lease }) = self.leases.get(uid).cloned() else { return };
        let sight = Sight {
            lease: &lease,
            held: world.held_by(uid),
            verdict: self.verdicts.get(uid),
            evicted: self.evictions.contains(uid),
            max_duration_seconds: None,
            now: truth.now_ms / 1000,
        };
        let lease = uid.clone();
        match step(&sight) {
            Step::Protect => self.writes.push_back(Write::Protect { lease, version }),
            Step::Grant(places) => {
                let devices = places.into_iter().map(|place| place.device).collect();
                let phase = Phase::Granted { since: sight.now, devices };
                self.writes.push_back(Write::Phase { lease, version, phase });
            }
            Step::End(Ending { .. }) => self.writes.push_back(Write::Phase { lease, version, phase: Phase::Ended }),
            Step::GiveBack(devices) => {
                for device in devices {
                    let version = self.devices[&device].version;
                    self.writes.push_back(Write::Free { device, version, holder: lease.clone() });
                }
            }
            Step::Forget => self.writes.push_back(Write::Forget { lease, version }),
            Step::Wait(_) | Step::Hold { .. } | Step::Rest => {}
        }
    }

    /// Devices whose holder is not to be seen.
    fn heal(&mut self, id: &DeviceId) {
        if let Some(Versioned { version, value }) = self.devices.get(id)
            && let Some(holder) = &value.holder
            && !self.leases.contains_key(holder)
        {
            self.writes.push_back(Write::Free { device: id.clone(), version: *version, holder: holder.clone() });
        }
    }

    /// One write; what went through is known at once, as the answer carries the object.
    fn write_one(&mut self, truth: &mut Truth) -> bool {
        let Some(write) = self.writes.pop_front() else { return false };
        if let Write::Phase { lease, phase: Phase::Ended, .. } = &write
            && self.evictions.contains(lease)
            && matches!(self.verdicts.get(lease), Some(schedule::Verdict::Waits { reason, .. }) if *reason == WAITING)
        {
            truth.evicted += 1;
        }
        let written = truth.write(&write);
        if written {
            match &write {
                Write::Assign { device, .. } | Write::Free { device, .. } => {
                    self.devices.insert(device.clone(), truth.devices[device].clone());
                }
                Write::Phase { lease, .. } | Write::Protect { lease, .. } | Write::Forget { lease, .. } => {
                    match truth.leases.get(lease) {
                        Some(stored) => self.leases.insert(lease.clone(), stored.clone()),
                        None => self.leases.remove(lease),
                    };
                }
            }
        }
        written
    }
}

fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn lab(random: &mut Random) -> Truth {
    let lab = |name: &str| QueueId { namespace: "lab".into(), name: name.into() };
    let queue = |allowed, device_selector, is_default| Queue {
        allowed,
        device_selector,
        max_priority: 100,
        max_duration_seconds: 500,
        is_default,
    };
    let mut truth = Truth {
        clock: 0,
        now_ms: 1_790_000_000_000,
        devices: BTreeMap::new(),
        leases: BTreeMap::new(),
        queues: BTreeMap::from([
            (lab("all"), queue(Allowed::All, Labels::new(), true)),
            (lab("chosen"), queue(Allowed::Selector(labels(&[("lab", "yes")])), labels(&[("site", "x")]), false)),
        ]),
        namespaces: BTreeMap::from([("in".into(), labels(&[("lab", "yes")])), ("out".into(), Labels::new())]),
        tokens: BTreeMap::new(),
        lost: BTreeSet::new(),
        served: BTreeSet::new(),
        evicted: 0,
        granted: 0,
    };
    for at in 0..1 + random.below(5) {
        let id = DeviceId { namespace: "lab".into(), name: format!("d{at}") };
        let version = truth.tick();
        let device = new_device(random);
        truth.devices.insert(id, Versioned { version, value: device });
    }
    truth
}

fn new_device(random: &mut Random) -> Device {
    Device {
        uid: String::new(),
        class: if random.chance(60) { "a".into() } else { "b".into() },
        isolation: if random.chance(30) { Isolation::Node } else { Isolation::Unit },
        labels: if random.chance(50) { labels(&[("site", "x")]) } else { Labels::new() },
        node: random.pick(&[None, Some("n0".into()), Some("n1".into())]).flatten(),
        availability: Availability::Usable,
        draining: false,
        holder: None,
        token: None,
    }
}

fn new_lease(random: &mut Random, truth: &Truth) -> Lease {
    let request = |random: &mut Random, name: &str| {
        let candidates = match random.below(4) {
            0 => Candidates::OfClass("a".into()),
            1 => Candidates::OfClass("b".into()),
            2 => Candidates::Labelled(labels(&[("site", "x")])),
            _ => Candidates::Named((0..5).filter(|_| random.chance(50)).map(|at| format!("d{at}")).collect()),
        };
        Request { name: name.into(), candidates, count: 1 + random.below(2) }
    };
    let mut requests = vec![request(random, "one")];
    if random.chance(40) {
        requests.push(request(random, "two"));
    }
    let queue = random.pick(&[None, None, Some("all"), Some("all"), Some("chosen"), Some("missing")]).flatten();
    Lease {
        namespace: if random.chance(70) { "in".into() } else { "out".into() },
        name: "l".into(),
        queue_ref: queue.map(|name| QueueId { namespace: "lab".into(), name: name.into() }),
        priority: random.pick(&[0, 0, 0, 0, 50, 50, 100, 101]).unwrap_or(0),
        created: truth.now_ms / 1000,
        requests: Ok(requests),
        duration_seconds: 1 + random.below(200) as i64,
        queue_timeout_seconds: if random.chance(25) { Some(1 + random.below(300) as i64) } else { None },
        release: false,
        deleting: false,
        finalizer: false,
        phase: Phase::Queued,
    }
}

/// What users, nodes and time do.
fn outside(random: &mut Random, truth: &mut Truth, serial: &mut usize) {
    let leases: Vec<_> = truth.leases.keys().cloned().collect();
    let devices: Vec<_> = truth.devices.keys().cloned().collect();
    match random.below(10) {
        0..=3 if leases.len() < 8 => {
            *serial += 1;
            let lease = new_lease(random, truth);
            let version = truth.tick();
            truth.leases.insert(LeaseUid(format!("u{serial:03}")), Versioned { version, value: lease });
        }
        4 => truth.now_ms += random.pick(&[0, 1, 1000, 60_000, 250_000]).unwrap_or(0),
        5 => {
            if let Some(uid) = random.pick(&leases) {
                let deleted = random.chance(50);
                truth.edit_lease(&uid, |lease| if deleted { lease.deleting = true } else { lease.release = true });
            }
        }
        6 => {
            if let Some(uid) = random.pick(&leases) {
                let priority = random.pick(&[0, 10, 100, 101]).unwrap_or(0);
                truth.edit_lease(&uid, |lease| lease.priority = priority);
            }
        }
        7 => {
            if let Some(id) = random.pick(&devices) {
                let to = random.pick(&[Availability::Usable, Availability::Held, Availability::Offline]);
                let drains = random.chance(30);
                truth.edit_device(&id, |device| {
                    device.availability = to.unwrap_or(Availability::Usable);
                    device.draining = device.availability == Availability::Held && drains;
                });
            }
        }
        8 if random.chance(20) => {
            // Deleted and made again under the same name: its status is gone, and time has passed.
            if let Some(id) = random.pick(&devices) {
                truth.lost.extend(truth.devices[&id].value.holder.clone().map(|holder| (holder, id.clone())));
                for (uid, lease) in &truth.leases {
                    if matches!(&lease.value.phase, Phase::Granted { devices, .. } if devices.contains(&id)) {
                        truth.lost.insert((uid.clone(), id.clone()));
                    }
                }
                truth.now_ms += 1000;
                let version = truth.tick();
                truth.devices.insert(id, Versioned { version, value: new_device(random) });
            }
        }
        9 if random.chance(10) => {
            // Somebody takes the finalizer away by hand.
            if let Some(uid) = random.pick(&leases) {
                truth.edit_lease(&uid, |lease| (lease.deleting, lease.finalizer) = (true, false));
            }
        }
        _ => {}
    }
}

/// From now on nothing fails and nobody interferes; whoever can be served must be.
fn settle(truth: &mut Truth, isolation_too: bool) {
    for id in truth.devices.keys().cloned().collect::<Vec<_>>() {
        truth.edit_device(&id, |device| (device.availability, device.draining) = (Availability::Usable, false));
    }
    for uid in truth.leases.keys().cloned().collect::<Vec<_>>() {
        truth.edit_lease(&uid, |lease| lease.queue_timeout_seconds = None);
    }
    let mut idle = 0;
    // At most eight leases live, and each ends within 200 s: they are through, one after the other, before 30 idle
    // rounds of 100 s.
    while idle < 30 {
        let mut operator = Operator::fresh(truth);
        operator.run_scheduler(truth);
        let world = operator.world(truth);
        for uid in world.leases.keys() {
            operator.step_lease(truth, &world, uid);
        }
        for id in truth.devices.keys().cloned().collect::<Vec<_>>() {
            operator.heal(&id);
        }
        let mut wrote = false;
        while !operator.writes.is_empty() {
            wrote |= operator.write_one(truth);
            truth.check(isolation_too);
        }
        if !wrote {
            idle += 1;
            truth.now_ms += 100_000;
        }
    }
    let world = Operator::fresh(truth).world(truth);
    let plan = schedule(&world);
    for (uid, lease) in &world.leases {
        assert!(lease.has_ended() || lease.phase == Phase::Queued, "{uid} did not expire");
        if lease.phase == Phase::Queued && !lease.has_ended() {
            let verdict = &plan.verdicts[uid];
            let hopeless = match verdict {
                schedule::Verdict::Refused(_) => true,
                schedule::Verdict::Waits { reason, .. } => *reason == crate::frame::names::reason::NO_MATCHING_DEVICE,
            };
            assert!(hopeless, "{uid} was lost: {verdict:?} {lease:?}");
            assert!(plan.assignments.is_empty());
        }
    }
    // What is held is held by somebody who waits for devices that no longer exist.
    for (id, device) in &world.devices {
        if let Some(holder) = &device.holder {
            assert!(
                world.leases.get(holder).is_some_and(|lease| !lease.has_ended()),
                "{id} is kept by a dead {holder}"
            );
        }
    }
}

struct Totals {
    granted: usize,
    kills: usize,
    conflicts: usize,
    evicted: usize,
}

fn history(seed: u64, operators: usize, totals: &mut Totals) {
    let mut random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
    let mut truth = lab(&mut random);
    let mut team: Vec<Operator> = (0..operators).map(|_| Operator::fresh(&truth)).collect();
    let mut serial = 0;
    let alone = operators == 1;
    for _ in 0..EVENTS {
        let at = random.below(team.len());
        match random.below(12) {
            0..=2 => outside(&mut random, &mut truth, &mut serial),
            3 | 4 => team[at].catch_up(&truth, &mut random, 70),
            5 => team[at].run_scheduler(&truth),
            6 | 7 => {
                let world = team[at].world(&truth);
                for uid in world.leases.keys() {
                    if random.chance(60) {
                        team[at].step_lease(&truth, &world, uid);
                    }
                }
            }
            8 => {
                let seen: Vec<_> = team[at].devices.keys().cloned().collect();
                if let Some(id) = random.pick(&seen) {
                    team[at].heal(&id);
                }
            }
            9 | 10 => {
                for _ in 0..1 + random.below(6) {
                    let pending = !team[at].writes.is_empty();
                    let written = team[at].write_one(&mut truth);
                    totals.conflicts += usize::from(pending && !written);
                    truth.check(alone);
                }
            }
            _ => {
                // Killed between two writes; the next one starts with a fresh list.
                totals.kills += usize::from(!team[at].writes.is_empty());
                team[at] = Operator::fresh(&truth);
            }
        }
        truth.check(alone);
    }
    if alone {
        assert_eq!(truth.evicted, 0, "two leases never block each other under one operator");
    }
    settle(&mut truth, alone);
    totals.granted += truth.granted;
    totals.evicted += truth.evicted;
}

fn histories(operators: usize) -> Totals {
    let mut totals = Totals { granted: 0, kills: 0, conflicts: 0, evicted: 0 };
    for seed in 1..=HISTORIES {
        let run = std::panic::AssertUnwindSafe(|| history(seed, operators, &mut totals));
        if let Err(cause) = std::panic::catch_unwind(run) {
            eprintln!("history {seed} of {operators} operators broke a promise");
            std::panic::resume_unwind(cause);
        }
    }
    let Totals { granted, kills, conflicts, evicted } = totals;
    println!("{granted} grants, {kills} kills between writes, {conflicts} conflicts, {evicted} ended for another");
    totals
}

#[test]
fn one_operator_killed_at_any_point() {
    let totals = histories(1);
    // The test would prove nothing if the histories were empty.
    assert!(totals.granted > 10_000 && totals.kills > 1_000 && totals.conflicts > 1_000);
}

#[test]
fn two_operators_that_both_believe_to_lead() {
    let totals = histories(2);
    assert!(totals.granted > 10_000 && totals.kills > 1_000 && totals.conflicts > 1_000);
}
