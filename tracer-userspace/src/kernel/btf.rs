//! Reads the kernel's type information (BTF, Documentation/bpf/btf.rst): where a field lies, and which BTF
//! tracepoints there are. One pass over the types, then look-ups; a few milliseconds for a whole kernel.
//!
//! The libraries at hand do not fit: aya keeps its types to itself, and the others are slow to parse or licensed in
//! a way that a static binary cannot follow.

use std::fmt;

/// Where the kernel shows its type information.
pub const VMLINUX: &str = "/sys/kernel/btf/vmlinux";

/// Types may be nested this deep at most (a chain of typedefs, structs in structs).
const MAX_DEPTH: usize = 32;

/// A kernel type.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Kind(u32);

impl Kind {
    const INT: Self = Self(1);
    const PTR: Self = Self(2);
    const ARRAY: Self = Self(3);
    const STRUCT: Self = Self(4);
    const UNION: Self = Self(5);
    const ENUM: Self = Self(6);
    const FWD: Self = Self(7);
    const TYPEDEF: Self = Self(8);
    const VOLATILE: Self = Self(9);
    const CONST: Self = Self(10);
    const RESTRICT: Self = Self(11);
    const FUNC: Self = Self(12);
    const FUNC_PROTO: Self = Self(13);
    const VAR: Self = Self(14);
    const DATASEC: Self = Self(15);
    const FLOAT: Self = Self(16);
    const DECL_TAG: Self = Self(17);
    const TYPE_TAG: Self = Self(18);
    const ENUM64: Self = Self(19);

    /// Bytes that follow the 12 bytes of every type. `None` for a kind that this reader does not know: it cannot be skipped.
    fn extra(self, count: usize) -> Option<usize> {
        match self {
            Self::PTR | Self::FWD | Self::TYPEDEF | Self::VOLATILE | Self::CONST | Self::RESTRICT => Some(0),
            Self::FUNC | Self::FLOAT | Self::TYPE_TAG => Some(0),
            Self::INT | Self::VAR | Self::DECL_TAG => Some(4),
            Self::ARRAY => Some(12),
            Self::STRUCT | Self::UNION | Self::DATASEC | Self::ENUM64 => count.checked_mul(12),
            Self::ENUM | Self::FUNC_PROTO => count.checked_mul(8),
            _ => None,
        }
    }
}

/// Why type information could not be used.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Error {
    /// The bytes are not BTF of this machine's byte order, or break off.
    Malformed,
    /// No struct of that name.
    NoStruct(&'static str),
    /// The struct has no such field.
    NoField(&'static str, &'static str),
    /// The enum has no such value.
    NoValue(&'static str, &'static str),
    /// The field is there, but is not as large as the programs expect: (struct, field, expected, found), in bytes.
    Size(&'static str, &'static str, u32, u32),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed => write!(f, "malformed type information"),
            Self::NoStruct(name) => write!(f, "no struct {name}"),
            Self::NoField(name, field) => write!(f, "struct {name} has no field {field}"),
            Self::NoValue(name, value) => write!(f, "enum {name} has no value {value}"),
            Self::Size(name, field, expected, found) => {
                write!(
                    f,
                    "struct {name}: field {field} has {found} bytes, expected {expected}"
                )
            }
        }
    }
}

impl std::error::Error for Error {}

/// Parsed type information.
pub struct Btf {
    types: Vec<u8>,
    strings: Vec<u8>,
    /// Offset of each type in `types`; the first has id 1.
    index: Vec<u32>,
}

#[derive(Clone, Copy)]
struct Type<'a> {
    name: u32,
    kind: Kind,
    /// Members, where the kind has them.
    count: usize,
    /// Whether member offsets carry bit-field sizes.
    bit_fields: bool,
    /// Size in bytes, or id of the type it refers to.
    size_or_type: u32,
    extra: &'a [u8],
}

#[derive(Clone, Copy)]
struct Member {
    name: u32,
    id: u32,
    offset: u32,
}

impl Btf {
    /// Reads the running kernel's.
    pub fn of_this_kernel() -> std::io::Result<Result<Self, Error>> {
        Ok(Self::parse(&std::fs::read(VMLINUX)?))
    }

