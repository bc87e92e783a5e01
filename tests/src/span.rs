//! Spans as they arrived at the collector, and questions about them.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::trace::v1 as otlp;

pub use otlp::span::SpanKind as Kind;

/// An attribute's value.
#[derive(Clone, PartialEq, Debug)]
pub enum Value {
    /// Text.
    Str(String),
    /// Integer.
    Int(i64),
    /// Floating point.
    Double(f64),
    /// Boolean.
    Bool(bool),
    /// List.
    List(Vec<Value>),
    /// A kind that the tracer must not send.
    Other,
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Str(text.to_owned())
    }
}

impl From<i64> for Value {
    fn from(n: i64) -> Self {
        Self::Int(n)
    }
}

impl From<AnyValue> for Value {
    fn from(value: AnyValue) -> Self {
        match value.value {
            Some(any_value::Value::StringValue(s)) => Self::Str(s),
            Some(any_value::Value::IntValue(n)) => Self::Int(n),
            Some(any_value::Value::DoubleValue(n)) => Self::Double(n),
            Some(any_value::Value::BoolValue(b)) => Self::Bool(b),
            Some(any_value::Value::ArrayValue(list)) => {
                Self::List(list.values.into_iter().map(Into::into).collect())
            }
            _ => Self::Other,
        }
    }
}

/// Attributes by name.
pub type Attributes = BTreeMap<String, Value>;

/// # Panics
/// If a name comes twice, which OTLP forbids.
fn attributes(list: Vec<KeyValue>) -> Attributes {
    let mut map = Attributes::new();
    for pair in list {
        let value = pair.value.map_or(Value::Other, Into::into);
        let before = map.insert(pair.key.clone(), value);
        assert!(before.is_none(), "attribute {} comes twice in one list", pair.key);
    }
    map
}

/// One span with its resource.
#[derive(Clone, Debug)]
pub struct Span {
    /// `service.name` of the resource.
    pub service: String,
    /// The resource's attributes.
    pub resource: Attributes,
    /// Name of the instrumentation scope.
    pub scope: String,
    /// Name.
    pub name: String,
    /// Kind.
    pub kind: Kind,
    /// 16 bytes.
    pub trace_id: Vec<u8>,
    /// 8 bytes.
    pub span_id: Vec<u8>,
    /// 8 bytes, or none.
    pub parent: Option<Vec<u8>>,
    /// W3C `tracestate`.
    pub trace_state: String,
    /// UNIX nanoseconds.
    pub start: u64,
    /// UNIX nanoseconds.
    pub end: u64,
    /// Whether the status is ERROR.
    pub error: bool,
    /// Attributes.
    pub attributes: Attributes,
    /// Trace and span ids of links.
    pub links: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Span {
    /// The value of an attribute.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.attributes.get(key)
    }

    /// The text of an attribute, empty if it is not there or not text.
    #[must_use]
    pub fn text(&self, key: &str) -> &str {
        match self.get(key) {
            Some(Value::Str(text)) => text,
            _ => "",
        }
    }

    /// The value of an integer attribute.
    #[must_use]
    pub fn int(&self, key: &str) -> Option<i64> {
        match self.get(key) {
            Some(&Value::Int(n)) => Some(n),
            _ => None,
        }
    }

    /// End minus start, in nanoseconds.
    #[must_use]
    pub fn duration(&self) -> u64 {
        self.end.saturating_sub(self.start)
    }

    /// `url.path`, or the path of `url.full` on client spans.
    #[must_use]
    pub fn path(&self) -> &str {
        let full = self.text("url.full");
        let path = match full.split_once("://") {
            Some((_, rest)) => rest.find('/').map_or("/", |slash| &rest[slash..]),
            None => self.text("url.path"),
        };
        path.split('?').next().unwrap_or(path)
    }

    /// The judge's marker: the number at the end of the path.
    #[must_use]
    pub fn marker(&self) -> Option<u64> {
        self.path().rsplit('/').next()?.parse().ok()
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} {:?} {:?} {:.3} ms{}{}",
            self.service,
            self.kind,
            self.name,
            self.duration() as f64 / 1e6,
            if self.error { " ERROR" } else { "" },
            match self.text("tracer.parent.evidence") {
                "" => String::new(),
                evidence => format!(" [{evidence} {}]", self.text("tracer.parent.confidence")),
            }
        )?;
        match self.path() {
            "" => write!(f, " {}", self.text("db.query.text")),
            path => write!(f, " {path}"),
        }
    }
}

/// A selection of spans; filters can be chained.
#[derive(Clone, Default)]
pub struct Spans(Vec<Span>);

impl Spans {
    /// Takes every span of a decoded export request.
    ///
    /// # Panics
    /// If the request breaks a rule of OTLP (ids of a wrong length, an unknown kind).
    #[must_use]
    pub fn of(request: ExportTraceServiceRequest) -> Self {
        let mut spans = Vec::new();
        for group in request.resource_spans {
            let resource = attributes(group.resource.unwrap_or_default().attributes);
            let service = match resource.get("service.name") {
                Some(Value::Str(name)) => name.clone(),
                _ => String::new(),
            };
            for scoped in group.scope_spans {
                let scope = scoped.scope.unwrap_or_default().name;
                spans.extend(scoped.spans.into_iter().map(|span| Span {
                    service: service.clone(),
                    resource: resource.clone(),
                    scope: scope.clone(),
                    ..one(span)
                }));
            }
        }
        Self(spans)
    }

