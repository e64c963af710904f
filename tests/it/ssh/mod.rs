//! `diffy collect --collector ssh` from real `sshd` processes on loopback.
#![cfg(target_os = "linux")]

mod collect;
mod ends;
mod farm;
mod fifty;
mod keys;
mod push;
