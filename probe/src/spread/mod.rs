//! spread
