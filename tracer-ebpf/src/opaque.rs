//! Values that the compiler knows nothing about.
//!
//! The compiler proves bounds over whole functions and then drops the comparison that the verifier needs to see
//! next to the access. A value that passed through here keeps its comparisons.

use core::{arch::asm, sync::atomic::AtomicU64};

/// The same value, unknown to the optimiser.
#[inline(always)]
pub fn opaque(mut value: u64) -> u64 {
    // An instruction must stand here: the kernel refuses line information of two places at one instruction.
    // SAFETY: copies a register to itself.
    unsafe { asm!("{0} = {0}", inout(reg) value, options(nomem, nostack, preserves_flags)) };
    value
}

/// Always 0, which the verifier does not know: user space could write it. As wide as a register: of less it would know that.
#[unsafe(link_section = ".data.zero")]
#[unsafe(no_mangle)]
static ZERO: AtomicU64 = AtomicU64::new(0);

/// 0 for [`blur`].
#[inline(always)]
pub fn zero() -> u64 {
    // SAFETY: memory of a map, which is there as long as the program.
    unsafe { ZERO.as_ptr().read_volatile() }
}

/// The same value, of which the verifier knows nothing any more, given [`zero`]. Two ways that differ in what it knows are walked to
/// their ends; where they have become the same, it walks once.
#[inline(always)]
pub fn blur(mut value: u64, zero: u64) -> u64 {
    // SAFETY: changes the one register that it says, to what it was.
    unsafe {
        asm!(
            "{value} += {zero}",
            value = inout(reg) value,
            zero = in(reg) zero,
            options(pure, nomem, nostack),
        );
    }
    value
}

/// The smaller of two values below 2^63, without a branch: the verifier walks both ways of one.
#[inline(always)]
pub fn smaller(mut a: u64, b: u64) -> u64 {
    // The compiler would make a branch of what says this in its own language.
    // SAFETY: changes the registers that it says.
    unsafe {
        asm!(
            "{a} -= {b}",
            "{mask} = {a}",
            "{mask} s>>= 63", // all ones if `a` is the smaller one
            "{a} &= {mask}",
            "{a} += {b}",
            a = inout(reg) a,
            b = in(reg) b,
            mask = out(reg) _,
            options(pure, nomem, nostack),
        );
    }
    a
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
