//! What the programs share: markers, settings, work. It knows no runtime.

use std::sync::LazyLock;

use sha2::{Digest, Sha256};

/// What went wrong, if anything.
pub type Done = Result<(), String>;

static KEY: LazyLock<String> = LazyLock::new(|| setting("MARKER_KEY"));
/// Where even calls go, and odd ones.
pub static BASES: LazyLock<[String; 2]> =
    LazyLock::new(|| [setting("A") + "/leaf/", setting("B") + "/branch/"]);
/// From the environment.
#[must_use]
pub fn setting(name: &str) -> String {
    std::env::var(name).unwrap_or_default()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The marker of call `call`.
#[must_use]
pub fn child(marker: &str, call: usize) -> String {
    hex(&Sha256::digest(format!("{}/{marker}/{call}", *KEY))[..8])
}

/// Keeps the processor busy.
pub fn work(marker: &str) {
    let mut sum = Sha256::digest(marker);
    for _ in 0..2000 {
        sum = Sha256::digest(sum);
    }
    std::hint::black_box(sum);
}
