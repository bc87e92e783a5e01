//! A simulated host whose truth is known: services of several kinds call each other under load; the correlator sees what
//! the kernel would show, and is judged by how many of the parents that it claims are right, and how many it finds.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};

use super::play::{Player, Variant, begin, thread};
use crate::correlate::{Config, Infer};
use crate::model::{Confidence, Language, Nanos, Role, Runs, Stamp, Task, Unit, Value};

/// How a service runs its requests.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Kind {
    /// A thread for each connection.
    Threads,
    /// One thread reads, workers take requests from a queue.
    Pool(u32),
    /// A goroutine for each connection, a pooled client.
    Go,
    /// Tasks that run on whichever of some threads is free (work stealing; virtual threads on carriers).
    Stealing(u32),
    /// One thread for everything. `fresh`: opens a connection for each call, and writes when it is open.
    /// `batch`: goes on with a request only after all that was ready has been read (asyncio).
    Loop { fresh: bool, batch: bool },
}

#[derive(Clone, Debug)]
enum Step {
    /// Sleep, or a timer: microseconds.
    Wait(u64),
    /// Calls that are made together; the request goes on when all are answered.
    Call(Vec<usize>),
}

struct Service {
    kind: Kind,
    /// Each request runs one of these, then answers.
    plans: Vec<Vec<Step>>,
    queue: VecDeque<usize>,
    idle_workers: Vec<u32>,
    /// The loop: what is ready, and until when it is busy.
    ready: VecDeque<Event>,
    running: bool,
    free_conns: HashMap<usize, Vec<u32>>,
}

struct Request {
    service: usize,
    /// The exchange at this end.
    id: u64,
    call: usize,
    plan: usize,
    step: usize,
    unit: Unit,
    waiting: usize,
}

struct Call {
    from: Option<usize>,
    client: usize,
    to: usize,
    id: u64,
    conn: u32,
    nth: u32,
    reader: Unit,
    /// When the sender's system call returned.
    written: Nanos,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Event {
    Arrive(usize),
    Continue(usize),
    Connected(usize),
    Reply(usize),
    Turn(usize),
    Load(u32),
}

enum Seen {
    Begin(Role, u32, u32),
    Done,
}

struct Sim {
    config: Config,
    rng: fastrand::Rng,
    now: Nanos,
    agenda: BinaryHeap<Reverse<(Nanos, u64, Event)>>,
    order: u64,
    services: Vec<Service>,
    requests: Vec<Request>,
    calls: Vec<Call>,
    conns: u32,
    conn_uses: HashMap<u32, u32>,
    goroutines: u64,
    ids: u64,
    to_send: usize,
    seen: Vec<(Nanos, u64, u64, Unit, Seen)>,
    /// Exchange to the exchange that caused it.
    truth: HashMap<u64, u64>,
}

/// The load generator calls this service.
const FRONT: usize = 0;
/// Stands for the load generator as a service.
const LOAD: usize = usize::MAX;

impl Sim {
    fn new(seed: u64, services: Vec<(Kind, Vec<Vec<Step>>)>) -> Self {
        let services = services
            .into_iter()
            .map(|(kind, plans)| Service {
                kind,
                plans,
                queue: VecDeque::new(),
                idle_workers: match kind {
                    Kind::Pool(n) => (100..100 + n).collect(),
                    _ => Vec::new(),
                },
                ready: VecDeque::new(),
                running: false,
                free_conns: HashMap::new(),
            })
            .collect();
        Self {
            config: Config::default(),
            rng: fastrand::Rng::with_seed(seed),
            now: 1_000_000,
            agenda: BinaryHeap::new(),
            order: 0,
            services,
            requests: Vec::new(),
            calls: Vec::new(),
            conns: 0,
            conn_uses: HashMap::new(),
            goroutines: 1000,
            ids: 0,
            to_send: 0,
            seen: Vec::new(),
            truth: HashMap::new(),
        }
    }

    fn at(&mut self, delay: Nanos, event: Event) {
        self.order += 1;
        self.agenda.push(Reverse((self.now + delay, self.order, event)));
    }

    fn micros(&mut self, range: std::ops::Range<u64>) -> Nanos {
        self.rng.u64(range) * 1000
    }

