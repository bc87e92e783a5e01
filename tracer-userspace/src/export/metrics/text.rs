//! Metrics as text that Prometheus reads: its own format 0.0.4, and OpenMetrics 1.0.0, which also carries exemplars.
//!
//! Names and labels follow the OpenTelemetry specification, "Prometheus and OpenMetrics Compatibility": dots become underscores, units
//! are spelt out at the end, services are told apart by `job` and `instance`, and described by `target_info`.

use std::fmt::Write as _;
use std::sync::Arc;

use hashbrown::HashMap;

use crate::export::Clock;
use crate::model::{
    Distribution, Exemplar, Family, Instrument, InstrumentKind, Key, Label, Point, Reading, Service,
};

/// Which of the two.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    /// Prometheus text format 0.0.4.
    Plain,
    /// OpenMetrics 1.0.0.
    OpenMetrics,
}

impl Format {
    /// The media type.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Plain => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }

    /// The format that an `Accept` header asks for (RFC 9110 section 12.5.1): OpenMetrics where it is wanted at least as much as text.
    pub fn negotiate(accept: &str) -> Self {
        let weight = |wanted: &str| {
            accept
                .split(',')
                .filter_map(|range| {
                    let mut parts = range.split(';').map(str::trim);
                    let name = parts.next()?;
                    if !name.eq_ignore_ascii_case(wanted) {
                        return None;
                    }
                    let mut quality = 1.0;
                    for part in parts {
                        match part.split_once('=') {
                            Some(("q", value)) => quality = value.trim().parse().unwrap_or(0.0),
                            // Versions before 1.0.0 were drafts.
                            Some(("version", version))
                                if wanted.contains("openmetrics") && version != "1.0.0" =>
                            {
                                return None;
                            }
                            _ => {}
                        }
                    }
                    Some(quality)
                })
                .fold(0.0, f64::max)
        };
        let open = weight("application/openmetrics-text");
        if open > 0.0 && open >= weight("text/plain") {
            Self::OpenMetrics
        } else {
            Self::Plain
        }
    }
}

/// Writes a page. `myself` is whose metrics without a service are.
pub fn write(families: &[Family], myself: &Arc<Service>, clock: &Clock, format: Format) -> String {
    let mut page = Page {
        out: String::with_capacity(64 << 10),
        format,
        clock,
        identities: HashMap::new(),
        myself,
    };
    for family in families {
        page.family(family);
    }
    page.targets(families);
    if format == Format::OpenMetrics {
        page.out.push_str("# EOF\n");
    }
    page.out
}

struct Page<'a> {
    out: String,
    format: Format,
    clock: &'a Clock,
    /// `job="…",instance="…"` by the address of the service.
    identities: HashMap<usize, String>,
    myself: &'a Arc<Service>,
}

impl Page<'_> {
    fn family(&mut self, family: &Family) {
        let instrument = family.instrument;
        let (base, sample) = names(instrument);
        let kind = match instrument.kind {
            InstrumentKind::Counter => "counter",
            InstrumentKind::UpDownCounter | InstrumentKind::Gauge => "gauge",
            InstrumentKind::Histogram => "histogram",
        };
        let named = match self.format {
            Format::OpenMetrics => &base,
            Format::Plain => &sample,
        };
        let _ = writeln!(self.out, "# HELP {named} {}", escape_help(instrument.description));
        let _ = writeln!(self.out, "# TYPE {named} {kind}");
        if let (Format::OpenMetrics, Some(unit)) = (self.format, unit(instrument.unit))
            && base.ends_with(unit)
        {
            let _ = writeln!(self.out, "# UNIT {named} {unit}");
        }
        for point in &family.points {
            let labels = self.labels(point);
            match &point.value {
                Reading::Number(number) if instrument.scale == 1 => {
                    let _ = writeln!(self.out, "{sample}{{{labels}}} {number}");
                }
                Reading::Number(number) => {
                    let _ = writeln!(self.out, "{sample}{{{labels}}} {}", instrument.in_unit(*number));
                }
                Reading::Real(number) => {
                    let _ = writeln!(self.out, "{sample}{{{labels}}} {number}");
                }
                Reading::Distribution(told) => self.histogram(&sample, &labels, instrument, told),
            }
        }
    }

    fn histogram(&mut self, name: &str, labels: &str, instrument: &Instrument, told: &Distribution) {
        let mut below = 0;
        let mut lower = None;
        let bounds = instrument.bounds.iter().copied().map(Some).chain([None]);
        for (bound, count) in bounds.zip(&told.counts) {
            below += count;
            let le = match (bound.map(|bound| instrument.in_unit(bound)), self.format) {
                (None, _) => "+Inf".to_owned(),
                // OpenMetrics wants whole bounds to look like numbers with a fraction.
                (Some(bound), Format::OpenMetrics) => format!("{bound:?}"),
                (Some(bound), Format::Plain) => bound.to_string(),
            };
            let _ = write!(self.out, "{name}_bucket{{{labels},le=\"{le}\"}} {below}");
            let inside = |exemplar: &&Exemplar| {
                lower.is_none_or(|lower| exemplar.value > lower)
                    && bound.is_none_or(|bound| exemplar.value <= bound)
            };
            if self.format == Format::OpenMetrics
                && let Some(exemplar) = told.exemplars.iter().find(inside)
            {
                self.exemplar(instrument, exemplar);
            }
            self.out.push('\n');
            lower = bound;
        }
        let _ = writeln!(
            self.out,
            "{name}_sum{{{labels}}} {}",
            instrument.in_unit(told.sum)
        );
        let _ = writeln!(self.out, "{name}_count{{{labels}}} {below}");
    }

    fn exemplar(&mut self, instrument: &Instrument, exemplar: &Exemplar) {
        self.out.push_str(" # {trace_id=\"");
        hex(&mut self.out, &exemplar.trace_id.0);
        self.out.push_str("\",span_id=\"");
        hex(&mut self.out, &exemplar.span_id.0);
        let seconds = self.clock.unix(exemplar.ts) / 1_000_000;
        let _ = write!(
            self.out,
            "\"}} {} {}.{:03}",
            instrument.in_unit(exemplar.value),
            seconds / 1_000,
            seconds % 1_000
        );
    }

    /// One line of description for each service.
    fn targets(&mut self, families: &[Family]) {
        let (name, kind) = match self.format {
            Format::OpenMetrics => ("target", "info"),
            Format::Plain => ("target_info", "gauge"),
        };
        let mut services: Vec<&Arc<Service>> = vec![self.myself];
        let mut seen: HashMap<usize, ()> = HashMap::from([(address(self.myself), ())]);
        for service in families
            .iter()
            .flat_map(|f| &f.points)
            .filter_map(|p| p.service.as_ref())
        {
            if seen.insert(address(service), ()).is_none() {
                services.push(service);
            }
        }
        let _ = writeln!(self.out, "# HELP {name} What is known of each service.");
        let _ = writeln!(self.out, "# TYPE {name} {kind}");
        for service in services {
            let mut labels = self.identity(service);
            for (key, value) in &service.resource.text {
                if !["service.name", "service.namespace", "service.instance.id"].contains(&&**key) {
                    push_label(&mut labels, key, value);
                }
            }
            for (key, value) in &service.resource.ints {
                push_label(&mut labels, key, &value.to_string());
            }
            let _ = writeln!(self.out, "target_info{{{labels}}} 1");
        }
    }

    fn labels(&mut self, point: &Point) -> String {
        let mut labels = self.identity(point.service.as_ref().unwrap_or(self.myself));
        for (key, label) in point.labels.iter() {
            push(&mut labels, key, label);
        }
        labels
    }

    fn identity(&mut self, service: &Arc<Service>) -> String {
        let written = self
            .identities
            .entry(address(service))
            .or_insert_with(|| identity(service));
        written.clone()
    }
}

