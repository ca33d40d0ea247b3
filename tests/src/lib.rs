//! What the tests share.

pub mod captures;
pub mod records;
pub mod replaying;
