//! Asks the kernel by trying, where nothing else tells: loads programs of two instructions and closes them again.

use std::{
    io,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd},
};

use super::{btf::Btf, features::Answer};

/// Helpers that newer kernels give to tracing programs (include/uapi/linux/bpf.h: enum bpf_func_id).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Helpers {
    /// `bpf_get_socket_cookie` (Linux 5.12).
    pub socket_cookie: Answer,
    /// `bpf_skc_to_unix_sock` (Linux 5.16).
    pub unix_sock: Answer,
    /// `bpf_get_current_task_btf` (Linux 5.11).
    pub task_btf: Answer,
    /// `bpf_task_pt_regs` (Linux 5.15).
    pub task_registers: Answer,
}

const GET_SOCKET_COOKIE: i32 = 46;
const GET_CURRENT_TASK_BTF: i32 = 158;
const TASK_PT_REGS: i32 = 175;
const SKC_TO_UNIX_SOCK: i32 = 178;

impl Helpers {
    /// No answers.
    #[must_use]
    pub fn unknown(why: &str) -> Self {
        let unknown = || Answer::Unknown(why.to_owned());
        Self {
            socket_cookie: unknown(),
            unix_sock: unknown(),
            task_btf: unknown(),
            task_registers: unknown(),
        }
    }

    /// Asks for each.
    #[must_use]
    pub fn probe(btf: &Btf) -> Self {
        Self {
            socket_cookie: helper(btf, "bpf_get_socket_cookie", GET_SOCKET_COOKIE),
            unix_sock: helper(btf, "bpf_skc_to_unix_sock", SKC_TO_UNIX_SOCK),
            task_btf: helper(btf, "bpf_get_current_task_btf", GET_CURRENT_TASK_BTF),
            task_registers: helper(btf, "bpf_task_pt_regs", TASK_PT_REGS),
        }
    }
}

/// `struct bpf_attr` for `BPF_PROG_LOAD`, as far as it is used here.
#[repr(C)]
#[derive(Default)]
struct Load {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; 16],
    prog_ifindex: u32,
    expected_attach_type: u32,
    prog_btf_fd: u32,
    func_info_rec_size: u32,
    func_info: u64,
    func_info_cnt: u32,
    line_info_rec_size: u32,
    line_info: u64,
    line_info_cnt: u32,
    attach_btf_id: u32,
}

/// `struct bpf_attr` for `BPF_RAW_TRACEPOINT_OPEN`.
#[repr(C)]
struct Open {
    name: u64,
    prog_fd: u32,
    reserved: u32,
}

const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_RAW_TRACEPOINT_OPEN: libc::c_int = 17;
const PROG_TYPE_TRACING: u32 = 26;
const TRACE_RAW_TP: u32 = 23;
const TRACE_FENTRY: u32 = 24;

/// `call helper; exit`, `r0 = 0; exit` (Documentation/bpf/instruction-set.rst).
const fn call(helper: i32) -> u64 {
    0x85 | (helper as u32 as u64) << 32
}
const RETURN_0: u64 = 0xb7;
const EXIT: u64 = 0x95;