fn address(service: &Arc<Service>) -> usize {
    Arc::as_ptr(service) as usize
}

fn identity(service: &Service) -> String {
    let text = |key: &str| {
        let found = service.resource.text.iter().find(|(name, _)| **name == *key);
        found.map(|(_, value)| &**value).filter(|value| !value.is_empty())
    };
    let mut labels = String::new();
    match text("service.namespace") {
        Some(namespace) => push_label(&mut labels, "job", &format!("{namespace}/{}", service.name)),
        None => push_label(&mut labels, "job", &service.name),
    }
    if let Some(instance) = text("service.instance.id") {
        push_label(&mut labels, "instance", instance);
    }
    labels
}

fn push(labels: &mut String, key: Key, label: &Label) {
    match label {
        Label::Text(text) => push_label(labels, key, text),
        Label::Static(text) => push_label(labels, key, text),
        Label::Int(number) => push_label(labels, key, itoa::Buffer::new().format(*number)),
        Label::Bool(truth) => push_label(labels, key, if *truth { "true" } else { "false" }),
    }
}

fn push_label(labels: &mut String, key: &str, value: &str) {
    if !labels.is_empty() {
        labels.push(',');
    }
    push_name(labels, key);
    labels.push_str("=\"");
    for c in value.chars() {
        match c {
            '\\' => labels.push_str("\\\\"),
            '"' => labels.push_str("\\\""),
            '\n' => labels.push_str("\\n"),
            c => labels.push(c),
        }
    }
    labels.push('"');
}

fn push_name(out: &mut String, name: &str) {
    for (index, c) in name.chars().enumerate() {
        if index == 0 && c.is_ascii_digit() {
            out.push('_');
        }
        out.push(if c.is_ascii_alphanumeric() { c } else { '_' });
    }
}

/// The name of the family, and of its samples.
fn names(instrument: &Instrument) -> (String, String) {
    let mut base = String::new();
    push_name(&mut base, instrument.name);
    if instrument.kind == InstrumentKind::Counter
        && let Some(stem) = base.strip_suffix("_total")
    {
        base = stem.to_owned();
    }
    if let Some(unit) = unit(instrument.unit)
        && !base.ends_with(&format!("_{unit}"))
    {
        base.push('_');
        base.push_str(unit);
    }
    let sample = match instrument.kind {
        InstrumentKind::Counter => format!("{base}_total"),
        _ => base.clone(),
    };
    (base, sample)
}

/// The unit as Prometheus spells it; what is counted (`{request}`) is not written.
fn unit(ucum: &'static str) -> Option<&'static str> {
    match ucum {
        "s" => Some("seconds"),
        "By" => Some("bytes"),
        "1" => Some("ratio"),
        _ => None,
    }
}

fn escape_help(text: &str) -> String {
    text.replace('\\', "\\\\").replace('\n', "\\n")
}

fn hex(out: &mut String, bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for byte in bytes {
        for digit in [byte >> 4, byte & 15] {
            out.push(char::from(DIGITS[usize::from(digit)]));
        }
    }
}

#[cfg(test)]
mod tests;
