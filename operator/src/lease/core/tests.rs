//! The core's rules one by one; the model test beside it proves that they hold together.

use super::life::{Sight, Step, step};
use super::schedule::{Plan, Verdict, next_token, schedule};
use super::*;
use crate::frame::names::reason;

fn device(class: &str) -> Device {
    Device {
        uid: String::new(),
        class: class.into(),
        isolation: Isolation::Unit,
        labels: Labels::new(),
        node: None,
        availability: Availability::Usable,
        draining: false,
        holder: None,
        token: None,
    }
}

fn lease(class: &str, count: usize) -> Lease {
    Lease {
        namespace: "vision".into(),
        name: "l".into(),
        queue_ref: None,
        priority: 0,
        created: 100,
        requests: Ok(vec![Request { name: "r".into(), candidates: Candidates::OfClass(class.into()), count }]),
        duration_seconds: 60,
        queue_timeout_seconds: None,
        release: false,
        deleting: false,
        finalizer: true,
        phase: Phase::Queued,
    }
}

fn id(name: &str) -> DeviceId {
    DeviceId { namespace: "lab".into(), name: name.into() }
}

fn uid(name: &str) -> LeaseUid {
    LeaseUid(name.into())
}

fn world(devices: Vec<(&str, Device)>, leases: Vec<(&str, Lease)>) -> World {
    let queue = Queue {
        allowed: Allowed::All,
        device_selector: Labels::new(),
        max_priority: 100,
        max_duration_seconds: 600,
        is_default: true,
    };
    World {
        now_ms: 1_000_000,
        devices: devices.into_iter().map(|(name, device)| (id(name), device)).collect(),
        leases: leases.into_iter().map(|(name, lease)| (uid(name), lease)).collect(),
        queues: BTreeMap::from([(QueueId { namespace: "lab".into(), name: "q".into() }, queue)]),
        namespaces: BTreeMap::from([("vision".into(), Labels::new())]),
    }
}

fn held(class: &str, by: &str) -> Device {
    Device { holder: Some(uid(by)), token: Some(5), ..device(class) }
}

fn granted(class: &str, devices: &[&str]) -> Lease {
    let devices = devices.iter().map(|name| id(name)).collect();
    Lease { phase: Phase::Granted { since: 500, devices }, ..lease(class, 1) }
}

fn given(plan: &Plan) -> Vec<(&str, &str)> {
    plan.assignments.iter().map(|a| (a.device.name.as_str(), a.lease.0.as_str())).collect()
}

fn told<'p>(plan: &'p Plan, lease: &str) -> &'p str {
    match &plan.verdicts[&uid(lease)] {
        Verdict::Refused(refusal) => refusal.reason,
        Verdict::Waits { reason, .. } => reason,
    }
}

#[test]
fn priority_then_age_then_uid() {
    let urgent = Lease { priority: 9, created: 300, ..lease("a", 1) };
    let older = Lease { created: 50, ..lease("a", 1) };
    let leases = vec![("u1", lease("a", 1)), ("u2", lease("a", 1)), ("u3", older), ("u4", urgent)];
    let plan = schedule(&world(vec![("d", device("a"))], leases));
    assert_eq!(given(&plan), [("d", "u4")]);
    let position = |lease: &str| match &plan.verdicts[&uid(lease)] {
        Verdict::Waits { position, .. } => *position,
        Verdict::Refused(_) => -1,
    };
    assert_eq!(["u4", "u3", "u1", "u2"].map(position), [0, 1, 2, 3]);
}

#[test]
fn all_or_nothing_and_no_starvation_by_back_fill() {
    // u1 wants both devices of class a; u2, younger, could use the free one at once, and must not.
    let devices = vec![("d1", held("a", "u0")), ("d2", device("a")), ("d3", device("b"))];
    let leases = vec![
        ("u0", granted("a", &["d1"])),
        ("u1", lease("a", 2)),
        ("u2", Lease { created: 200, ..lease("a", 1) }),
        ("u3", Lease { created: 300, ..lease("b", 1) }),
    ];
    let plan = schedule(&world(devices, leases));
    assert_eq!(given(&plan), [("d3", "u3")]);
    assert_eq!(told(&plan, "u1"), reason::WAITING_FOR_DEVICE);
    assert_eq!(told(&plan, "u2"), reason::WAITING_FOR_DEVICE);
}

#[test]
fn who_cannot_be_served_keeps_nobody_waiting() {
    let held_back = Device { availability: Availability::Held, ..device("a") };
    let leases = vec![("u1", lease("a", 2)), ("u2", lease("a", 3)), ("u3", Lease { created: 200, ..lease("a", 1) })];
    let plan = schedule(&world(vec![("d1", device("a")), ("d2", held_back)], leases));
    assert_eq!(given(&plan), [("d1", "u3")]);
    assert_eq!(told(&plan, "u1"), reason::DEVICE_HELD);
    assert_eq!(told(&plan, "u2"), reason::NO_MATCHING_DEVICE);
}

