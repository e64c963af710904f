//! Instance types with other devices and modules, and instances that have just been started.

use rand::Rng;

use super::super::bundled;
use super::super::facts::HARDWARE;
use super::super::plan::{Plan, Program};
use super::super::shape;

/// What another instance type changes.
pub(super) fn hardware(plan: &mut Plan<'_>) {
    match plan.facts.hardware {
        1 => amd(plan),
        2 => xen(plan),
        _ => {}
    }
}

fn types(plan: &mut Plan<'_>, brand: &str) {
    let kind = HARDWARE[plan.facts.hardware];
    plan.change("system_info", [], [("hardware_model", kind), ("cpu_brand", brand)]);
    plan.change("ec2_instance_metadata", [], [("instance_type", kind)]);
}

fn amd(plan: &mut Plan<'_>) {
    types(plan, "AMD EPYC 7R13 Processor");
    for name in ["intel_rapl_common", "intel_rapl_msr", "rapl"] {
        plan.remove("kernel_modules", [("name", name)]);
    }
    for (name, size) in [("ccp", "126976"), ("kvm_amd", "163840"), ("amd64_edac", "53248")] {
        plan.add("kernel_modules", bundled::kernel_module(name, size));
    }
}

fn xen(plan: &mut Plan<'_>) {
    types(plan, "Intel(R) Xeon(R) CPU E5-2686 v4 @ 2.30GHz");
    for name in ["nvme", "nvme_core", "ena"] {
        plan.remove("kernel_modules", [("name", name)]);
    }
    for (name, size) in [("xen_blkfront", "57344"), ("xen_netfront", "53248"), ("ixgbevf", "102400")] {
        plan.add("kernel_modules", bundled::kernel_module(name, size));
    }
    for name in ["nvme-wq", "nvme-reset-wq", "nvme-delete-wq", "ena"] {
        plan.remove("processes", [("name", name)]);
    }
    plan.change("processes", [("name", "jbd2/nvme0n1p1-8")], [("name", "jbd2/xvda1-8")]);
    for name in ["xenbus", "xenwatch"] {
        let thread = Program { parent: "2", unit: "/", ..Program::new(name, "", "") };
        let row = plan.process(&thread);
        plan.add("processes", row);
    }
    plan.change(
        "mounts",
        [("device", "/dev/nvme0n1p15")],
        [("device", "/dev/xvda15"), ("device_alias", "/dev/xvda15")],
    );
    plan.change(
        "mounts",
        [("device", "/dev/nvme1n1")],
        [("device", "/dev/xvdf"), ("device_alias", "/dev/xvdf")],
    );
}

/// What is still going on in the first hours of an instance.
pub(super) fn fresh(plan: &mut Plan<'_>) {
    if !plan.facts.fresh {
        return;
    }
    if plan.rng.random_bool(0.6) {
        let unit = "cloud-final.service";
        let cmdline = "/usr/bin/python3 /usr/bin/cloud-init modules --mode=final";
        let init = Program { unit, ..Program::new("cloud-init", "/usr/bin/python3.11", cmdline) };
        let init = plan.process(&init);
        plan.add("processes", init.clone());
        let scripts = [
            "/bin/sh /var/lib/cloud/instance/scripts/part-001",
            "/bin/sh /var/lib/cloud/instance/scripts/runcmd",
            "apt-get -qq -y install amazon-cloudwatch-agent",
        ];
        let cmdline = scripts[plan.rng.random_range(0..3)];
        let (name, path) = if cmdline.starts_with("apt") {
            ("apt-get", "/usr/bin/apt-get")
        } else {
            ("sh", "/usr/bin/dash")
        };
        let script = Program { parent: &init["pid"], unit, ..Program::new(name, path, cmdline) };
        let script = plan.process(&script);
        plan.add("processes", script);
        plan.change(
            "systemd_units",
            [("id", unit)],
            [("active_state", "activating"), ("sub_state", "start")],
        );
        plan.change("startup_items", [("name", unit)], [("status", "activating")]);
    }
    if plan.rng.random_bool(0.4) {
        plan.remove("deb_packages", [("name", "sysstat")]);
    }
    for path in ["/tmp/cloud-init.lock", "/etc/cloud/ds-identify.cfg"] {
        let content = format!("{path} {}", plan.facts.name);
        plan.add("file", shape::file(&shape::File::new(path, "0644", &content)));
    }
}