    /// Adds other spans.
    pub fn extend(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// Those for which `keep` holds.
    #[must_use]
    pub fn filter(&self, keep: impl Fn(&Span) -> bool) -> Self {
        Self(self.0.iter().filter(|span| keep(span)).cloned().collect())
    }

    /// Those of a service.
    #[must_use]
    pub fn service(&self, name: &str) -> Self {
        self.filter(|span| span.service == name)
    }

    /// Those of a kind.
    #[must_use]
    pub fn kind(&self, kind: Kind) -> Self {
        self.filter(|span| span.kind == kind)
    }

    /// Those with an attribute of that value.
    #[must_use]
    pub fn with(&self, key: &str, value: impl Into<Value>) -> Self {
        let value = value.into();
        self.filter(|span| span.get(key) == Some(&value))
    }

    /// Those with the judge's marker in the path.
    #[must_use]
    pub fn marked(&self, marker: u64) -> Self {
        self.filter(|span| span.marker() == Some(marker))
    }

    /// The span with that id.
    #[must_use]
    pub fn by_id(&self, id: &[u8]) -> Option<&Span> {
        self.0.iter().find(|span| span.span_id == id)
    }

    /// How many.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All.
    pub fn iter(&self) -> std::slice::Iter<'_, Span> {
        self.0.iter()
    }

    /// The only one.
    ///
    /// # Panics
    /// If there is none or more than one.
    #[must_use]
    pub fn only(&self, what: &str) -> &Span {
        assert_eq!(self.len(), 1, "{what}: expected exactly one span, got:\n{self}");
        &self.0[0]
    }

    /// Asserts the number.
    ///
    /// # Panics
    /// If it is another.
    pub fn assert_len(&self, n: usize, what: &str) {
        assert_eq!(
            self.len(),
            n,
            "{what}: {n} spans expected, {} arrived:\n{self}",
            self.len()
        );
    }

    /// The different trace ids.
    #[must_use]
    pub fn traces(&self) -> Vec<Vec<u8>> {
        let mut ids: Vec<_> = self.0.iter().map(|span| span.trace_id.clone()).collect();
        ids.sort();
        ids.dedup();
        ids
    }
}

impl FromIterator<Span> for Spans {
    fn from_iter<T: IntoIterator<Item = Span>>(spans: T) -> Self {
        Self(spans.into_iter().collect())
    }
}

impl<'a> IntoIterator for &'a Spans {
    type Item = &'a Span;
    type IntoIter = std::slice::Iter<'a, Span>;
    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

/// As trees, one trace after the other, at most 60 lines.
impl fmt::Display for Spans {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut lines = String::new();
        for trace in self.traces() {
            let mut spans: Vec<&Span> = self.0.iter().filter(|s| s.trace_id == trace).collect();
            spans.sort_by_key(|span| span.start);
            let is_root = |span: &&Span| match &span.parent {
                None => true,
                Some(parent) => !spans.iter().any(|other| other.span_id == *parent),
            };
            for root in spans.iter().filter(|s| is_root(s)) {
                tree(&mut lines, root, &spans, 0)?;
            }
            if lines.lines().count() > 60 {
                break;
            }
        }
        for line in lines.lines().take(60) {
            writeln!(f, "  {line}")?;
        }
        Ok(())
    }
}

fn tree(out: &mut String, span: &Span, all: &[&Span], depth: usize) -> fmt::Result {
    let remote = if depth == 0 && span.parent.is_some() {
        " (parent not here)"
    } else {
        ""
    };
    writeln!(out, "{:indent$}{span}{remote}", "", indent = depth * 2)?;
    if depth > 20 {
        return writeln!(out, "...");
    }
    for child in all.iter().filter(|s| s.parent.as_ref() == Some(&span.span_id)) {
        tree(out, child, all, depth + 1)?;
    }
    Ok(())
}

fn one(span: otlp::Span) -> Span {
    assert_eq!(span.trace_id.len(), 16, "trace id of {}", span.name);
    assert_eq!(span.span_id.len(), 8, "span id of {}", span.name);
    assert!(
        matches!(span.parent_span_id.len(), 0 | 8),
        "parent id of {}",
        span.name
    );
    assert!(
        span.start_time_unix_nano <= span.end_time_unix_nano,
        "{} ends before it starts",
        span.name
    );
    let kind = Kind::try_from(span.kind).expect("a known span kind");
    let status = span.status.unwrap_or_default();
    Span {
        service: String::new(),
        resource: Attributes::new(),
        scope: String::new(),
        kind,
        error: status.code == otlp::status::StatusCode::Error as i32,
        parent: (!span.parent_span_id.is_empty()).then_some(span.parent_span_id),
        links: span
            .links
            .into_iter()
            .map(|link| (link.trace_id, link.span_id))
            .collect(),
        attributes: attributes(span.attributes),
        trace_id: span.trace_id,
        span_id: span.span_id,
        trace_state: span.trace_state,
        name: span.name,
        start: span.start_time_unix_nano,
        end: span.end_time_unix_nano,
    }
}