#[test]
fn isolation_keeps_a_node_for_one_lease_both_ways() {
    let on_node = |device: Device| Device { node: Some("n".into()), ..device };
    let alone = |device: Device| Device { isolation: Isolation::Node, ..on_node(device) };
    let leases = || vec![("u0", granted("a", &["d1"])), ("u1", lease("b", 1))];
    let busy_host = vec![("d1", alone(held("a", "u0"))), ("d2", on_node(device("b")))];
    assert_eq!(given(&schedule(&world(busy_host, leases()))), []);
    let busy_unit = vec![("d1", on_node(held("a", "u0"))), ("d2", alone(device("b")))];
    assert_eq!(given(&schedule(&world(busy_unit, leases()))), []);
    let elsewhere = vec![("d1", alone(held("a", "u0"))), ("d2", Device { node: Some("m".into()), ..device("b") })];
    assert_eq!(given(&schedule(&world(elsewhere, leases()))), [("d2", "u1")]);
    // Both for one lease: it booked them, and nobody else is there.
    let mut both = lease("a", 1);
    both.requests.as_mut().unwrap().push(Request {
        name: "s".into(),
        candidates: Candidates::OfClass("b".into()),
        count: 1,
    });
    let free = vec![("d1", alone(device("a"))), ("d2", on_node(device("b")))];
    assert_eq!(given(&schedule(&world(free, vec![("u1", both)]))), [("d1", "u1"), ("d2", "u1")]);
}

#[test]
fn waiting_for_a_node_alone_is_not_starved_by_its_units() {
    let on_node = |device: Device| Device { node: Some("n".into()), ..device };
    let host = Device { isolation: Isolation::Node, ..on_node(device("a")) };
    let devices = vec![("d1", host), ("d2", on_node(held("b", "u0"))), ("d3", on_node(device("b")))];
    let leases =
        vec![("u0", granted("b", &["d2"])), ("u1", lease("a", 1)), ("u2", Lease { created: 200, ..lease("b", 1) })];
    assert_eq!(given(&schedule(&world(devices, leases))), []);
}

#[test]
fn one_device_fits_two_requests_and_is_the_only_one_for_the_second() {
    let mut both = lease("a", 1);
    both.requests.as_mut().unwrap().push(Request {
        name: "s".into(),
        candidates: Candidates::Named(vec!["d1".into()]),
        count: 1,
    });
    let world = world(vec![("d1", device("a")), ("d2", device("a"))], vec![("u1", both)]);
    assert_eq!(schedule(&world).assignments.len(), 2);
}

#[test]
fn half_served_leases_come_first_and_the_later_of_two_gives_way() {
    // As two operators that led at once would leave it.
    let devices = || vec![("d1", held("a", "u1")), ("d2", held("a", "u2"))];
    let leases = || vec![("u1", Lease { created: 200, ..lease("a", 2) }), ("u2", lease("a", 2))];
    let plan = schedule(&world(devices(), leases()));
    assert_eq!(plan.evictions, [uid("u1")].into());
    // As a kill between two writes would leave it: the urgent one has to wait.
    let urgent = Lease { priority: 50, ..lease("a", 1) };
    let devices = vec![("d1", held("a", "u1")), ("d2", device("a"))];
    let plan = schedule(&world(devices, vec![("u1", lease("a", 2)), ("u2", urgent)]));
    assert_eq!(given(&plan), [("d2", "u1")]);
    assert!(plan.evictions.is_empty());
}

#[test]
fn refusals_name_what_to_change() {
    let refusal = |edit: fn(&mut World, &mut Lease)| {
        let mut world = world(vec![("d1", device("a"))], vec![]);
        let mut lease = lease("a", 1);
        edit(&mut world, &mut lease);
        world.leases.insert(uid("u1"), lease);
        let plan = schedule(&world);
        assert_eq!(given(&plan), []);
        match &plan.verdicts[&uid("u1")] {
            Verdict::Refused(refusal) => (refusal.reason, refusal.message.clone()),
            waits => panic!("{waits:?}"),
        }
    };
    let cases: [(fn(&mut World, &mut Lease), &str, &str); 7] = [
        (|_, l| l.priority = 101, reason::PRIORITY_TOO_HIGH, "above 100"),
        (|_, l| l.duration_seconds = 601, reason::DURATION_TOO_LONG, "above 600"),
        (|_, l| l.requests = Err("requests: r: x".into()), reason::INVALID_SPEC, "requests: r"),
        (
            |_, l| l.queue_ref = Some(QueueId { namespace: "lab".into(), name: "x".into() }),
            reason::QUEUE_NOT_FOUND,
            "lab/x",
        ),
        (
            |w, _| w.queues.values_mut().for_each(|q| q.is_default = false),
            reason::NO_DEFAULT_QUEUE,
            "edgeyard.dev/is-default-queue",
        ),
        (
            |w, _| w.queues.values_mut().for_each(|q| q.allowed = Allowed::Same),
            reason::NAMESPACE_NOT_ALLOWED,
            "namespace vision",
        ),
        (
            |w, _| {
                let selector = Labels::from([("lab".to_owned(), "yes".to_owned())]);
                w.queues.values_mut().for_each(|q| q.allowed = Allowed::Selector(selector.clone()));
            },
            reason::NAMESPACE_NOT_ALLOWED,
            "lab=yes",
        ),
    ];
    for (edit, reason, part) in cases {
        let (given, message) = refusal(edit);
        assert_eq!(given, reason);
        assert!(message.contains(part), "{message}");
    }
}

