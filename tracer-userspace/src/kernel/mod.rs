//! What this kernel and these privileges allow, and what is done with it.

mod btf;
mod layout;

pub use btf::{Btf, Error as BtfError, VMLINUX};
pub use layout::{FIELDS, Field, Layout};

/// What the attach stage does on this host.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Plan {
    /// Where kernel structs have their fields.
    pub layout: Layout,
    /// BTF tracepoints that are attached; a program of the same name belongs to each.
    pub tracepoints: Vec<&'static str>,
}

/// Plans for this host.
pub fn plan_for_this_host() -> anyhow::Result<Plan> {
    let btf = Btf::of_this_kernel()??;
    let layout = Layout::resolve(&btf).map_err(|errors| anyhow::anyhow!("{errors:?}"))?;
    let tracepoints = [
        "sock_send_length",
        "sock_recv_length",
        "sk_data_ready",
        "inet_sock_set_state",
        "tcp_receive_reset",
        "tcp_send_reset",
    ]
    .into_iter()
    .filter(|name| btf.has_tracepoint(name))
    .collect();
    Ok(Plan { layout, tracepoints })
}
