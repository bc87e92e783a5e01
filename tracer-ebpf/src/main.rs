//! The BPF programs of the tracer: what each thread moved over which socket, in which order, when.
//!
//! The kernel side states facts and keeps no opinions. One kernel subject per file:
//!
//! - [`message`]: bytes moved over a socket;
//! - [`arrival`]: when bytes arrived in a socket's buffer (`sk_data_ready`);
//! - [`loops`]: what event loops do that moves no bytes (`epoll_pwait` and reads of their eventfds);
//! - [`process`]: who uses sockets (`sched_process_exec`, `sched_process_exit`, and each process's first use);
//! - [`lifecycle`]: opens, closes and resets (`inet_sock_set_state`, `tcp_receive_reset`, `tcp_send_reset`).
//!
//! A back end is a file of programs that see messages move and tell [`message`]: [`tracepoint`], [`fentry`]. User space loads those of one
//! back end (`tracer-userspace/src/kernel/plan.rs`); what is behind them does not know which. A back end says how its programs
//! may read kernel memory ([`access`]) and where the bytes lie ([`buffers`]).
//!
//! Struct offsets are read-only globals that user space sets from the host's BTF before it loads the
//! programs ([`layout`]); the verifier sees constants.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

mod access;
mod arrival;
mod batch;
mod buffers;
mod calls;
mod conns;
mod descriptor;
mod emit;
mod fentry;
mod flag;
mod identity;
mod iter;
mod kprobe;
mod layout;
mod lifecycle;
mod loops;
mod message;
mod opaque;
mod payload;
mod process;
mod registers;
mod relay;
mod runtime;
mod socket;
mod syscall;
mod tracepoint;
mod unit;
mod uring;

use aya_ebpf::Global;

/// Version of the structs in `tracer-common` that these programs were built with.
#[unsafe(no_mangle)]
static ABI_VERSION: Global<u32> = Global::new(tracer_common::ABI_VERSION);

/// Licence of the programs, as the kernel's verifier wants to read it.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
