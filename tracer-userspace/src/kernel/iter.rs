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
    let mut globals = resolve_fields(btf, FIELDS)?;
    let mut add = |name, found: Result<u32, Error>| {
        found
            .map(|value| globals.push((name, value)))
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
    Ok(globals)
}
