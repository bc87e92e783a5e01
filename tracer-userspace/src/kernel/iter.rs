//! `struct msghdr` and the `struct iov_iter` in it (include/linux/socket.h, include/linux/uio.h), whose shape changed often: kinds
//! were bits of `type` and are numbers in `iter_type` since Linux 5.14, `ITER_UBUF` came with 6.0, `iov` is `__iov` since 6.4.

use super::{
    btf::{Btf, Error},
    layout::{Field, field, resolve as resolve_fields},
};

const FIELDS: &[Field] = &[
    field("SOCKET__SK", "socket", "sk", 8),
    field("MSGHDR__OFFSET", "msghdr", "msg_iter.iov_offset", 8),
    field("MSGHDR__SEGMENTS", "msghdr", "msg_iter.nr_segs", 8),
];

/// A kind that no iterator has.
const NEVER: u32 = 0xffff;

/// Offsets, the kinds of iterators by number, and the bits of the byte that holds the kind.
pub fn resolve(btf: &Btf) -> Result<Vec<(&'static str, u32)>, Vec<Error>> {
    let mut constants = resolve_fields(btf, FIELDS)?;
    let mut add = |name, found: Result<u32, Error>| {
        found
            .map(|value| constants.push((name, value)))
            .map_err(|error| vec![error])
    };
    // Bit 0 of the older form is the direction; all kinds are in its lowest byte.
    let new = btf.field("msghdr", "msg_iter.iter_type", 1);
    let old = || btf.field("msghdr", "msg_iter.type", 4);
    add("ITER_KIND_MASK", Ok(if new.is_ok() { 0xff } else { 0xfe }))?;
    add("MSGHDR__KIND", new.or_else(|error| old().or(Err(error))))?;
    let renamed = btf.field("msghdr", "msg_iter.__iov", 8);
    add(
        "MSGHDR__VECTORS",
        renamed.or_else(|_| btf.field("msghdr", "msg_iter.iov", 8)),
    )?;
    let vectors = btf.value("iter_type", "ITER_IOVEC");
    add(
        "ITER_IOVEC",
        vectors.ok_or(Error::NoValue("iter_type", "ITER_IOVEC")),
    )?;
    match btf.value("iter_type", "ITER_UBUF") {
        Some(buffer) => {
            add("ITER_UBUF", Ok(buffer))?;
            add("MSGHDR__BUFFER", btf.field("msghdr", "msg_iter.ubuf", 8))?;
        }
        None => {
            add("ITER_UBUF", Ok(NEVER))?;
            add("MSGHDR__BUFFER", Ok(0))?;
        }
    }
    Ok(constants)
}

#[cfg(test)]
mod tests {
    use super::super::btf::tests::Builder;
    use super::*;

    /// A kernel whose `struct iov_iter` has these members, (name, size, offset), at 16 of a `struct msghdr`.
    fn kernel(members: &[(&str, u32, u32)], kinds: &[(&str, u32)]) -> Btf {
        let mut b = Builder::new();
        let pointer = b.pointer();
        let members: Vec<_> = members
            .iter()
            .map(|(name, size, offset)| (*name, b.integer(*size), *offset))
            .collect();
        let iter = b.compound("iov_iter", false, 40, &members);
        b.compound("msghdr", false, 96, &[("msg_iter", iter, 16)]);
        b.compound("socket", false, 128, &[("sk", pointer, 24)]);
        b.values("iter_type", kinds);
        Btf::parse(&b.bytes()).expect("sound types")
    }

    fn check(name: &str, btf: &Btf, expected: &[(&str, u32)]) {
        let found = resolve(btf).expect(name);
        for (global, value) in expected {
            let is = found.iter().find(|(found, _)| found == global);
            assert_eq!(is.map(|(_, value)| value), Some(value), "{name}: {global}");
        }
    }

    #[test]
    fn every_shape_is_understood() {
        check(
            "5.10",
            &kernel(
                &[
                    ("type", 4, 0),
                    ("iov_offset", 8, 8),
                    ("count", 8, 16),
                    ("iov", 8, 24),
                    ("nr_segs", 8, 32),
                ],
                &[("ITER_IOVEC", 4), ("ITER_KVEC", 8)],
            ),
            &[
                ("MSGHDR__KIND", 16),
                ("ITER_KIND_MASK", 0xfe),
                ("ITER_IOVEC", 4),
                ("ITER_UBUF", NEVER),
                ("MSGHDR__OFFSET", 24),
                ("MSGHDR__VECTORS", 40),
                ("MSGHDR__SEGMENTS", 48),
                ("SOCKET__SK", 24),
            ],
        );
        check(
            "6.1",
            &kernel(
                &[
                    ("iter_type", 1, 0),
                    ("iov_offset", 8, 8),
                    ("iov", 8, 24),
                    ("ubuf", 8, 24),
                    ("nr_segs", 8, 32),
                ],
                &[("ITER_IOVEC", 0), ("ITER_UBUF", 6)],
            ),
            &[
                ("MSGHDR__KIND", 16),
                ("ITER_KIND_MASK", 0xff),
                ("ITER_IOVEC", 0),
                ("ITER_UBUF", 6),
                ("MSGHDR__BUFFER", 40),
            ],
        );
        check(
            "6.12",
            &kernel(
                &[
                    ("iter_type", 1, 0),
                    ("iov_offset", 8, 8),
                    ("__iov", 8, 16),
                    ("ubuf", 8, 16),
                    ("nr_segs", 8, 32),
                ],
                &[("ITER_UBUF", 0), ("ITER_IOVEC", 1)],
            ),
            &[
                ("ITER_IOVEC", 1),
                ("ITER_UBUF", 0),
                ("MSGHDR__VECTORS", 32),
                ("MSGHDR__BUFFER", 32),
            ],
        );
    }

    #[test]
    fn a_shape_that_is_not_understood_is_named() {
        let members = [("iov_offset", 8, 8), ("__iov", 8, 16), ("nr_segs", 8, 32)];
        let why = resolve(&kernel(&members, &[("ITER_IOVEC", 1)])).expect_err("no kind");
        assert_eq!(why, [Error::NoField("msghdr", "msg_iter.iter_type")]);
        let members = [
            ("iter_type", 1, 0),
            ("iov_offset", 8, 8),
            ("__iov", 8, 16),
            ("nr_segs", 8, 32),
        ];
        let why = resolve(&kernel(&members, &[])).expect_err("no kinds");
        assert_eq!(why, [Error::NoValue("iter_type", "ITER_IOVEC")]);
    }
}
