//! Joins the stages.

mod batch;
mod connect;
mod lane;
