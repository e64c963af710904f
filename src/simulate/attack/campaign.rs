//! One intruder on many hosts: the same program, unit and server to call, whatever the role.

use super::super::plan::Plan;
use super::super::plan::Program;
use super::super::seed::{self, pick, public_address};
use super::super::shape::{self, File, Unit};
use super::{Scenario, connected, daemon_name, hiding_place};

/// Planted with the same chance on every host that it is dealt to.
pub(in super::super) const CAMPAIGN: Scenario = Scenario {
    id: "campaign",
    title: "The same implant is on many hosts of different roles.",
    attack: "T1543.002",
    subtle: true,
    plant: campaign,
};

fn campaign(plan: &mut Plan<'_>) {
    let name = daemon_name(&mut plan.rng);
    let path = format!("{}/{name}", hiding_place(&mut plan.rng));
    let (address, port) =
        (public_address(&mut plan.rng), pick(&mut plan.rng, &["443", "8443", "53", "8080"]));
    let short: String = name.chars().take(15).collect();
    let id = format!("{name}.service");
    connected(plan, &Program { unit: &id, ..Program::new(&short, &path, &path) }, (&address, port));
    let fragment = format!("/etc/systemd/system/{id}");
    let word = seed::letters(&mut plan.rng, 6);
    if word.as_str() < "n" {
        plan.plant_unit(&Unit {
            id: &id,
            description: "Host telemetry",
            active_state: "active",
            sub_state: "running",
            unit_file_state: "enabled",
            fragment_path: &fragment,
            user: "",
        });
        plan.plant_file(&File::new(&fragment, "0644", &fragment));
    } else {
        let row = shape::cron(["*/20", "*", "*", "*", "*"], &path, "/var/spool/cron/crontabs/root");
        plan.plant("crontab", row, &["command", "path"]);
    }
}
