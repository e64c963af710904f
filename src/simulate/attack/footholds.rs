//! More ways to stay: accounts, timers, hooks of the package manager and of devices.

use rand::Rng;

use super::super::plan::Plan;
use super::super::row::cells;
use super::super::seed::{self, pick};
use super::super::shape::{self, File, Unit};
use super::{Scenario, daemon_name};

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        id: "second-deploy-key",
        title: "The deploy account has a second key with the usual comment.",
        attack: "T1098.004",
        subtle: true,
        plant: second_deploy_key,
    },
    Scenario {
        id: "new-user",
        title: "An account that no other host has may log in.",
        attack: "T1136.001",
        subtle: false,
        plant: new_user,
    },
    Scenario {
        id: "timer",
        title: "A timer starts a service that no package brought.",
        attack: "T1053.006",
        subtle: false,
        plant: timer,
    },
    Scenario {
        id: "package-source",
        title: "Packages are also taken from a source that no other host has.",
        attack: "T1195.002",
        subtle: false,
        plant: package_source,
    },
    Scenario {
        id: "package-hook",
        title: "Every installation of a package runs a command.",
        attack: "T1546.016",
        subtle: true,
        plant: package_hook,
    },
    Scenario {
        id: "device-rule",
        title: "A rule for devices runs a command.",
        attack: "T1546.017",
        subtle: true,
        plant: device_rule,
    },
    Scenario {
        id: "module-option",
        title: "A file tells the kernel to load a module at every boot.",
        attack: "T1547.006",
        subtle: true,
        plant: module_option,
    },
];

fn second_deploy_key(plan: &mut Plan<'_>) {
    let Some(usual) = plan.base.find("authorized_keys", "username", "deploy").cloned() else { return };
    let mut row = usual;
    row.insert("key".to_owned(), seed::ssh_key(&mut plan.rng));
    if plan.rng.random_bool(0.5) {
        row.insert("options".to_owned(), String::new());
    }
    plan.plant("authorized_keys", row, &["username", "key"]);
}

fn new_user(plan: &mut Plan<'_>) {
    let stem = pick(&mut plan.rng, &["support", "backup", "svc", "ansible", "guest", "dev", "test", "git"]);
    let name = format!("{stem}{}", seed::letters(&mut plan.rng, 2));
    let uid = plan.rng.random_range(1_003..1_200).to_string();
    let home = format!("/home/{name}");
    plan.plant("users", shape::user(&uid, &name, &home, "/bin/bash"), &["uid", "username"]);
    plan.add("groups", cells([("gid", &uid), ("gid_signed", &uid), ("groupname", &name)]));
    plan.plant("user_groups", shape::member(&uid, &name, "27", "sudo"), &["username", "groupname"]);
}

fn timer(plan: &mut Plan<'_>) {
    let name = daemon_name(&mut plan.rng);
    for (suffix, sub) in [("timer", "waiting"), ("service", "dead")] {
        let id = format!("{name}.{suffix}");
        let path = format!("/etc/systemd/system/{id}");
        let unit = Unit {
            id: &id,
            description: pick(&mut plan.rng, &["Periodic maintenance", "Housekeeping", "Cache refresh"]),
            active_state: if suffix == "timer" { "active" } else { "inactive" },
            sub_state: sub,
            unit_file_state: if suffix == "timer" { "enabled" } else { "static" },
            fragment_path: &path,
            user: "",
        };
        plan.plant("systemd_units", shape::unit(&unit), &["id", "fragment_path"]);
        plan.plant_file(&File::new(&path, "0644", &path));
    }
}

fn file_in(plan: &mut Plan<'_>, directory: &str, ending: &str) {
    let stem = pick(&mut plan.rng, &["10", "20", "50", "60", "70", "99"]);
    let word = pick(&mut plan.rng, &["net", "cache", "update", "disk", "local", "log", "core"]);
    let more = seed::letters(&mut plan.rng, 2);
    let path = format!("{directory}/{stem}-{word}{more}{ending}");
    plan.plant_file(&File::new(&path, "0644", &path));
}

fn package_source(plan: &mut Plan<'_>) {
    let word = format!(
        "{}{}",
        pick(&mut plan.rng, &["node", "py", "hc", "gl", "k"]),
        seed::letters(&mut plan.rng, 3)
    );
    for path in [format!("/etc/apt/sources.list.d/{word}.list"), format!("/etc/apt/trusted.gpg.d/{word}.gpg")]
    {
        plan.plant_file(&File::new(&path, "0644", &path));
    }
}

fn package_hook(plan: &mut Plan<'_>) {
    file_in(plan, "/etc/apt/apt.conf.d", "");
}

fn device_rule(plan: &mut Plan<'_>) {
    file_in(plan, "/etc/udev/rules.d", ".rules");
}

fn module_option(plan: &mut Plan<'_>) {
    file_in(plan, "/etc/modprobe.d", ".conf");
}
