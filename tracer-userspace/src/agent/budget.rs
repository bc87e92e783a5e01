//! Keeps the tracer's processor time within a share of one core, if its user set one.
//!
//! Measured once a second: the daemon's own time by its process clock, the kernel side's by the kernel's run statistics if somebody
//! has turned them on (`kernel.bpf_stats_enabled`), else estimated from the events that it made. Above the budget the tracer sheds in
//! steps, each of which halves what is left: first traces, by their ids, then connections, in turns. Below a part of the budget it takes
//! steps back, slower than it went, and slower yet if that was too early.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use crate::attach::Capture;
use crate::model::Nanos;
use crate::sample::{Shed, Shedding, Step, TURN, Turns};
use crate::source::monotonic;
use crate::telemetry::Ledger;

/// Steps by which traces are shed, and the further ones by which connections are.
const TRACE_STEPS: u32 = 6;
const CONNECTION_STEPS: u32 = 3;
/// How long whoever calls may sleep while connections are followed in turns.
const TURNS_NAP: Duration = Duration::from_millis(100);
/// Readings above the budget before a step is taken: one may be a burst.
const TOO_MANY: u32 = 2;
/// A reading above this many times the budget counts at once.
const FAR_ABOVE: f64 = 2.0;
/// Most steps at a time.
const STRIDE: u32 = 3;
/// Below this part of the budget there is room for twice of what is kept.
const ROOM: f64 = 0.5;
/// Readings with room before a step is taken back, and what that grows to.
const PATIENCE: [u32; 2] = [3, 48];

/// What an event costs in the kernel, and a message that the policy ignores, where the kernel does not tell: nanoseconds.
const EVENT: u64 = 700;
const IGNORED: u64 = 100;

/// The budget at work.
pub struct Budget {
    cores: f64,
    controller: Controller,
    shedding: Shedding,
    turns: Turns,
    was_measured: bool,
}

impl Budget {
    /// Keeps to so many cores.
    pub fn new(cores: f64, shedding: Shedding) -> Self {
        Self {
            cores,
            controller: Controller::new(cores),
            shedding,
            turns: Turns::default(),
            was_measured: false,
        }
    }

    /// Looks at what was used, about once a second. `is_measured`: the kernel counts the time of its programs.
    pub fn look(&mut self, capture: &Capture, ledger: &Ledger, is_measured: bool) {
        let kernel = if is_measured {
            measured(capture)
        } else {
            estimated(capture)
        };
        let kernel = match kernel {
            Ok(kernel) => kernel,
            Err(why) => return tracing::debug!("what the kernel side costs can't be told: {why:#}"),
        };
        if std::mem::replace(&mut self.was_measured, is_measured) != is_measured || !self.turns.are_followed()
        {
            self.controller.restart();
        }
        if !self.turns.are_followed() {
            return;
        }
        let used = Used {
            daemon: own_time(),
            kernel,
        };
        let followed = self.shedding.get().connections;
        let Some(reading) = self.controller.read(monotonic(), used, followed) else {
            return;
        };
        if let Some(shed) = reading.change {
            let before = self.shedding.get();
            self.shedding.set(shed);
            self.tell(&reading, before, shed);
        }
        let kept = self.shedding.get();
        ledger
            .health()
            .set_budget(self.cores, reading.share, kept.traces, kept.connections);
    }

    /// Follows connections in turns, if that is asked for. To be called often; tells how long the caller may sleep until the next time.
    pub fn take_turns(&mut self, capture: &mut Capture) -> Duration {
        let share = self.shedding.get().connections;
        if share >= 1.0 && !self.turns.go_on() {
            return Duration::MAX;
        }
        let now = monotonic();
        let done = match self.turns.next(share, wall_clock(), now) {
            None => Ok(()),
            Some(Step::EndTurn(closes, ends)) => {
                self.shedding.end_turn(closes, ends);
                Ok(())
            }
            Some(Step::Pause) => {
                let done = capture.pause(true);
                self.shedding.pause(monotonic());
                done
            }
            Some(Step::Resume(window)) => {
                self.controller.restart();
                self.shedding.resume(window);
                capture.pause(false)
            }
            Some(Step::Stay) => {
                self.shedding.stay(now);
                Ok(())
            }
        };
        if let Err(why) = done {
            tracing::warn!("connections can't be followed in turns: {why:#}");
        }
        TURNS_NAP
    }

