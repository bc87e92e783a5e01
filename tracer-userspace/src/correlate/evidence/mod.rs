//! Evidence for parents, strongest first; one file per kind.
//!
//! | file | decides |
//! |---|---|
//! | [`header`] (E1) | when the exchange begins; a request that arrived waits for E2 first |
//! | [`message`] (E2) | when the second end of the message is seen |
//! | [`task`] (E3), [`thread`] (E4), through [`owner`] | when the possible owner writes its response |
//! | [`born`] (E4 of threads that are made for one request), through [`owner`] | likewise, if the thread has ended |
//! | [`submitted`] (E3 of executors), through [`owner`] | likewise |
//! | [`place`] (E3 of what waits at a channel), through [`owner`] | likewise, if it was seen to wait there |
//! | [`connection`] (E3 of what will be answered there), through [`owner`] | when the next response is written there |
//! | [`async_ids`] (E3 of event loops) | when the possible owner was answered, and the call's response read, and what followed each is over |
//! | [`event_loop`] (E5) | when the possible owner writes its response, and the loop has shown that its order means something |
//! | [`queue`] (E7) | likewise, for loops that read in batches and write in batches |
//! | [`acquirer`] (E6), through [`owner`] | when the possible owner writes its response |
//! | [`timing`] (E8) | when all possible owners have ended and no other kind told, if that is asked for |
//!
//! A weaker kind never overrules a stronger one: a parent is decided once.

mod acquirer;
pub(super) mod async_ids;
mod born;
pub(super) mod connection;
pub(super) mod event_loop;
pub(super) mod header;
mod message;
mod noted;
pub(super) mod owner;
mod place;
pub(super) mod queue;
mod submitted;
mod task;
mod thread;
pub(super) mod timing;
