//! AWS on loopback: Auto Scaling groups whose instances really run what Systems Manager sends them.

pub(crate) mod bench;
mod bench_test;
mod collect;