    fn tell(&self, reading: &Reading, before: Shed, shed: Shed) {
        let (used, budget) = (100.0 * reading.share, 100.0 * self.cores);
        let how = if self.was_measured {
            "measured"
        } else {
            "estimated"
        };
        if shed == Shed::NOTHING {
            tracing::info!("nothing is shed any more: {used:.1}% of a core used, the budget is {budget:.1}%");
            return;
        }
        let one_of = |share: f64| (1.0 / share).round();
        let kept = if shed.connections < 1.0 {
            format!(
                "1 of {} traces is kept, and connections are followed for {} of {} seconds",
                one_of(shed.traces),
                TURN / 1_000_000_000,
                one_of(shed.connections / (TURN / 1_000_000_000) as f64)
            )
        } else {
            format!("1 of {} traces is kept", one_of(shed.traces))
        };
        if shed.traces < before.traces || shed.connections < before.connections {
            tracing::warn!(
                "{used:.1}% of a core used (kernel side: {how}), the budget is {budget:.1}%: from now on {kept}"
            );
        } else {
            tracing::info!("{used:.1}% of a core used, the budget is {budget:.1}%: again {kept}");
        }
    }
}

/// Whether the kernel counts the time of BPF programs (`kernel.bpf_stats_enabled`), which costs a little and is the operator's choice.
/// `None`: that can't be read.
#[must_use]
pub fn bpf_stats_enabled() -> Option<bool> {
    let text = std::fs::read_to_string("/proc/sys/kernel/bpf_stats_enabled").ok()?;
    Some(text.trim() == "1")
}

/// Nanoseconds since 1970, by the clock that hosts have in common.
fn wall_clock() -> Nanos {
    let time = clock_gettime(ClockId::Realtime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    seconds
        .saturating_mul(1_000_000_000)
        .saturating_add(u64::try_from(time.tv_nsec).unwrap_or(0))
}

/// Processor time of all threads of this process.
fn own_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(
        u64::try_from(time.tv_sec).unwrap_or(0),
        u32::try_from(time.tv_nsec).unwrap_or(0),
    )
}

fn measured(capture: &Capture) -> anyhow::Result<Duration> {
    Ok(capture.program_stats()?.iter().map(|stats| stats.run_time).sum())
}

fn estimated(capture: &Capture) -> anyhow::Result<Duration> {
    let counters = capture.counters()?;
    let nanos = counters.iter().map(|(name, count)| match *name {
        "events" => count * EVENT,
        "ignored" => count * IGNORED,
        _ => 0,
    });
    Ok(Duration::from_nanos(nanos.sum()))
}

/// Processor time used since the start.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Used {
    /// By the daemon.
    pub daemon: Duration,
    /// By the kernel side, in whatever process it ran.
    pub kernel: Duration,
}

/// What was decided about one reading.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Reading {
    /// Share of one core that was used since the last reading, or is over many turns if that is what is used in them.
    pub share: f64,
    /// What is shed from now on, if that is something else than before.
    pub change: Option<Shed>,
}

/// Decides how much is shed.
pub struct Controller {
    budget: f64,
    step: u32,
    last: Option<(Nanos, Duration)>,
    above: u32,
    below: u32,
    patience: u32,
    /// Readings since a step was taken back; `None` if none was, or if that was right.
    relaxed: Option<u32>,
}

impl Controller {
    /// Keeps to so many cores (0.05: a twentieth of one).
    pub fn new(budget: f64) -> Self {
        Self {
            budget,
            step: 0,
            last: None,
            above: 0,
            below: 0,
            patience: PATIENCE[0],
            relaxed: None,
        }
    }

    /// Takes a reading, about once a second, while connections are followed, which is for that share of the time. `None`: the first one.
    pub fn read(&mut self, now: Nanos, used: Used, followed: f64) -> Option<Reading> {
        let used = used.daemon + used.kernel;
        let (before, used_before) = self.last.replace((now, used))?;
        let time = now.saturating_sub(before).max(1) as f64;
        let share = used.saturating_sub(used_before).as_nanos() as f64 / time * followed;
        let step = self.next(share);
        let change = (step != self.step).then(|| shed(step));
        self.step = step;
        Some(Reading { share, change })
    }

    /// What was used is told in another way from now on: the next reading has nothing to be compared with.
    pub fn restart(&mut self) {
        self.last = None;
    }