    /// Parses (`struct btf_header`, include/uapi/linux/btf.h).
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        Self::try_parse(bytes).ok_or(Error::Malformed)
    }

    fn try_parse(bytes: &[u8]) -> Option<Self> {
        const MAGIC: u16 = 0xeb9f;
        if u16::from_ne_bytes(*bytes.first_chunk()?) != MAGIC {
            return None;
        }
        let body = bytes.get(word(bytes, 4)? as usize..)?;
        let section = |offset: usize, length: usize| {
            let start = word(bytes, offset)? as usize;
            let end = start.checked_add(word(bytes, length)? as usize)?;
            body.get(start..end)
        };
        let types = section(8, 12)?;
        let strings = section(16, 20)?;
        let mut index = Vec::with_capacity(types.len() / 32);
        let mut at = 0usize;
        while at < types.len() {
            index.push(u32::try_from(at).ok()?);
            at = at.checked_add(12)?.checked_add(decode(types, at)?.extra.len())?;
        }
        Some(Self {
            types: types.to_vec(),
            strings: strings.to_vec(),
            index,
        })
    }

    /// Id of a kernel function.
    #[must_use]
    pub fn function(&self, name: &str) -> Option<u32> {
        self.find(Kind::FUNC, name)
    }

    /// Id of a BTF tracepoint (`typedef void (*btf_trace_NAME)(void *, …)`).
    #[must_use]
    pub fn tracepoint(&self, name: &str) -> Option<u32> {
        self.find(Kind::TYPEDEF, &format!("btf_trace_{name}"))
    }

    /// A value of an enum (`struct btf_enum`: name, value).
    #[must_use]
    pub fn value(&self, name: &str, value: &str) -> Option<u32> {
        let found = self.get(self.find(Kind::ENUM, name)?)?;
        (0..found.count).find_map(|index| {
            let at = index.checked_mul(8)?;
            self.is_named(word(found.extra, at)?, value.as_bytes())
                .then(|| word(found.extra, at.checked_add(4)?))?
        })
    }

    /// Offset in bytes of a field; `path` is the names of nested fields joined by dots. Members of unnamed structs and
    /// unions count as the outer struct's own. `size` is what the reader expects the field to have, in bytes.
    pub fn field(&self, name: &'static str, path: &'static str, size: u32) -> Result<u32, Error> {
        let mut id = self.find(Kind::STRUCT, name).ok_or(Error::NoStruct(name))?;
        let mut bits = 0u32;
        for part in path.split('.') {
            let member = self
                .member(id, part.as_bytes(), 0)
                .ok_or(Error::NoField(name, path))?;
            bits = bits.checked_add(member.offset).ok_or(Error::Malformed)?;
            id = member.id;
        }
        let found = self.size(id, 0).ok_or(Error::Malformed)?;
        if found != size || !bits.is_multiple_of(8) {
            return Err(Error::Size(name, path, size, found));
        }
        Ok(bits / 8)
    }

    fn get(&self, id: u32) -> Option<Type<'_>> {
        let at = *self.index.get(id.checked_sub(1)? as usize)?;
        decode(&self.types, at as usize)
    }

    fn find(&self, kind: Kind, name: &str) -> Option<u32> {
        let id = self.index.iter().position(|at| {
            decode(&self.types, *at as usize)
                .is_some_and(|found| found.kind == kind && self.is_named(found.name, name.as_bytes()))
        })?;
        u32::try_from(id).ok()?.checked_add(1)
    }

    fn is_named(&self, offset: u32, name: &[u8]) -> bool {
        let rest = self.strings.get(offset as usize..).unwrap_or_default();
        rest.strip_prefix(name)
            .is_some_and(|rest| rest.first() == Some(&0))
    }

    fn member(&self, id: u32, name: &[u8], depth: usize) -> Option<Member> {
        let outer = self.get(self.resolve(id)?)?;
        if depth > MAX_DEPTH || (outer.kind != Kind::STRUCT && outer.kind != Kind::UNION) {
            return None;
        }
        for at in 0..outer.count {
            let member = outer.member(at)?;
            if self.is_named(member.name, name) {
                return Some(member);
            }
            if self.is_named(member.name, b"")
                && let Some(inner) = self.member(member.id, name, depth + 1)
            {
                let offset = member.offset.checked_add(inner.offset)?;
                return Some(Member { offset, ..inner });
            }
        }
        None
    }

    /// Follows typedefs and qualifiers.
    fn resolve(&self, mut id: u32) -> Option<u32> {
        for _ in 0..MAX_DEPTH {
            let found = self.get(id)?;
            match found.kind {
                Kind::TYPEDEF | Kind::VOLATILE | Kind::CONST | Kind::RESTRICT | Kind::TYPE_TAG => {
                    id = found.size_or_type;
                }
                _ => return Some(id),
            }
        }
        None
    }

    fn size(&self, id: u32, depth: usize) -> Option<u32> {
        let found = self.get(self.resolve(id)?)?;
        match found.kind {
            Kind::INT | Kind::STRUCT | Kind::UNION | Kind::ENUM | Kind::ENUM64 | Kind::FLOAT => {
                Some(found.size_or_type)
            }
            Kind::PTR => Some(8),
            Kind::ARRAY if depth < MAX_DEPTH => {
                let element = self.size(word(found.extra, 0)?, depth + 1)?;
                element.checked_mul(word(found.extra, 8)?)
            }
            _ => None,
        }
    }
}

