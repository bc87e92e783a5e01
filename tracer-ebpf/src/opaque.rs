//! Values that the compiler knows nothing about.
//!
//! The compiler proves bounds over whole functions and then drops the comparison that the verifier needs to see
//! next to the access. A value that passed through here keeps its comparisons.

use core::arch::asm;

/// The same value, unknown to the optimiser.
#[inline(always)]
pub fn opaque(mut value: u64) -> u64 {
    // An instruction must stand here: the kernel refuses line information of two places at one instruction.
    // SAFETY: copies a register to itself.
    unsafe { asm!("{0} = {0}", inout(reg) value, options(nomem, nostack, preserves_flags)) };
    value
}

/// `value`, at most `max`, with a comparison that stays.
#[inline(always)]
pub fn at_most(mut value: u64, max: u64) -> u64 {
    // SAFETY: changes the one register that it says; jumps within itself.
    unsafe {
        asm!(
            "if {value} <= {max} goto +1",
            "{value} = {max}",
            value = inout(reg) value,
            max = in(reg) max,
            options(nomem, nostack),
        );
    }
    value
}