    fn see(&mut self, ts: Nanos, id: u64, unit: Unit, seen: Seen) {
        self.order += 1;
        self.seen.push((ts, self.order, id, unit, seen));
    }

    fn id(&mut self) -> u64 {
        self.ids += 1;
        self.ids
    }

    fn tgid(service: usize) -> u32 {
        if service == LOAD { 1 } else { 10 + service as u32 }
    }

    fn new_conn(&mut self) -> u32 {
        self.conns += 1;
        self.conns
    }

    fn run(&mut self, concurrency: u32, requests: usize) {
        self.to_send = requests;
        for worker in 0..concurrency {
            let delay = self.micros(0..3000);
            self.at(delay, Event::Load(worker));
        }
        while let Some(Reverse((now, _, event))) = self.agenda.pop() {
            self.now = now;
            self.happen(event);
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Load(worker) => {
                if self.to_send > 0 {
                    self.to_send -= 1;
                    let unit = thread(1, 1 + worker);
                    self.call(None, LOAD, FRONT, unit, unit);
                }
            }
            Event::Turn(service) => self.turn(service),
            Event::Arrive(call) => self.dispatch(self.calls[call].to, event),
            Event::Continue(request) => self.dispatch(self.requests[request].service, event),
            Event::Reply(call) if self.now <= self.calls[call].written => {
                let delay = self.calls[call].written + 1000 - self.now;
                self.at(delay, event);
            }
            Event::Connected(call) | Event::Reply(call) => self.dispatch(self.calls[call].client, event),
        }
    }

    /// Loops run what is ready one after the other; others at once.
    fn dispatch(&mut self, service: usize, event: Event) {
        let is_loop = service != LOAD && matches!(self.services[service].kind, Kind::Loop { .. });
        if !is_loop {
            self.handle(event);
            return;
        }
        self.services[service].ready.push_back(event);
        if !std::mem::replace(&mut self.services[service].running, true) {
            self.at(0, Event::Turn(service));
        }
    }

    fn turn(&mut self, service: usize) {
        let Some(event) = self.services[service].ready.pop_front() else {
            self.services[service].running = false;
            return;
        };
        let from = self.now;
        self.handle(event);
        let busy = self.now - from + self.micros(5..40);
        self.now = from;
        self.at(busy, Event::Turn(service));
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Arrive(call) => self.arrive(call),
            Event::Continue(request) => self.proceed(request),
            Event::Connected(call) => self.write(call, thread(Self::tgid(self.calls[call].client), 1)),
            Event::Reply(call) => self.reply(call),
            Event::Turn(_) | Event::Load(_) => {}
        }
    }

    fn arrive(&mut self, call: usize) {
        let (service, conn, nth) = (self.calls[call].to, self.calls[call].conn, self.calls[call].nth);
        let (tgid, kind) = (Self::tgid(service), self.services[service].kind);
        let unit = match kind {
            Kind::Threads => thread(tgid, 1000 + conn),
            Kind::Pool(_) | Kind::Loop { .. } => thread(tgid, 1),
            Kind::Stealing(n) => thread(tgid, self.rng.u32(1..=n)),
            Kind::Go => goroutine(thread(tgid, self.rng.u32(1..5)), 100 + u64::from(conn), 7, 0),
        };
        let id = self.id();
        let plan = self.rng.usize(..self.services[service].plans.len());
        self.truth.insert(id, self.calls[call].id);
        self.see(self.now, id, unit, Seen::Begin(Role::Server, conn, nth));
        self.requests.push(Request {
            service,
            id,
            call,
            plan,
            step: 0,
            unit,
            waiting: 0,
        });
        let request = self.requests.len() - 1;
        if let Kind::Pool(_) = kind {
            self.services[service].queue.push_back(request);
            self.take_queued(service);
        } else if let Kind::Loop { batch, .. } = kind {
            self.proceed_in_loop(request, batch);
        } else {
            let delay = self.micros(1..20);
            self.at(delay, Event::Continue(request));
        }
    }

    fn proceed_in_loop(&mut self, request: usize, batch: bool) {
        if batch {
            let service = self.requests[request].service;
            self.services[service].ready.push_back(Event::Continue(request));
        } else {
            self.proceed(request);
        }
    }

