//! What explains rows that came together: a package, a kernel, an image, hardware, somebody who is logged in.
//!
//! Each row is explained or not by itself: a package does not explain what merely came on the same hosts.

use roaring::RoaringBitmap;

use super::super::lines::Loaded;
use super::items::Item;
use super::values::{Values, identity_values};
use crate::catalog::Strength;
use crate::model::FindingKind;

/// Shorter parts of names match by chance.
const SHORTEST: usize = 4;
/// From this many of them on drivers are hardware.
const FEWEST_DRIVERS: usize = 2;
/// Where packages put files.
const INSTALLED: [&str; 7] = ["/usr/", "/bin/", "/sbin/", "/lib", "/opt/", "/etc/", "/boot/"];
/// Starts of the names of drivers for what a machine, real or virtual, is made of.
const DRIVERS: [&str; 22] = [
    "ahci", "amd", "ata_", "crc", "e1000", "ena", "floppy", "hv_", "i2c", "igb", "intel", "ixgbe", "kvm",
    "megaraid", "mlx", "mpt", "nvidia", "nvme", "t10", "virtio", "vmw", "xen",
];
/// Columns of ports and addresses.
const ADDRESSES: [&str; 6] =
    ["address", "local_address", "local_port", "port", "remote_address", "remote_port"];
/// Tables that say on what a host runs.
const HARDWARE: [&str; 4] = ["system_info", "ec2_instance_metadata", "interface_addresses", "mounts"];
/// Processes that a login brings.
const OF_A_LOGIN: [&str; 10] =
    ["(sd-pam)", "bash", "dbus-daemon", "login", "sh", "sshd", "sshd-session", "su", "sudo", "systemd"];
/// Where these are.
const OF_THE_SYSTEM: [&str; 5] = ["/usr/bin/", "/usr/sbin/", "/usr/lib/", "/bin/", "/lib/"];
/// Tables that say who is or was logged in.
const LOGINS: [&str; 2] = ["last", "logged_in_users"];

/// A row with what is known of it inside of a campaign.
#[derive(Debug)]
pub(super) struct Part<'a> {
    pub(super) item: &'a Item,
    pub(super) table: &'a str,
    /// The values that make it what it is, by column.
    pub(super) values: Vec<(String, String)>,
    /// Those of them that stand in no row outside of the campaign.
    pub(super) only: Vec<(String, String)>,
}

impl<'a> Part<'a> {
    pub(super) fn new(
        tables: &'a [Loaded<'_>],
        values: &Values,
        (item, members): (&'a Item, &RoaringBitmap),
    ) -> Self {
        Self {
            item,
            table: tables[item.table].name(),
            values: identity_values(tables, item, Strength::Strict).into_iter().collect(),
            only: values.only_of(tables, item, members),
        }
    }

    fn value(&self, column: &str) -> &str {
        self.values.iter().find(|(name, _)| name == column).map_or("", |(_, value)| value)
    }

    fn is_package(&self) -> bool {
        self.table.ends_with("_packages")
    }

    fn mentions(&self, text: &str) -> bool {
        text.len() >= SHORTEST && self.values.iter().any(|(_, value)| value.to_lowercase().contains(text))
    }

    /// One of the kernel's own, which have neither path nor command line.
    fn is_kernel_thread(&self) -> bool {
        self.table == "processes" && self.value("path").is_empty() && self.value("cmdline").is_empty()
    }

    /// A kernel thread of one processor: `migration/2`.
    fn is_of_a_processor(&self) -> bool {
        let number = self.value("name").rsplit_once('/').map_or("", |(_, number)| number);
        self.is_kernel_thread() && number.starts_with(|c: char| c.is_ascii_digit())
    }

    fn is_new(&self, column: &str) -> bool {
        self.only.iter().any(|(name, _)| name == column)
    }

    /// Whether the two came by one cause: a user, its group and its home; a listener, its process and its file.
    pub(super) fn has_cause_of(&self, other: &Self) -> bool {
        let tells = |(_, value): &&(String, String)| value.len() >= SHORTEST;
        let contains = |a: &str, b: &str| a.contains(b) || b.contains(a);
        let mine = self.only.iter().filter(tells);
        mine.clone()
            .any(|(_, mine)| other.only.iter().filter(tells).any(|(_, theirs)| contains(mine, theirs)))
    }
}

/// Something benign, and which rows it explains.
enum Cause {
    Image(String),
    Kernel(String),
    Package { name: String, version: String },
    Hardware(Vec<String>),
    Login(String),
}

