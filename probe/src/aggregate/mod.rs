//! aggregate

pub mod live;