    fn take_queued(&mut self, service: usize) {
        if self.services[service].queue.is_empty() {
            return;
        }
        let Some(worker) = self.services[service].idle_workers.pop() else {
            return;
        };
        let request = self.services[service].queue.pop_front().unwrap();
        self.requests[request].unit = thread(Self::tgid(service), worker);
        let delay = self.micros(1..30);
        self.at(delay, Event::Continue(request));
    }

    fn proceed(&mut self, request: usize) {
        let Request {
            service, plan, step, ..
        } = self.requests[request];
        let next = self.services[service].plans[plan].get(step).cloned();
        self.requests[request].step += 1;
        match next {
            Some(Step::Wait(micros)) => {
                let delay = self.micros(micros / 2..micros + 1);
                self.at(delay, Event::Continue(request));
            }
            Some(Step::Call(targets)) => {
                self.requests[request].waiting = targets.len();
                for to in &targets {
                    self.start_call(request, *to, targets.len() > 1);
                }
            }
            None => {
                let Request { id, call, unit, .. } = self.requests[request];
                if matches!(self.services[service].kind, Kind::Loop { .. }) {
                    self.now += self.rng.u64(1..9) * 1000;
                }
                let unit = self.elsewhere(service, unit);
                self.see(self.now, id, unit, Seen::Done);
                let delay = self.micros(3..40);
                self.at(delay, Event::Reply(call));
                if let Kind::Pool(_) = self.services[service].kind {
                    self.services[service].idle_workers.push(unit.tid);
                    self.take_queued(service);
                }
            }
        }
    }

    /// Goroutines and tasks move between threads.
    fn elsewhere(&mut self, service: usize, unit: Unit) -> Unit {
        if service == LOAD {
            return unit;
        }
        let tid = match self.services[service].kind {
            Kind::Go => self.rng.u32(1..5),
            Kind::Stealing(n) => self.rng.u32(1..=n),
            Kind::Threads | Kind::Pool(_) | Kind::Loop { .. } => return unit,
        };
        Unit { tid, ..unit }
    }

    fn start_call(&mut self, request: usize, to: usize, together: bool) {
        let Request { service, unit, .. } = self.requests[request];
        let kind = self.services[service].kind;
        let own = self.elsewhere(service, unit);
        if kind != Kind::Go {
            self.call(Some(request), service, to, own, own);
            return;
        }
        self.goroutines += 1;
        let caller = match together {
            true => (self.goroutines, own.task().id),
            false => (own.task().id, own.task().creator),
        };
        let pooled = self.rng.bool();
        let writer = match pooled {
            // Who writes is filled in when the connection is known.
            true => goroutine(own, 0, caller.1, caller.0),
            false => goroutine(own, caller.0, caller.1, 0),
        };
        let reader = match pooled {
            true => goroutine(own, 0, own.task().creator, 0),
            false => writer,
        };
        self.call(Some(request), service, to, writer, reader);
    }

    fn call(&mut self, from: Option<usize>, client: usize, to: usize, mut unit: Unit, mut reader: Unit) {
        let fresh = client != LOAD && matches!(self.services[client].kind, Kind::Loop { fresh: true, .. });
        let free = match client {
            LOAD => None,
            _ => self.services[client].free_conns.entry(to).or_default().pop(),
        };
        let conn = match (client, free) {
            (LOAD, _) => 1_000_000 + unit.tid,
            (_, Some(conn)) if !fresh => conn,
            _ => self.new_conn(),
        };
        let uses = self.conn_uses.entry(conn).or_default();
        *uses += 1;
        let nth = *uses;
        let Task {
            creator, awaiters, ..
        } = unit.task();
        if awaiters[0] != 0 {
            unit = goroutine(unit, 500_000 + u64::from(conn) * 2, creator, awaiters[0]);
            reader = goroutine(reader, 500_001 + u64::from(conn) * 2, 3, 0);
        }
        let id = self.id();
        if let Some(request) = from {
            self.truth.insert(id, self.requests[request].id);
        }
        self.calls.push(Call {
            from,
            client,
            to,
            id,
            conn,
            nth,
            reader,
            written: 0,
        });
        let call = self.calls.len() - 1;
        if fresh {
            let delay = self.micros(20..200);
            self.at(delay, Event::Connected(call));
        } else {
            self.write(call, unit);
        }
    }

