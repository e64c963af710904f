//! The binary: everything is in the library.

use std::process::ExitCode;

/// Answers of many hosts are decoded on many threads and freed on others; with the C library's allocator the memory of
/// a large collection grows to twice of what is in use.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // Pages of two megabytes, which the allocator asks for, are cleared whole for a few rows: a tenth of the time of
    // what reads many small files, and up to half of its memory. Programs that we start inherit it.
    #[cfg(target_os = "linux")]
    let _ = rustix::thread::disable_transparent_huge_pages(true);
    diffy::cli::run(std::env::args_os())
}
