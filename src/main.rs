//! The binary: everything is in the library.

use std::process::ExitCode;

/// Answers of many hosts are decoded on many threads and freed on others; with the C library's allocator the memory of
/// a large collection grows to twice of what is in use.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    diffy::cli::run(std::env::args_os())
}