/// For each row what explains it, in words.
pub(super) fn explained(parts: &[Part<'_>]) -> Vec<Option<String>> {
    let causes = causes(parts);
    let of = |part: &Part<'_>| causes.iter().find(|cause| cause.explains(part)).map(Cause::words);
    let mut explained: Vec<Option<String>> = parts.iter().map(of).collect();
    // Where most rows came with a package, so did the ports and addresses of programs that others have too.
    let package = causes.iter().find(|cause| matches!(cause, Cause::Package { .. })).map(Cause::words);
    if explained.iter().flatten().count() * 2 >= parts.len() {
        for (part, explained) in parts.iter().zip(&mut explained) {
            if explained.is_none() && part.only.iter().all(|(column, _)| ADDRESSES.contains(&column.as_str()))
            {
                explained.clone_from(&package);
            }
        }
    }
    explained
}

fn causes(parts: &[Part<'_>]) -> Vec<Cause> {
    let mut causes = Vec::new();
    let image = parts.iter().find(|part| part.table == "ec2_instance_metadata" && part.is_new("ami_id"));
    causes.extend(image.map(|part| Cause::Image(part.value("ami_id").to_owned())));
    let is_kernel =
        |name: &str| name.starts_with("linux-image-") || name == "kernel" || name.starts_with("kernel-core");
    for part in parts {
        if part.table == "kernel_info" {
            let version = part.value("version");
            let version = if version.is_empty() { part.value("path") } else { version };
            causes.push(Cause::Kernel(version.to_lowercase()));
        } else if part.is_package() && is_kernel(part.value("name")) {
            causes.push(Cause::Kernel(part.value("name").trim_start_matches("linux-image-").to_lowercase()));
        } else if part.is_package() {
            let version =
                [part.value("version"), part.value("revision")].into_iter().filter(|text| !text.is_empty());
            let version = version.collect::<Vec<&str>>().join("-");
            causes.push(Cause::Package { name: part.value("name").to_lowercase(), version });
        }
    }
    causes.extend(hardware(parts));
    causes.extend(parts.iter().find(|part| is_login(part)).map(|part| Cause::Login(login_of(part))));
    causes
}

fn hardware(parts: &[Part<'_>]) -> Option<Cause> {
    let drivers: Vec<String> =
        parts.iter().filter(|part| is_driver(part)).map(|part| part.value("name").to_owned()).collect();
    let kind = parts.iter().find(|part| part.is_new("instance_type") || part.is_new("hardware_model"));
    let kind = kind.map(|part| format!("{}{}", part.value("instance_type"), part.value("hardware_model")));
    let processors = parts.iter().filter(|part| part.is_of_a_processor()).count() >= FEWEST_DRIVERS;
    let mut named: Vec<String> = kind.into_iter().collect();
    named.extend(processors.then(|| "number of processors".to_owned()));
    if drivers.len() >= FEWEST_DRIVERS {
        named.extend(drivers.iter().take(3).map(|name| format!("module {name}")));
    }
    (!named.is_empty()).then_some(Cause::Hardware(named))
}

fn is_driver(part: &Part<'_>) -> bool {
    part.table == "kernel_modules" && DRIVERS.iter().any(|driver| part.value("name").starts_with(driver))
}

/// Units and mounts that systemd makes for somebody who is logged in.
fn is_login(part: &Part<'_>) -> bool {
    let is_unit = |id: &str| {
        ["user@", "user-runtime-dir@", "session-", "user-"].iter().any(|start| id.starts_with(start))
            && [".service", ".scope", ".slice"].iter().any(|end| id.ends_with(end))
    };
    match part.table {
        "startup_items" => is_unit(part.value("name")),
        "systemd_units" => is_unit(part.value("id")) && !part.value("id").starts_with("user-sessions"),
        "mounts" => part.value("path").starts_with("/run/user/"),
        table => LOGINS.contains(&table),
    }
}

fn login_of(part: &Part<'_>) -> String {
    let user = [part.value("user"), part.value("username")].into_iter().find(|user| !user.is_empty());
    user.map_or_else(|| "a login".to_owned(), |user| format!("a login of {user}"))
}

impl Cause {
    fn explains(&self, part: &Part<'_>) -> bool {
        match self {
            Self::Image(_) => true,
            Self::Kernel(version) => {
                part.table == "kernel_info"
                    || (part.is_package() && part.value("name").starts_with("linux-"))
                    || (part.table == "kernel_modules" && part.item.kind == FindingKind::Variant)
                    || part.mentions(version)
            }
            Self::Package { name, .. } => {
                let is_content = part.item.kind == FindingKind::Variant
                    && part
                        .values
                        .iter()
                        .any(|(_, value)| INSTALLED.iter().any(|start| value.starts_with(start)));
                (part.is_package() && part.value("name").eq_ignore_ascii_case(name))
                    || is_content
                    || part.mentions(stem(name))
            }
            Self::Hardware(_) => {
                HARDWARE.contains(&part.table)
                    || is_driver(part)
                    || part.is_kernel_thread()
                    || (part.table == "systemd_units" && part.value("id").starts_with("dev-"))
            }
            Self::Login(_) => {
                is_login(part)
                    || (part.table.starts_with("process")
                        && OF_A_LOGIN.contains(&part.value("name"))
                        && (!part.is_new("path")
                            || OF_THE_SYSTEM.iter().any(|start| part.value("path").starts_with(start))))
            }
        }
    }

    fn words(&self) -> String {
        match self {
            Self::Image(image) => format!("image {image}"),
            Self::Kernel(version) => format!("kernel {version}"),
            Self::Package { name, version } if version.is_empty() => format!("package {name}"),
            Self::Package { name, version } => format!("package {name} {version}"),
            Self::Hardware(names) => format!("hardware: {}", names.join(", ")),
            Self::Login(words) => words.clone(),
        }
    }
}

/// `postgresql` of `postgresql-15`, `nginx` of `nginx-common`.
fn stem(package: &str) -> &str {
    let package = package.strip_prefix("lib").unwrap_or(package);
    let end = package.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(package.len());
    package[..end].trim_end_matches(|c: char| c.is_ascii_digit())
}