impl Type<'_> {
    fn member(&self, index: usize) -> Option<Member> {
        let at = index.checked_mul(12)?;
        let offset = word(self.extra, at.checked_add(8)?)?;
        // With bit-field sizes the upper 8 bits hold the size. A bit field's offset is no field of its own here: such
        // members are only asked for by mistake, and then the size does not fit.
        let offset = if self.bit_fields {
            offset & 0x00ff_ffff
        } else {
            offset
        };
        Some(Member {
            name: word(self.extra, at)?,
            id: word(self.extra, at.checked_add(4)?)?,
            offset,
        })
    }
}

fn decode(types: &[u8], at: usize) -> Option<Type<'_>> {
    let rest = types.get(at..)?;
    let info = word(rest, 4)?;
    let kind = Kind(info >> 24 & 0x1f);
    let count = (info & 0xffff) as usize;
    let extra = rest.get(12..)?.get(..kind.extra(count)?)?;
    Some(Type {
        name: word(rest, 0)?,
        kind,
        count,
        bit_fields: info >> 31 == 1,
        size_or_type: word(rest, 8)?,
        extra,
    })
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes
        .get(at..)?
        .first_chunk()
        .map(|word| u32::from_ne_bytes(*word))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Builds BTF: types as words, and the strings that they name.
    pub struct Builder {
        types: Vec<u32>,
        strings: Vec<u8>,
        count: u32,
    }

    impl Builder {
        pub fn new() -> Self {
            Self {
                types: Vec::new(),
                strings: vec![0],
                count: 0,
            }
        }

        pub fn name(&mut self, name: &str) -> u32 {
            if name.is_empty() {
                return 0;
            }
            let at = self.strings.len() as u32;
            self.strings.extend(name.as_bytes());
            self.strings.push(0);
            at
        }

        fn add(&mut self, name: &str, kind: Kind, count: u32, size_or_type: u32, extra: &[u32]) -> u32 {
            let name = self.name(name);
            self.types.extend([name, kind.0 << 24 | count, size_or_type]);
            self.types.extend(extra);
            self.count += 1;
            self.count
        }

        /// An integer of so many bytes.
        pub fn integer(&mut self, size: u32) -> u32 {
            self.add("", Kind::INT, 0, size, &[size * 8])
        }

        pub fn pointer(&mut self) -> u32 {
            self.add("", Kind::PTR, 0, 0, &[])
        }

        /// A struct, or a union, of members (name, type, offset in bytes).
        pub fn compound(&mut self, name: &str, union: bool, size: u32, members: &[(&str, u32, u32)]) -> u32 {
            let kind = if union { Kind::UNION } else { Kind::STRUCT };
            let extra: Vec<u32> = members
                .iter()
                .flat_map(|(name, id, offset)| [self.name(name), *id, offset * 8])
                .collect();
            self.add(name, kind, members.len() as u32, size, &extra)
        }

        pub fn values(&mut self, name: &str, values: &[(&str, u32)]) -> u32 {
            let extra: Vec<u32> = values
                .iter()
                .flat_map(|(name, value)| [self.name(name), *value])
                .collect();
            self.add(name, Kind::ENUM, values.len() as u32, 4, &extra)
        }

        pub fn bytes(&self) -> Vec<u8> {
            let types = self.types.len() as u32 * 4;
            let mut bytes = Vec::new();
            bytes.extend(0xeb9fu16.to_ne_bytes());
            bytes.extend([1, 0]);
            for word in [24, 0, types, types, self.strings.len() as u32] {
                bytes.extend(word.to_ne_bytes());
            }
            for word in &self.types {
                bytes.extend(word.to_ne_bytes());
            }
            bytes.extend(&self.strings);
            bytes
        }
    }

    /// `typedef u32 word; struct inner { u16 a; u16 b; }; struct outer { u32 x; union { struct { u16 p; u16 q; }; word w; };
    /// struct inner nested; word list[3]; struct outer *next; }; typedef void btf_trace_event; enum kind { ONE = 1, TWO = 7 }; void call();`
    fn sample() -> Vec<u8> {
        let mut b = Builder::new();
        b.add("u16", Kind::INT, 0, 2, &[16]); // 1
        b.add("u32", Kind::INT, 0, 4, &[32]); // 2
        b.add("word", Kind::TYPEDEF, 0, 2, &[]); // 3
        let (a, c, p, q, w) = (b.name("a"), b.name("b"), b.name("p"), b.name("q"), b.name("w"));
        b.add("inner", Kind::STRUCT, 2, 4, &[a, 1, 0, c, 1, 16]); // 4
        b.add("", Kind::STRUCT, 2, 4, &[p, 1, 0, q, 1, 16]); // 5
        b.add("", Kind::UNION, 2, 4, &[0, 5, 0, w, 3, 0]); // 6
        b.add("", Kind::ARRAY, 0, 0, &[3, 2, 3]); // 7
        b.add("", Kind::PTR, 0, 9, &[]); // 8
        let (x, n, l, t) = (b.name("x"), b.name("nested"), b.name("list"), b.name("next"));
        let members = [x, 2, 0, 0, 6, 32, n, 4, 64, l, 7, 96, t, 8, 192];
        b.add("outer", Kind::STRUCT, 5, 32, &members); // 9
        b.add("btf_trace_event", Kind::TYPEDEF, 0, 0, &[]); // 10
        let (one, two) = (b.name("ONE"), b.name("TWO"));
        b.add("kind", Kind::ENUM, 2, 4, &[one, 1, two, 7]); // 11
        b.add("call", Kind::FUNC, 0, 0, &[]); // 12
        b.bytes()
    }

    #[test]
    fn fields_are_found_by_name() {
        let btf = Btf::parse(&sample()).unwrap();
        for (path, size, expected) in [
            ("x", 4, Ok(0)),
            ("p", 2, Ok(4)),
            ("q", 2, Ok(6)),
            ("w", 4, Ok(4)),
            ("nested.b", 2, Ok(10)),
            ("list", 12, Ok(12)),
            ("next", 8, Ok(24)),
            ("x", 8, Err(Error::Size("outer", "x", 8, 4))),
            ("nested.c", 2, Err(Error::NoField("outer", "nested.c"))),
            ("nothing", 4, Err(Error::NoField("outer", "nothing"))),
            ("x.y", 4, Err(Error::NoField("outer", "x.y"))),
        ] {
            assert_eq!(btf.field("outer", path, size), expected, "{path}");
        }
        assert_eq!(btf.field("missing", "x", 4), Err(Error::NoStruct("missing")));
        for (value, expected) in [("ONE", Some(1)), ("TWO", Some(7)), ("THREE", None)] {
            assert_eq!(btf.value("kind", value), expected, "{value}");
        }
        assert_eq!((btf.function("call"), btf.function("event")), (Some(12), None));
        assert!(btf.tracepoint("event").is_some() && btf.tracepoint("even").is_none());
    }

    #[test]
    fn broken_bytes_are_refused_or_harmless() {
        let bytes = sample();
        for end in 0..bytes.len() {
            assert!(Btf::parse(&bytes[..end]).is_err(), "cut at {end}");
        }
        // Any byte may be wrong: nothing panics, and nothing loops for ever.
        for at in 0..bytes.len() {
            for value in [0, 1, 7, 0x7f, 0xff] {
                let mut bytes = bytes.clone();
                bytes[at] = value;
                if let Ok(btf) = Btf::parse(&bytes) {
                    let _ = (
                        btf.field("outer", "nested.b", 2),
                        btf.field("outer", "next", 8),
                        btf.tracepoint("event"),
                    );
                }
            }
        }
    }
}