    fn write(&mut self, call: usize, unit: Unit) {
        let Call {
            client,
            conn,
            nth,
            id,
            ..
        } = self.calls[call];
        // The system call may return after the receiver has read.
        let returns = self.micros(1..15);
        self.calls[call].written = self.now + returns;
        self.see(self.now + returns, id, unit, Seen::Begin(Role::Client, conn, nth));
        if client != LOAD && matches!(self.services[client].kind, Kind::Loop { .. }) {
            self.now += returns;
        }
        let delay = self.micros(15..60);
        let arrives = delay - if self.rng.bool() { returns.min(12_000) } else { 0 };
        self.at(arrives, Event::Arrive(call));
    }

    fn reply(&mut self, call: usize) {
        let Call {
            from,
            client,
            to,
            id,
            conn,
            reader,
            ..
        } = self.calls[call];
        let reader = self.elsewhere(client, reader);
        self.see(self.now, id, reader, Seen::Done);
        let Some(request) = from else {
            let delay = self.micros(1..300);
            self.at(delay, Event::Load(reader.tid - 1));
            return;
        };
        self.services[client].free_conns.entry(to).or_default().push(conn);
        self.requests[request].waiting -= 1;
        if self.requests[request].waiting == 0 {
            if let Kind::Loop { batch, .. } = self.services[client].kind {
                self.proceed_in_loop(request, batch);
            } else {
                let delay = self.micros(1..20);
                self.at(delay, Event::Continue(request));
            }
        }
    }

    /// Shows everything to a correlator. Returns (claimed, right, all) by service.
    fn judge(self) -> Vec<(usize, usize, usize)> {
        let services = self.services.len();
        let truth = self.truth.clone();
        let player = self.play();
        let by_span: HashMap<_, _> = player.spans.iter().map(|(id, s)| (s.span_id, *id)).collect();
        let mut scores = vec![(0, 0, 0); services];
        for (id, span) in &player.spans {
            let tgid = span.service.tgid;
            let claimed = span.parent.map(|p| by_span[&p]);
            let truth = truth.get(id).copied();
            if tgid < 10 {
                assert_eq!(claimed, None, "the load generator has no parents");
                continue;
            }
            let certain = span.evidence.is_some_and(|(_, sure)| sure == Confidence::Certain);
            assert!(
                claimed.is_none() || claimed == truth || !certain,
                "a wrong parent is called certain: {span:?}"
            );
            let score = &mut scores[tgid as usize - 10];
            score.0 += usize::from(claimed.is_some());
            score.1 += usize::from(claimed.is_some() && claimed == truth);
            score.2 += usize::from(truth.is_some());
        }
        scores
    }

    /// Shows everything to a correlator.
    fn play(mut self) -> Player {
        self.seen.sort_by_key(|&(ts, order, ..)| (ts, order));
        let mut player = Player::new(self.config.clone());
        for (i, service) in self.services.iter().enumerate() {
            let language = match service.kind {
                Kind::Go => Language::Go,
                Kind::Stealing(_) => Language::Rust,
                _ => Language::Unknown,
            };
            player.service(Self::tgid(i), language, true);
        }
        for (ts, _, id, unit, seen) in &self.seen {
            let stamp = Stamp { ts: *ts, unit: *unit };
            match *seen {
                Seen::Begin(role, conn, nth) => {
                    player.begin(begin(*id, role, conn, nth, stamp, None, Variant::default()));
                    player.request_end(*id, stamp);
                }
                Seen::Done => player.done(*id, stamp),
            }
            player.advance(ts.saturating_sub(1_000_000));
        }
        player.advance(self.now + 60_000_000_000);
        player.advance(self.now + 70_000_000_000);
        let all_out = player.spans.len();
        player.finish();
        assert_eq!(all_out, player.spans.len(), "something was held for ever");
        assert_eq!(all_out as u64, self.ids, "a span for each exchange");
        player.check().unwrap();
        let (records, _) = player.correlator.remembered();
        assert_eq!(records, 0, "records are left");
        player
    }
}