fn bpf<T>(command: libc::c_int, attr: &T) -> io::Result<OwnedFd> {
    // SAFETY: `attr` is one of the structs above, all of whose pointers outlive the call.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attr), size_of::<T>()) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: both commands return a new descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

fn load(insns: &[u64], attach_type: u32, attach_btf_id: u32, log: &mut [u8]) -> io::Result<OwnedFd> {
    let attr = Load {
        prog_type: PROG_TYPE_TRACING,
        insn_cnt: u32::try_from(insns.len()).unwrap_or_default(),
        insns: insns.as_ptr() as u64,
        license: c"GPL".as_ptr() as u64,
        log_level: 1,
        log_size: u32::try_from(log.len()).unwrap_or_default(),
        log_buf: log.as_mut_ptr() as u64,
        expected_attach_type: attach_type,
        attach_btf_id,
        ..Load::default()
    };
    bpf(BPF_PROG_LOAD, &attr)
}

/// Whether tracing programs may call a helper: the verifier then objects to its missing arguments at most.
fn helper(btf: &Btf, name: &str, number: i32) -> Answer {
    let Some(tracepoint) = btf.tracepoint("inet_sock_set_state") else {
        return Answer::Unknown("there is no tracepoint to try it on".to_owned());
    };
    let mut log = [0; 4096];
    let loaded = load(
        &[call(number), RETURN_0, EXIT],
        TRACE_RAW_TP,
        tracepoint,
        &mut log,
    );
    let said = String::from_utf8_lossy(&log);
    let said = said.trim_end_matches('\0');
    match loaded {
        Ok(_) => Answer::Yes,
        // kernel/bpf/verifier.c: check_helper_call
        Err(_) if said.contains("unknown func") || said.contains("invalid func") => {
            Answer::No(format!("the kernel has no {name} for tracing programs"))
        }
        Err(_) if said.contains("R1 ") => Answer::Yes,
        Err(error) => Answer::Unknown(error.to_string()),
    }
}

/// Whether trampolines can be attached to kernel functions.
pub fn trampolines(btf: &Btf) -> Answer {
    // The first exists to be hooked (net/bpf/test_run.c).
    let Some(function) = ["bpf_fentry_test1", "inet_sendmsg"]
        .iter()
        .find_map(|name| btf.function(name))
    else {
        return Answer::Unknown("there is no function to try it on".to_owned());
    };
    let mut log = [0; 4096];
    let program = match load(&[RETURN_0, EXIT], TRACE_FENTRY, function, &mut log) {
        Ok(program) => program,
        Err(error) => return refused("loading", &error),
    };
    let open = Open {
        name: 0,
        prog_fd: program.as_raw_fd().cast_unsigned(),
        reserved: 0,
    };
    match bpf(BPF_RAW_TRACEPOINT_OPEN, &open) {
        Ok(_) => Answer::Yes,
        Err(error) => refused("attaching", &error),
    }
}

/// `struct perf_event_attr` (include/uapi/linux/perf_event.h) up to what kprobes use; 112 bytes are `PERF_ATTR_SIZE_VER5`.
#[repr(C)]
#[derive(Default)]
struct Event {
    kind: u32,
    size: u32,
    config: u64,
    unused: [u64; 5],
    /// `config1`: name of the function.
    function: u64,
    /// `config2`: offset in it.
    offset: u64,
    rest: [u64; 5],
}

const _: () = assert!(size_of::<Event>() == 112);

/// Whether kprobes can be attached.
pub fn kprobes() -> Answer {
    const KIND: &str = "/sys/bus/event_source/devices/kprobe/type";
    const PERF_FLAG_FD_CLOEXEC: libc::c_ulong = 8;
    let kind = match std::fs::read_to_string(KIND) {
        Ok(text) => text.trim().parse().unwrap_or_default(),
        Err(error) => return Answer::No(format!("the kernel has no kprobe events: {KIND}: {error}")),
    };
    let event = Event {
        kind,
        size: 112,
        function: c"inet_sendmsg".as_ptr() as u64,
        ..Event::default()
    };
    let (everybody, first_cpu, no_group) = (-1, 0, -1);
    // SAFETY: the struct is as large as it says, and the name outlives the call.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_perf_event_open,
            &raw const event,
            everybody,
            first_cpu,
            no_group,
            PERF_FLAG_FD_CLOEXEC,
        )
    };
    if fd < 0 {
        let error = io::Error::last_os_error();
        return Answer::No(format!("attaching a kprobe is refused: {error}"));
    }
    // SAFETY: a new descriptor.
    drop(unsafe { OwnedFd::from_raw_fd(fd as RawFd) });
    Answer::Yes
}

fn refused(step: &str, error: &io::Error) -> Answer {
    Answer::No(format!("{step} a fentry program is refused: {error}"))
}
