//! Joins the stages and runs them: the only place that knows them all.

mod batch;
mod budget;
mod connect;
mod correlation;
mod inference;
mod lane;
mod pipeline;
mod privileges;
mod reader;
mod replay;
mod selection;
mod stop;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Context as _;

use crate::attach::{Capture, Limit, Options, Policy};
use crate::config::{Config, Probes};
use crate::correlate::{Correlator, Infer};
use crate::discover::{Host, Processes};
use crate::export::{self, Clock};
use crate::kernel::Plan;
use crate::metrics::{Metrics, Own};
use crate::model::{ConnId, Service};
use crate::protocol::CapturePolicy;
use crate::record::Recorder;
use crate::sample::{Sampler, Shedder, Shedding};
use crate::source::monotonic;
use crate::telemetry::Ledger;

pub use budget::bpf_stats_enabled;
pub use lane::{Lane, Selects};
pub use replay::replay;

/// Hosts with at most this many CPUs for each worker get one worker, which needs no copy of any event.
const CPUS_PER_WORKER: usize = 8;
/// More workers than this were never needed: the merge of their signals is one thread.
const MAX_AUTO_WORKERS: usize = 8;

/// Traces until the process is asked to stop; then flushes, and prints the ledger to standard error.
///
/// # Errors
/// What could not be started, or what broke.
pub fn run(config: &Config, plan: &Plan) -> anyhow::Result<()> {
    let stop = stop::Requests::listen()?;
    // Processes are looked at while the programs load: both take a while, and a runtime must be known before its first request.
    let processes = Arc::new(Mutex::new(Processes::new(config.selection.clone(), Host::read())));
    let looker = Arc::clone(&processes);
    let look_around = std::thread::Builder::new()
        .name("look-around".into())
        .spawn(move || selection::look_around(&looker))
        .context("starting the look around")?;
    let mut capture = Capture::start(
        plan,
        Options {
            ring_bytes: config.capture.ring_bytes,
            log: config.capture.log,
            probes: config.capture.probes != Probes::Never,
            ..Options::default()
        },
    )?;
    let there_before = look_around.join().unwrap_or_default();
    crate::allocator::keep();
    if config.capture.probes != Probes::Never {
        selection::tell_probed(&processes, &capture.runtimes(), &there_before);
        capture.place_probes();
    }
    // Every thread started from here on holds no more than this one.
    if let Err(why) = privileges::shed(config.capture.probes == Probes::Always) {
        tracing::warn!("keeping all privileges: {why:#}");
    }
    let ledger = Arc::new(Ledger::default());
    let clock = Clock::system();
    let exporters = export::Pipeline::start(&config.export, clock.clone(), Arc::clone(&ledger))?;
    let metrics = config.export.metrics.is_enabled().then(|| {
        let exponential = config.export.metrics.wants_exponential();
        Metrics::new(config.metrics.clone(), exponential, monotonic())
    });
    let shedding = config.cpu_budget.map(|_| Shedding::default());
    let people = selection::People::new(processes, capture.runtimes(), metrics.clone(), shedding.clone());
    people.tell_runtimes(&there_before);
    capture.follow_hand_offs();
    let recorder = start_recording(config)?;
    let inference = (config.correlate.infer != Infer::Off)
        .then(inference::Inference::start)
        .transpose()
        .context("starting the inference")?;
    let correlation = correlation::Correlation::new(
        Correlator::new(config.correlate.clone(), Arc::clone(&ledger)),
        people.services(),
        exporters,
        metrics.clone(),
        shedding
            .clone()
            .map(|shedding| Shedder::new(shedding, Arc::clone(&ledger))),
        Sampler::new(&config.sample, Arc::clone(&ledger)),
        recorder,
    )
    .with_inference(inference)
    .with_hand_offs(people.follow());
    let pipeline = pipeline::Pipeline::start(
        workers(config),
        people.clone(),
        correlation,
        apply(capture.policy()),
        Arc::clone(&ledger),
    )
    .context("starting the workers")?;
    let metrics = start_metrics(config, metrics, people.myself(), clock, &ledger)?;
    let source = capture.take_source().context("the capture has no source")?;
    let budget = config.cpu_budget.zip(shedding);
    let budget = budget.map(|(cores, shedding)| budget::Budget::new(cores, shedding));
    let mut reader = reader::Reader::new(source, pipeline, people, ledger, metrics.is_some(), budget);
    let broke = reader.run(&mut capture, &stop);
    reader.finish(capture, config.shutdown_timeout);
    if let Some(metrics) = metrics {
        metrics.shutdown(config.shutdown_timeout);
    }
    broke
}

/// Metrics of exchanges and of the tracer itself, on their way out.
fn start_metrics(
    config: &Config,
    metrics: Option<Metrics>,
    myself: Arc<Service>,
    clock: Clock,
    ledger: &Arc<Ledger>,
) -> anyhow::Result<Option<export::metrics::Exporters>> {
    let Some(metrics) = metrics else { return Ok(None) };
    let own = Own::new(Arc::clone(ledger), monotonic());
    export::metrics::Exporters::start(
        &config.export,
        vec![Box::new(metrics), Box::new(own)],
        myself,
        clock,
    )
}

/// The recording that was asked for, if any.
fn start_recording(config: &Config) -> anyhow::Result<Option<Recorder>> {
    let Some(path) = &config.capture.record else {
        return Ok(None);
    };
    let settings = serde_json::to_value(&config.correlate).context("the settings")?;
    Recorder::create(path, config.capture.record_bytes, settings).map(Some)
}

fn workers(config: &Config) -> usize {
    config.workers.map_or_else(
        || {
            let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
            (cpus / CPUS_PER_WORKER).clamp(1, MAX_AUTO_WORKERS)
        },
        usize::from,
    )
}

/// Tells the kernel what sessions want captured. A connection that is gone already is no error.
fn apply(policy: Policy) -> pipeline::ApplyPolicy {
    Arc::new(move |conn: ConnId, wanted: CapturePolicy| {
        let limit = |(run, chunk)| Limit { run, chunk };
        let applied = match wanted {
            CapturePolicy::Ignore => policy.ignore(conn),
            CapturePolicy::Limit { send, recv } => policy.set_policy(conn, limit(send), limit(recv)),
        };
        if let Err(why) = applied {
            tracing::debug!("policy of connection {}: {why:#}", conn.0);
        }
    })
}

/// How often what changes slowly is looked at.
const HOUSEKEEPING: Duration = Duration::from_secs(1);