    fn next(&mut self, share: f64) -> u32 {
        let load = share / self.budget;
        if let Some(readings) = &mut self.relaxed {
            *readings += 1;
            if *readings > 2 * PATIENCE[1] {
                (self.relaxed, self.patience) = (None, PATIENCE[0]);
            }
        }
        if load > 1.0 {
            self.below = 0;
            self.above += 1;
            if self.above < TOO_MANY && load < FAR_ABOVE {
                return self.step;
            }
            self.above = 0;
            // It was too early then.
            if self
                .relaxed
                .take_if(|readings| *readings <= self.patience)
                .is_some()
            {
                self.patience = (2 * self.patience).min(PATIENCE[1]);
            }
            let stride = (load.log2().ceil() as u32).clamp(1, STRIDE);
            return (self.step + stride).min(TRACE_STEPS + CONNECTION_STEPS);
        }
        self.above = 0;
        if load > ROOM || self.step == 0 {
            self.below = 0;
            return self.step;
        }
        self.below += 1;
        if self.below < self.patience {
            return self.step;
        }
        self.below = 0;
        self.relaxed = Some(0);
        // Idle: what one step brings back is nothing.
        let stride = if load < ROOM / 8.0 { STRIDE } else { 1 };
        self.step.saturating_sub(stride)
    }
}

fn shed(step: u32) -> Shed {
    let left = |halvings: u32| 1.0 / f64::from(1u32 << halvings);
    Shed {
        traces: left(step.min(TRACE_STEPS)),
        connections: left(step.saturating_sub(TRACE_STEPS)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Nanos = 1_000_000_000;

    /// A made-up tracer whose time depends on what it sheds.
    struct Host {
        controller: Controller,
        now: Nanos,
        used: Duration,
        shed: Shed,
        changes: u32,
    }

    impl Host {
        fn new(budget: f64) -> Self {
            let mut host = Self {
                controller: Controller::new(budget),
                now: 5 * SECOND,
                used: Duration::from_secs(3),
                shed: Shed::NOTHING,
                changes: 0,
            };
            assert_eq!(
                host.controller.read(host.now, host.used(), 1.0),
                None,
                "nothing to compare with"
            );
            host
        }

        fn used(&self) -> Used {
            Used {
                daemon: self.used / 2,
                kernel: self.used / 2,
            }
        }

        /// So many seconds under a load that would take so much of a core, of which exporting takes half and connections all.
        fn run(&mut self, seconds: u32, load: f64) -> Shed {
            for _ in 0..seconds {
                let (share, followed) = (load * (0.5 + 0.5 * self.shed.traces), self.shed.connections);
                self.now += SECOND;
                self.used += Duration::from_secs_f64(share);
                let reading = self.controller.read(self.now, self.used(), followed);
                let reading = reading.expect("a reading");
                assert!(
                    (reading.share - share * followed).abs() < 1e-3,
                    "{reading:?} {share}"
                );
                if let Some(change) = reading.change {
                    (self.shed, self.changes) = (change, self.changes + 1);
                }
            }
            self.shed
        }
    }

    #[test]
    fn within_the_budget_nothing_is_shed() {
        let mut host = Host::new(0.1);
        assert_eq!(host.run(100, 0.099), Shed::NOTHING);
        assert_eq!(host.changes, 0);
        host.run(1, 0.19);
        assert_eq!(host.run(10, 0.05), Shed::NOTHING, "one burst is no load");
    }

    #[test]
    fn traces_go_before_connections() {
        let mut host = Host::new(0.1);
        let shed = host.run(10, 0.15);
        assert!(shed.traces < 1.0 && shed.connections == 1.0, "{shed:?}");
        // More than shedding traces can save.
        let shed = host.run(30, 1.0);
        assert!(shed.traces == 1.0 / 64.0 && shed.connections < 1.0, "{shed:?}");
        // There is an end to it.
        let shed = host.run(100, 1e6);
        assert_eq!(
            shed,
            Shed {
                traces: 1.0 / 64.0,
                connections: 1.0 / 8.0
            }
        );
    }

    #[test]
    fn it_recovers_when_the_load_falls_and_does_not_swing() {
        let mut host = Host::new(0.1);
        let far = host.run(20, 1.0);
        assert!(far.connections < 1.0, "{far:?}");
        let shed = host.run(5, 0.02);
        assert!(shed != Shed::NOTHING, "not at once: {shed:?}");
        assert_eq!(host.run(60, 0.02), Shed::NOTHING);
        // A load at which each step back is one too many: ever fewer are tried.
        host.run(60, 0.8);
        host.changes = 0;
        host.run(300, 0.8);
        assert!(host.changes < 30, "{} changes in 300 seconds", host.changes);
    }
}
