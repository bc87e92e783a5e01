//! What the operator declared about a process for OpenTelemetry: it wins over everything that we find out.

use super::procfs::Snapshot;

/// Most attributes taken from one process.
const MAX_ATTRIBUTES: usize = 64;

/// The declared name and attributes.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Declared {
    /// Attributes in the order given; `service.name` is the effective one.
    pub attributes: Vec<(Box<str>, Box<str>)>,
}

impl Declared {
    /// Reads `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES` (the OpenTelemetry SDK's rules: the first wins for the name), and
    /// the properties of the same names that Java programs are given.
    #[must_use]
    pub fn read(process: &Snapshot) -> Self {
        let mut declared = Self::default();
        let property = |name: &str| {
            let options = process.environ.get("JAVA_TOOL_OPTIONS").unwrap_or_default();
            let args = process.args.iter().map(String::as_str);
            args.chain(options.split_ascii_whitespace())
                .find_map(|arg| arg.strip_prefix("-D")?.strip_prefix(name)?.strip_prefix('='))
                .map(str::to_owned)
        };
        let variable = |name: &str| process.environ.get(name).map(str::to_owned);
        let list = property("otel.resource.attributes").or_else(|| variable("OTEL_RESOURCE_ATTRIBUTES"));
        if let Some(list) = list {
            declared.parse(&list);
        }
        if let Some(name) = property("otel.service.name").or_else(|| variable("OTEL_SERVICE_NAME")) {
            declared.set("service.name", &name);
        }
        declared
    }

    /// The declared value of an attribute.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&str> {
        self.attributes
            .iter()
            .find(|(k, _)| &**k == key)
            .map(|(_, v)| &**v)
    }

    fn parse(&mut self, list: &str) {
        for pair in list.split(',').take(MAX_ATTRIBUTES) {
            let Some((key, value)) = pair.split_once('=') else {
                continue;
            };
            let (key, value) = (key.trim(), percent_decode(value.trim()));
            if !key.is_empty() && !value.is_empty() {
                self.set(key, &value);
            }
        }
    }

    fn set(&mut self, key: &str, value: &str) {
        match self.attributes.iter_mut().find(|(k, _)| &**k == key) {
            Some((_, old)) => *old = value.into(),
            None => self.attributes.push((key.into(), value.into())),
        }
    }
}

/// RFC 3986 section 2.1; a `%` that starts no escape stays.
fn percent_decode(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let digit = |i: usize| tail.get(i).and_then(|&b| (b as char).to_digit(16));
        match (first, digit(0), digit(1)) {
            (b'%', Some(high), Some(low)) => {
                out.push((high << 4 | low) as u8);
                rest = tail.get(2..).unwrap_or_default();
            }
            _ => {
                out.push(first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}
