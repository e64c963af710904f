//! The list of tables that this collector knows.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use super::context::{Context, Gathered};
use super::{
    NativeConfig, Outcome, accounts, cron, files, kernel, network, packages, processes, shell, sockets, ssh,
    system, systemd, xattr,
};
use crate::model::Status;

/// Reads one table.
type Gather = fn(&Context) -> Gathered;

/// Every table with its reader, by family; asked for in the order of the question, not of this list.
const TABLES: &[(&str, Gather)] = &[
    ("processes", processes::processes),
    ("process_envs", processes::process_envs),
    ("process_open_files", processes::process_open_files),
    ("process_memory_map", processes::process_memory_map),
    ("listening_ports", sockets::listening_ports),
    ("process_open_sockets", sockets::process_open_sockets),
    ("kernel_modules", kernel::kernel_modules),
    ("kernel_info", kernel::kernel_info),
    ("system_controls", kernel::system_controls),
    ("mounts", kernel::mounts),
    ("apparmor_profiles", kernel::apparmor_profiles),
    ("users", accounts::users),
    ("groups", accounts::groups),
    ("user_groups", accounts::user_groups),
    ("shadow", accounts::shadow),
    ("sudoers", accounts::sudoers),
    ("logged_in_users", accounts::logged_in_users),
    ("last", accounts::last),
    ("authorized_keys", ssh::authorized_keys),
    ("known_hosts", ssh::known_hosts),
    ("user_ssh_keys", ssh::user_ssh_keys),
    ("ssh_configs", ssh::ssh_configs),
    ("shell_history", shell::shell_history),
    ("crontab", cron::crontab),
    ("cron_scripts", cron::cron_scripts),
    ("systemd_units", systemd::systemd_units),
    ("startup_items", systemd::startup_items),
    ("deb_packages", packages::deb_packages),
    ("python_packages", packages::python_packages),
    ("file", files::file),
    ("hash", files::hash),
    ("suid_bin", files::suid_bin),
    ("extended_attributes", xattr::extended_attributes),
    ("etc_hosts", network::etc_hosts),
    ("dns_resolvers", network::dns_resolvers),
    ("interface_addresses", network::interface_addresses),
    ("os_version", system::os_version),
    ("system_info", system::system_info),
    ("uptime", system::uptime),
];

/// The names of all tables.
pub(super) fn names() -> Vec<&'static str> {
    TABLES.iter().map(|(name, _)| *name).collect()
}

/// Reads one table; blocks for as long as that takes, at most about the configured time.
pub(super) fn gather(table: &str, config: &NativeConfig, stop: Arc<AtomicBool>) -> Outcome {
    let Some((_, gather)) = TABLES.iter().find(|(name, _)| *name == table) else {
        let reason = format!("the native collector does not have the table `{table}`");
        return (Status::NotSupported, Vec::new(), reason);
    };
    let context = Context::new(&config.root, Instant::now() + config.timeout, stop);
    gather(&context).finish()
}
