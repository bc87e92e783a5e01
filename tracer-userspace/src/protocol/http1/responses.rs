//! The server's lane: response heads, and how exchanges end with their responses.

use super::framing::{Framing, response_framing};
use super::head::{self, Fields, MAX_HEAD, Parsed};
use super::line::{StartLine, StatusLine};
use super::session::{Http1Session, State};
use crate::model::Stamp;
use crate::protocol::{Marks, Output, Side, by_name};
use crate::telemetry::Reason;

/// What a response head tells.
#[derive(Clone, Copy, Default)]
pub struct Response {
    pub(super) status: u16,
    /// What follows the head, unless the request was HEAD: then nothing does.
    pub(super) framing: Framing,
    /// The protocol that follows a switch.
    upgrade: Option<&'static str>,
}

impl Response {
    fn new(line: StatusLine, fields: &Fields<'_>) -> Self {
        Self {
            status: line.status,
            framing: response_framing(line.status, false, fields),
            upgrade: fields.upgrade.and_then(upgraded),
        }
    }
}

impl Http1Session {
    /// The next piece of a response head; returns the bytes taken, 0 to wait for more.
    pub(super) fn response_head(
        &mut self,
        rest: &[u8],
        at: usize,
        marks: &Marks<'_>,
        out: &mut Output<'_>,
    ) -> usize {
        if let Some(len) = self.last_response.recall(rest) {
            self.respond(len, at, marks, out);
            return len;
        }
        match head::read_on::<StatusLine>(rest, self.server.searched) {
            Parsed::Whole((line, fields), len) => {
                self.last_response.told = Response::new(line, &fields);
                self.last_response
                    .keep(rest.get(..len).unwrap_or_default(), fields.date);
                self.respond(len, at, marks, out);
                len
            }
            Parsed::Incomplete if rest.len() >= MAX_HEAD => {
                self.cut_head(Side::Server, rest, at, marks, out);
                rest.len()
            }
            Parsed::Incomplete => {
                self.server.searched = rest.len();
                0
            }
            Parsed::Bad => {
                if let Some(open) = self.open.front_mut().filter(|open| !open.response.done) {
                    open.answered = true;
                }
                self.malformed(Side::Server, out);
                self.count(
                    Side::Server,
                    rest.len() as u64,
                    None,
                    marks.stamp(at + rest.len() - 1),
                );
                rest.len()
            }
        }
    }

    /// The last response head, which is `len` bytes long.
    fn respond(&mut self, len: usize, at: usize, marks: &Marks<'_>, out: &mut Output<'_>) {
        let Response {
            status,
            framing,
            upgrade,
        } = self.last_response.told;
        self.server.run += len as u64;
        self.sizing.head(Side::Server, self.server.run);
        let last = marks.stamp(at + len - 1);
        let interim = (100..200).contains(&status) && status != 101;
        if !interim {
            self.next_response(out);
        }
        let Some(open) = self.open.front_mut() else {
            // Nobody asked, as far as we saw: its framing may depend on the request.
            self.server.stray();
            return;
        };
        if interim {
            open.expects_continue &= status != 100;
            self.count_head(Side::Server, len as u64, last);
            self.server.enter(State::Head);
            return;
        }
        let first = marks.stamp(at);
        open.answered = true;
        open.status = Some(status);
        open.exchange.first_byte = Some(*first);
        let (is_head, is_connect) = (open.is_head, open.is_connect);
        out.respond(open.id(), *first);
        self.count_head(Side::Server, len as u64, last);
        if status == 101 || (is_connect && (200..300).contains(&status)) {
            self.hand_over(upgrade.filter(|_| status == 101), out);
            return;
        }
        match framing {
            _ if is_head => self.message_done(Side::Server, last, out),
            Framing::None => self.message_done(Side::Server, last, out),
            Framing::Body(body) => self.server.enter(State::Body(body)),
            Framing::Broken => self.malformed(Side::Server, out),
        }
    }

    /// A final response begins: the one before it is over, even if its end passed unseen or its request never ended.
    pub(super) fn next_response(&mut self, out: &mut Output<'_>) {
        if let Some(open) = self.open.front_mut().filter(|open| open.answered) {
            open.response.done = true;
            self.finish(out);
        }
    }

    /// The connection goes on in another protocol.
    pub(super) fn hand_over(&mut self, next: Option<&'static str>, out: &mut Output<'_>) {
        self.finish(out);
        self.drop_all(Reason::Abandoned, out);
        self.client.enter(State::Over);
        self.server.enter(State::Over);
        out.switch_to(next);
    }

    /// The first response ended.
    pub(super) fn response_done(&mut self, out: &mut Output<'_>) {
        let vague = self.client.is_vague();
        let Some(open) = self.open.front_mut() else {
            return;
        };
        open.response.done = true;
        if !open.request.done && vague {
            // The end of the request passed unseen; its response says that it came.
            open.request.done = true;
            out.request_end(open.id(), open.request_last);
        }
        if open.request.done {
            self.finish(out);
        }
    }

    /// A response head of which only the beginning was captured. False if it tells nothing.
    pub(super) fn cut_response(
        &mut self,
        partial: &[u8],
        first: &Stamp,
        last: &Stamp,
        out: &mut Output<'_>,
    ) -> bool {
        let cut = head::read_cut::<StatusLine>(partial).map(|(line, _)| line);
        let Some(line) = cut
            .or_else(|| StatusLine::parse(partial))
            .filter(|line| line.status >= 200)
        else {
            return false;
        };
        self.next_response(out);
        let Some(open) = self.open.front_mut() else {
            return false;
        };
        open.answered = true;
        open.status = Some(line.status);
        open.exchange.first_byte = Some(*first);
        open.response.content = None;
        out.respond(open.id(), *first);
        self.count_head(Side::Server, partial.len() as u64, last);
        true
    }
}

/// The registered protocol behind an `Upgrade` field's first protocol.
fn upgraded(field: &[u8]) -> Option<&'static str> {
    let first = field.split(|b| matches!(b, b',' | b'/')).next()?.trim_ascii();
    let name = if first.eq_ignore_ascii_case(b"websocket") {
        "websocket"
    } else if first.eq_ignore_ascii_case(b"h2c") {
        "http2"
    } else {
        return None;
    };
    by_name(name).map(|protocol| protocol.name())
}
