//! Constants that user space puts into the instructions before it loads the programs ([`tracer_common::CONSTANTS`]): where fields
//! lie in this host's kernel structs, and the few other numbers that differ from host to host. To the verifier they are constants
//! like any other.

use core::arch::asm;

use tracer_common::{OFFSET_MARK, OFFSET_REACH, VALUE_MARK, constant};

/// The constant with that number.
#[derive(Clone, Copy)]
pub struct Constant<const NUMBER: u16>;

macro_rules! constants {
    ($($name:ident),+ $(,)?) => {
        $( pub const $name: Constant<{ constant::$name }> = Constant; )+
    };
}

tracer_common::with_constants!(constants);

impl<const NUMBER: u16> Constant<NUMBER> {
    /// Its value.
    #[inline(always)]
    pub fn load(self) -> u32 {
        self.wide() as u32
    }

    /// Its value.
    #[inline(always)]
    pub fn wide(self) -> u64 {
        let value: u64;
        // SAFETY: changes the one register that it says.
        unsafe {
            asm!(
                "{value} = {mark}",
                value = lateout(reg) value,
                mark = const VALUE_MARK + NUMBER as i32,
                options(pure, nomem, nostack, preserves_flags),
            );
        }
        // SAFETY: user space refuses what does not fit into 31 bits.
        unsafe { core::hint::assert_unchecked(value <= i32::MAX as u64) };
        value
    }

    /// The `N` bytes at that field of the struct at `base`, and `DELTA` bytes behind its start.
    ///
    /// # Safety
    /// The verifier lets the program load them.
    #[inline(always)]
    pub unsafe fn of<const N: usize, const DELTA: i16>(self, base: *const u8) -> u64 {
        let value: u64;
        macro_rules! load {
            ($size:literal) => {
                // SAFETY: as the caller promises; changes the one register that it says.
                unsafe {
                    asm!(
                        concat!("{value} = *(", $size, " *)({base} + {mark})"),
                        value = lateout(reg) value,
                        base = in(reg) base,
                        mark = const OFFSET_MARK + NUMBER as i16 * OFFSET_REACH + DELTA,
                        options(readonly, nostack, preserves_flags),
                    )
                }
            };
        }
        match N {
            1 => load!("u8"),
            2 => load!("u16"),
            4 => load!("u32"),
            _ => load!("u64"),
        }
        if N < 8 {
            // SAFETY: a load of so many bytes leaves zeros above them.
            unsafe { core::hint::assert_unchecked(value >> (8 * N) == 0) };
        }
        value
    }
}