/// A goroutine on that thread; whoever waits for it is 0 if nobody does.
fn goroutine(thread: Unit, id: u64, creator: u64, waits: u64) -> Unit {
    Unit {
        runs: Runs::Task(Task {
            id,
            creator,
            awaiters: [waits, 0, 0, 0],
            held_since: 0,
        }),
        ..thread
    }
}

fn call(to: usize) -> Step {
    Step::Call(vec![to])
}

/// A chain of work with some calls, the sort of request that services get.
fn plans(targets: &[usize]) -> Vec<Vec<Step>> {
    let mut plans = vec![vec![], vec![Step::Wait(300)]];
    for &a in targets {
        plans.push(vec![call(a)]);
        plans.push(vec![Step::Wait(200), call(a), Step::Wait(500), call(a)]);
        for &b in targets {
            plans.push(vec![call(a), call(b), Step::Wait(100)]);
        }
    }
    plans
}

/// Services whose threads or goroutines serve one request at a time: none is wrong, and every parent is found but in pools.
#[test]
fn threads_and_goroutines_are_exact() {
    let rounds = [1, 2, 5, 20, 50].into_iter().zip(0..);
    for (concurrency, seed) in rounds {
        let mut go = plans(&[3, 4]);
        go.push(vec![Step::Call(vec![3, 4, 3]), Step::Wait(100), call(4)]);
        let mut sim = Sim::new(
            seed,
            vec![
                (Kind::Threads, plans(&[1, 2])),
                (Kind::Pool(8), plans(&[2, 3])),
                (Kind::Go, go),
                (Kind::Pool(3), plans(&[4])),
                (Kind::Threads, vec![vec![], vec![Step::Wait(100)]]),
            ],
        );
        sim.run(concurrency, 250);
        let kinds: Vec<Kind> = sim.services.iter().map(|s| s.kind).collect();
        for (service, (claimed, right, all)) in sim.judge().into_iter().enumerate() {
            assert!(all > 0, "service {service} was not called");
            let where_ = format!("service {service}, concurrency {concurrency}");
            assert_eq!(right, claimed, "{where_}");
            // A pool that always has more to do shows nobody that it is done with its answers.
            if !matches!(kinds[service], Kind::Pool(_)) {
                assert_eq!(right, all, "{where_}");
            }
        }
    }
}

/// Recall, per mille, of the calls of an event loop with these plans, in front of a service that takes a while;
/// whatever it claims is right.
fn loop_recall(
    seed: u64,
    what: &str,
    (fresh, batch): (bool, bool),
    concurrency: u32,
    plans: Vec<Vec<Step>>,
) -> usize {
    let mut sim = Sim::new(
        seed,
        vec![
            (Kind::Loop { fresh, batch }, plans),
            (
                Kind::Threads,
                vec![vec![], vec![Step::Wait(400)], vec![Step::Wait(2000)]],
            ),
        ],
    );
    sim.run(concurrency, 800);
    let (claimed, right, all) = sim.judge_loop();
    assert_eq!(
        right, claimed,
        "{what}, concurrency {concurrency}: of {all} calls"
    );
    (right * 1000).checked_div(all).unwrap_or(1000)
}

impl Sim {
    /// The first service's calls alone (what it receives is E2's business).
    fn judge_loop(self) -> (usize, usize, usize) {
        let received = self.requests.iter().filter(|r| r.service == 0).count();
        let (claimed, right, all) = self.judge()[0];
        (claimed - received, right - received, all - received)
    }
}

