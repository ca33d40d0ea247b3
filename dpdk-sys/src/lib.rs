//! Raw bindings to DPDK's C library, made at build time by bindgen from `wrapper.h`, and the
//! functions of `shim.c`, which stand for DPDK's inline ones.
//!
//! Everything here is as unsafe as C is; the safe wrapper is `vmprobe::dpdk`.

#![allow(
    missing_docs,
    non_camel_case_types,
    non_snake_case,
    non_upper_case_globals,
    unsafe_op_in_unsafe_fn,
    unnecessary_transmutes,
    clippy::all,
    clippy::pedantic,
    reason = "made by a machine from C headers"
)]

include!(concat!(env!("OUT_DIR"), "/bindings.rs"));
