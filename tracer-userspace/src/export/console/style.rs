//! Colours and the terminal they are for.

use rustix::termios::tcgetwinsize;

use super::super::config::{Colour, Console};

/// Width of a line where there is no terminal to ask.
const WIDTH: usize = 110;
/// Narrower or wider than this, a trace cannot be read.
const WIDTHS: std::ops::RangeInclusive<usize> = 60..=220;

/// What the output is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in super::super) struct Screen {
    pub is_terminal: bool,
    pub palette: Palette,
    /// Columns, where the environment says so.
    pub columns: Option<usize>,
}

impl Screen {
    /// Decides on colour: what the configuration says, else a terminal without `NO_COLOR` (<https://no-color.org>) that is not dumb.
    pub fn detect(config: &Console, is_terminal: bool, env: &dyn Fn(&str) -> Option<String>) -> Self {
        let is_coloured = match config.colour {
            Colour::Always => true,
            Colour::Never => false,
            Colour::Auto => {
                is_terminal
                    && env("NO_COLOR").is_none_or(|value| value.is_empty())
                    && env("TERM").is_none_or(|term| term != "dumb")
            }
        };
        let columns = env("COLUMNS").and_then(|columns| columns.parse().ok());
        Self {
            is_terminal,
            palette: Palette { is_coloured },
            columns,
        }
    }

    /// Columns now: windows change their size.
    pub fn width(&self) -> usize {
        let terminal = || {
            let size = self
                .is_terminal
                .then(|| tcgetwinsize(rustix::stdio::stdout()).ok())
                .flatten()?;
            Some(usize::from(size.ws_col)).filter(|&columns| columns > 0)
        };
        let width = terminal().or(self.columns).unwrap_or(WIDTH);
        width.clamp(*WIDTHS.start(), *WIDTHS.end())
    }
}

/// How text stands out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in super::super) enum Ink {
    Plain,
    Dim,
    Bold,
    Error,
    /// A service's own colour.
    Service(u8),
}

/// Colours, or none.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in super::super) struct Palette {
    pub is_coloured: bool,
}

impl Palette {
    /// Appends text.
    pub fn paint(self, out: &mut Vec<u8>, ink: Ink, text: &str) {
        let code: &str = match ink {
            Ink::Plain => "",
            Ink::Dim => "\x1b[2m",
            Ink::Bold => "\x1b[1m",
            Ink::Error => "\x1b[31m",
            // The six hues of every terminal's own theme, but red, which means failure.
            Ink::Service(n) => [
                "\x1b[36m", "\x1b[32m", "\x1b[33m", "\x1b[34m", "\x1b[35m", "\x1b[96m", "\x1b[92m",
                "\x1b[94m",
            ]
            .get(usize::from(n % 8))
            .copied()
            .unwrap_or_default(),
        };
        if !self.is_coloured || code.is_empty() || text.is_empty() {
            out.extend_from_slice(text.as_bytes());
            return;
        }
        out.extend_from_slice(code.as_bytes());
        out.extend_from_slice(text.as_bytes());
        out.extend_from_slice(b"\x1b[0m");
    }
}

/// The same service has the same colour in every run.
pub(super) fn ink_of(service: &str) -> Ink {
    let hash = service.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
    });
    Ink::Service((hash >> 32) as u8)
}