#[test]
fn event_loops_are_never_wrong() {
    let sync = vec![vec![call(1)]];
    let chain = vec![vec![call(1), call(1)]];
    let together = vec![vec![Step::Call(vec![1, 1, 1])]];
    let mixed = vec![vec![], vec![call(1)], vec![call(1), call(1), call(1)]];
    let late_call = vec![vec![Step::Wait(500), call(1)]];
    let late_answer = vec![vec![call(1), Step::Wait(500)]];
    let timers = vec![
        vec![Step::Wait(300), call(1), Step::Wait(300)],
        vec![Step::Wait(700)],
    ];
    let everything = [&mixed[..], &together, &late_call, &late_answer, &timers].concat();
    let (kept, fresh, batch) = ((false, false), (true, false), (false, true));
    let table = [
        ("asyncio", batch, sync.clone(), 0),
        ("asyncio, mixed lengths", batch, mixed.clone(), 0),
        ("asyncio, everything", batch, everything.clone(), 0),
        ("proxy, kept connections", kept, sync.clone(), 990),
        ("proxy, fresh connections", fresh, sync, 990),
        (
            "proxy with static files, fresh connections",
            fresh,
            vec![vec![], vec![call(1)]],
            990,
        ),
        ("chain", kept, chain, 900),
        ("mixed lengths", kept, mixed, 900),
        ("calls together", kept, together, 0),
        ("call after a timer", kept, late_call, 900),
        ("answer after a timer", kept, late_answer, 0),
        ("timers before and after", kept, timers, 0),
        ("everything", kept, everything, 0),
    ];
    let mut low = Vec::new();
    for (what, how, plans, least) in table {
        let rounds = [1, 2, 5, 20, 50].into_iter().zip(0..);
        for (concurrency, seed) in rounds {
            let recall = loop_recall(seed, what, how, concurrency, plans.clone());
            println!("{what}, concurrency {concurrency}: recall {recall} per mille");
            if recall < least {
                low.push(format!(
                    "{what}, concurrency {concurrency}: recall {recall} per mille"
                ));
            }
        }
    }
    assert!(low.is_empty(), "{}", low.join("\n"));
}

/// Where requests move between threads, threads prove nothing. That is known from the first move that shows; before it a
/// claim may be wrong.
#[test]
fn moving_tasks_are_guessed_until_the_first_move_shows() {
    let table = [(1, 2), (2, 2), (2, 4), (10, 4), (50, 8)];
    let mut wrong = 0;
    for (seed, (concurrency, threads)) in table.into_iter().cycle().take(15).enumerate() {
        let mut sim = Sim::new(
            seed as u64,
            vec![
                (Kind::Stealing(threads), plans(&[1])),
                (Kind::Threads, vec![vec![], vec![Step::Wait(400)]]),
            ],
        );
        sim.run(concurrency, 500);
        let (claimed, right, all) = sim.judge_loop();
        assert!(all > 100, "{all} calls");
        wrong += claimed - right;
        assert!(
            claimed <= 10,
            "{threads} threads, concurrency {concurrency}: {claimed} claimed"
        );
    }
    assert!(wrong <= 1, "{wrong} wrong parents in fifteen runs");
}

/// Where no rule tells anything times make links, as often right as they say.
#[test]
fn times_make_links_where_no_rule_tells() {
    let mut buckets = [(0, 0); 3];
    for (concurrency, seed) in [(2, 1), (4, 2), (10, 3)] {
        let steps = vec![Step::Wait(200), call(1), Step::Wait(500), call(1)];
        let services = vec![
            (Kind::Stealing(4), vec![steps]),
            (Kind::Threads, vec![vec![Step::Wait(400)]]),
        ];
        let mut sim = Sim::new(seed, services);
        sim.config.infer = Infer::Parents;
        sim.run(concurrency, 400);
        let truth = sim.truth.clone();
        let player = sim.play();
        let by_span: HashMap<_, _> = player.spans.iter().map(|(id, s)| (s.span_id, *id)).collect();
        for (id, span) in &player.spans {
            let Some(Value::Double(probability)) = span.exchange.attributes.get("tracer.parent.probability")
            else {
                continue;
            };
            assert_eq!(span.parent, None, "nothing was known that could be audited");
            let [link] = &span.links[..] else {
                panic!("{span:?}");
            };
            assert_eq!(link.reason, "inferred");
            let bucket = [0.9, 0.99].iter().filter(|end| probability >= **end).count();
            buckets[bucket].1 += 1;
            buckets[bucket].0 += u32::from(truth.get(id) == by_span.get(&link.span_id));
        }
    }
    let [_, likely, sure] = buckets;
    assert!(likely.1 > 150 && likely.0 * 100 >= likely.1 * 75, "{buckets:?}");
    assert!(sure.1 > 200 && sure.0 * 100 >= sure.1 * 97, "{buckets:?}");
}