#[test]
fn tokens_only_grow() {
    assert_eq!(next_token(None, 1000), 1000);
    assert_eq!(next_token(Some(999), 1000), 1000);
    assert_eq!(next_token(Some(1000), 1000), 1001);
    assert_eq!(next_token(Some(5000), 1000), 5001, "a clock that was set back");
}

fn next(lease: &Lease, held: &[(&str, Device)], now: i64, max: Option<i64>) -> Step {
    let ids: Vec<_> = held.iter().map(|(name, _)| id(name)).collect();
    let held = ids.iter().zip(held).map(|(id, (_, device))| (id, device)).collect();
    step(&Sight { lease, held, verdict: None, evicted: false, max_duration_seconds: max, now })
}

fn ending(step: Step) -> &'static str {
    match step {
        Step::End(ending) => ending.reason,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_granted_lease_ends_in_time_and_no_earlier() {
    let lease = granted("a", &["d1"]);
    let has = [("d1", held("a", "u1"))];
    assert_eq!(next(&lease, &has, 559, None), Step::Hold { expires: 560 });
    assert_eq!(ending(next(&lease, &has, 560, None)), reason::LEASE_EXPIRED);
    let extended = Lease { duration_seconds: 5000, ..lease.clone() };
    assert_eq!(next(&extended, &has, 560, Some(600)), Step::Hold { expires: 1100 }, "the queue's maximum holds");
    assert_eq!(ending(next(&lease, &[], 501, None)), reason::DEVICE_LOST);
    let draining = [("d1", Device { draining: true, ..held("a", "u1") })];
    assert_eq!(ending(next(&lease, &draining, 501, None)), reason::DRAINED);
    assert_eq!(ending(next(&Lease { release: true, ..lease }, &has, 501, None)), reason::RELEASED);
}

#[test]
fn a_waiting_lease_is_granted_when_all_is_there() {
    let two = lease("a", 2);
    assert_eq!(next(&two, &[("d1", held("a", "u1"))], 101, None), Step::Wait(None));
    let Step::Grant(places) = next(&two, &[("d1", held("a", "u1")), ("d2", held("a", "u1"))], 101, None) else {
        panic!("not granted");
    };
    let places: Vec<_> = places.iter().map(|p| (p.device.name.as_str(), p.index, p.token)).collect();
    assert_eq!(places, [("d1", 0, 5), ("d2", 1, 5)]);
    assert_eq!(next(&Lease { finalizer: false, ..lease("a", 1) }, &[], 101, None), Step::Protect);
    let patient = Lease { queue_timeout_seconds: Some(30), ..lease("a", 1) };
    assert_eq!(next(&patient, &[], 129, None), Step::Wait(None));
    assert_eq!(ending(next(&patient, &[], 130, None)), reason::QUEUE_TIMEOUT);
}

#[test]
fn an_ended_lease_gives_back_and_only_then_goes() {
    let ended = Lease { phase: Phase::Ended, ..lease("a", 1) };
    let has = [("d1", held("a", "u1"))];
    assert_eq!(next(&ended, &has, 0, None), Step::GiveBack(vec![id("d1")]));
    assert_eq!(next(&ended, &[], 0, None), Step::Rest);
    let in_use = Lease { deleting: true, ..granted("a", &["d1"]) };
    assert_eq!(ending(next(&in_use, &has, 0, None)), reason::RELEASED, "people see why it still has a device");
    let deleted = Lease { deleting: true, ..ended };
    assert_eq!(next(&deleted, &has, 0, None), Step::GiveBack(vec![id("d1")]));
    assert_eq!(next(&deleted, &[], 0, None), Step::Forget);
    assert_eq!(next(&Lease { finalizer: false, ..deleted }, &[], 0, None), Step::Rest);
}
