//! The method `campaigns`: rows of two or more tables on (nearly) the same hosts, across peer groups.
//!
//! Many hosts with the same rows hide each other from everything that looks for what is rare; together they stand out
//! because nothing else divides the fleet like that.

mod causes;
mod items;
mod judge;
mod settings;
mod values;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use roaring::RoaringBitmap;

use self::items::Item;
use self::judge::{Judge, Judged, JudgedRow, looked_at};
use self::settings::Settings;
use self::values::Values;
use super::Scored;
use super::candidate::{Candidate, Method, Subject};
use super::explain::finding_id;
use super::fleet::FleetState;
use super::lines::Loaded;
use super::peers::{PeerGroups, peer_groups, row_name};
use super::sets::together;
use crate::model::{self, CampaignRow, Verdict};

/// Sets whose rows are looked at, the most promising by their outline.
const LOOKED_AT: usize = 300;
/// Campaigns that are reported, and rows shown of each.
const REPORTED: usize = 25;
const ROWS_SHOWN: usize = 6;
/// A weaker campaign is noise.
const WORTH_REPORTING: f64 = 8.0;
/// From this score on the rows of a campaign that nothing explains are findings of its hosts.
const UNEXPLAINED: f64 = 60.0;
/// From this many tables on that it adds rows to: a process has a socket or a file by itself.
const FEWEST_TABLES: usize = 3;
/// What more than this share of the hosts have is not rare.
const RARE: f64 = 0.1;
/// Most that a row of a campaign scores: what one host alone has says more about that host.
const MOST_SCORE: f64 = 70.0;
/// Rows of one campaign that become findings of each host.
const MOST_FINDINGS: usize = 12;
/// Scores of hosts in such a campaign: they are to be reviewed, and the stronger the campaign the earlier.
const REVIEW: (f64, f64) = (50.0, 70.0);

/// The campaigns of a fleet, the strongest first.
#[derive(Debug, Default)]
pub(super) struct Campaigns {
    found: Vec<Found>,
    hosts: u64,
}

/// One of them.
#[derive(Debug)]
struct Found {
    judged: Judged,
    /// The rows of `judged`.
    items: BTreeMap<usize, Item>,
    reason: String,
    rows: Vec<CampaignRow>,
    findings: Vec<String>,
}

/// Finds and ranks the campaigns.
pub(super) fn campaigns(tables: &[Loaded<'_>], groups: &PeerGroups, state: &FleetState) -> Campaigns {
    let started = std::time::Instant::now();
    // Kinds of hosts are no campaigns, whether anybody asked for peer groups or not.
    let found_here = groups.groups.is_empty().then(|| peer_groups(tables, state));
    let kinds = found_here.as_ref().unwrap_or(groups);
    let items = items::items(tables);
    let heard: Vec<&RoaringBitmap> = tables.iter().map(|table| &table.answers.heard).collect();
    let mut sets = together(&items, &heard, state.hosts.len());
    let hosts = state.heard().len();
    let judge =
        Judge { tables, items: &items, groups: kinds, sizes: &sizes(&items, state.hosts.len()), hosts };
    sets.sort_by_cached_key(|set| {
        let millionths = (judge.outline(set) * 1e6) as u64;
        (std::cmp::Reverse(millionths), set.members.min(), set.items.first().copied())
    });
    let (count, all) = (sets.len(), items.len());
    sets.truncate(LOOKED_AT);
    let settings = Settings::of(tables, kinds, &items, sets.iter().flat_map(looked_at));
    let values = Values::of(tables, sets.iter().flat_map(|set| &set.items).map(|item| &items[*item]));
    let mut judged: Vec<Judged> = sets.iter().map(|set| judge.judge(set, (&values, &settings))).collect();
    judged.retain(|judged| judged.score >= WORTH_REPORTING);
    judged.sort_by(|a, b| b.score.total_cmp(&a.score).then_with(|| a.members.iter().cmp(b.members.iter())));
    judged.truncate(REPORTED);
    let found = judged.into_iter().map(|judged| found(judged, (tables, &items), groups, hosts)).collect();
    let seconds = started.elapsed().as_secs_f64();
    tracing::info!(rows = all, sets = count, seconds, "looked for campaigns");
    Campaigns { found, hosts }
}

fn sizes(items: &[Item], hosts: usize) -> Vec<u32> {
    let mut sizes = vec![0; hosts + 1];
    items.iter().for_each(|item| sizes[item.members.len() as usize] += 1);
    sizes
}

fn found(
    judged: Judged,
    (tables, items): (&[Loaded<'_>], &[Item]),
    groups: &PeerGroups,
    hosts: u64,
) -> Found {
    let mut rows: Vec<&JudgedRow> = judged.rows.iter().collect();
    // One of each table first.
    let mut seen: HashMap<usize, usize> = HashMap::new();
    rows.sort_by_cached_key(|row| {
        let of_table = seen.entry(items[row.item].table).or_default();
        *of_table += 1;
        (row.explained_by.is_some(), *of_table)
    });
    let shown = |row: &&JudgedRow| {
        let item = &items[row.item];
        let table = &tables[item.table];
        CampaignRow {
            table: table.name().to_owned(),
            kind: item.kind,
            row: item.lines.first().map(|line| table.lines.row(line)).unwrap_or_default(),
            hosts_with_row: item.members.len(),
            explained_by: row.explained_by.clone(),
        }
    };
    let reason = reason(&judged, &rows, (tables, items), (groups, hosts));
    let rows = rows.iter().take(ROWS_SHOWN).map(shown).collect();
    let items = judged.rows.iter().map(|row| (row.item, items[row.item].clone())).collect();
    Found { reason, rows, items, judged, findings: Vec::new() }
}

fn reason(
    judged: &Judged,
    rows: &[&JudgedRow],
    (tables, items): (&[Loaded<'_>], &[Item]),
    (groups, hosts): (&PeerGroups, u64),
) -> String {
    let members = &judged.members;
    let touched = groups.groups.iter().filter(|group| !group.hosts.is_disjoint(members)).count();
    let across = match groups.groups.len() {
        0 | 1 => String::new(),
        all => format!(", in {touched} of {all} peer groups"),
    };
    let name = |row: &&&JudgedRow| {
        let item = &items[row.item];
        let table = &tables[item.table];
        let name = item.lines.first().and_then(|line| row_name(&table.lines, line))?;
        Some(format!("{} {name}", table.name()))
    };
    let named: Vec<String> = rows.iter().take(3).filter_map(|row| name(&row)).collect();
    let explained = judged.rows.iter().filter(|row| row.explained_by.is_some()).count();
    let because = match &judged.explained_by {
        Some(cause) => format!("; most likely {cause}"),
        None if judged.is_kind => {
            "; so many tables, and installed software among them, are another kind of host rather".to_owned()
        }
        None if judged.added == 0 => "; the other hosts have other values in these places".to_owned(),
        None if explained > 0 => format!("; {explained} of the rows are explained, the others are not"),
        None => "; no package, kernel, image or hardware explains them".to_owned(),
    };
    format!(
        "the same {} of {hosts} hosts{across} have {} rows of {} in common: {}{because}",
        members.len(),
        judged.rows.len(),
        listed(&judged.tables),
        named.join(", "),
    )
}

fn listed(names: &[String]) -> String {
    match names.split_last() {
        Some((last, first)) if !first.is_empty() => format!("{} and {last}", first.join(", ")),
        _ => names.concat(),
    }
}

impl Found {
    fn is_unexplained(&self) -> bool {
        let Judged { explained_by, added, is_kind, score, .. } = &self.judged;
        explained_by.is_none() && *added >= FEWEST_TABLES && !is_kind && *score >= UNEXPLAINED
    }

    fn open_rows(&self) -> impl Iterator<Item = (&JudgedRow, &Item)> {
        let open = self.judged.rows.iter().filter(|row| row.explained_by.is_none() && !row.is_setting);
        open.filter_map(|row| Some((row, self.items.get(&row.item)?)))
    }

    /// What findings of the campaign say beside what they are.
    fn note(&self, table: &str, hosts: u64) -> String {
        let others: Vec<String> = self.judged.tables.iter().filter(|name| *name != table).cloned().collect();
        let rows = self.open_rows().count().saturating_sub(1);
        let rows = if rows == 1 { "1 other row".to_owned() } else { format!("{rows} other rows") };
        let of = if others.is_empty() { String::new() } else { format!(" of {}", listed(&others)) };
        format!("this row and {rows}{of} stand on the same {} of {hosts} hosts", self.judged.members.len())
    }

    fn host_score(&self) -> f64 {
        let share = (self.judged.score - UNEXPLAINED) / (100.0 - UNEXPLAINED);
        REVIEW.0 + share.clamp(0.0, 1.0) * (REVIEW.1 - REVIEW.0)
    }
}

impl Campaigns {
    /// Candidates for the rows of one table (its place among the loaded ones) that stand in an unexplained campaign,
    /// with their scores.
    pub(super) fn candidates(&self, number: usize, table: &Loaded<'_>) -> Vec<(Candidate, f64)> {
        let mut found = Vec::new();
        for campaign in self.found.iter().filter(|campaign| campaign.is_unexplained()) {
            for (row, item) in
                campaign.open_rows().take(MOST_FINDINGS).filter(|(_, item)| item.table == number)
            {
                for host in &item.members & &campaign.judged.members {
                    let Some(line) = table.lines.line_of(&item.lines, host) else { continue };
                    let candidate = candidate((row, item), table, (host, line));
                    found.push((candidate, campaign.judged.score.min(MOST_SCORE)));
                }
            }
        }
        found
    }

    /// Notes which findings belong to a campaign, and says so in their reasons.
    pub(super) fn tell(&mut self, scored: &mut [Scored], tables: &[Loaded<'_>], state: &FleetState) {
        let by_id: HashMap<String, usize> =
            scored.iter().enumerate().map(|(number, scored)| (scored.finding.id.clone(), number)).collect();
        let mut told = BTreeSet::new();
        for campaign in &mut self.found {
            let mut findings = Vec::new();
            for row in &campaign.judged.rows {
                let Some(item) = campaign.items.get(&row.item) else { continue };
                let table = tables[item.table].name();
                for host in &item.members & &campaign.judged.members {
                    let id = finding_id(table, (item.kind, &item.id), &state.hosts[host as usize]);
                    let Some(number) = by_id.get(&id) else { continue };
                    if row.explained_by.is_none()
                        && !row.is_setting
                        && campaign.is_unexplained()
                        && told.insert(*number)
                    {
                        let note = campaign.note(table, self.hosts);
                        let finding = &mut scored[*number].finding;
                        finding.reason = format!("{}; {note}", finding.reason);
                    }
                    findings.push(id);
                }
            }
            campaign.findings = findings;
        }
    }

    /// Hosts of an unexplained campaign are to be reviewed, however common what they have is.
    pub(super) fn raise(&self, hosts: &mut [model::HostResult], state: &FleetState) {
        let mut least: HashMap<&str, f64> = HashMap::new();
        for campaign in self.found.iter().filter(|campaign| campaign.is_unexplained()) {
            for host in &campaign.judged.members {
                let least = least.entry(&state.hosts[host as usize]).or_default();
                *least = least.max((campaign.host_score() * 10.0).round() / 10.0);
            }
        }
        for host in hosts.iter_mut() {
            let Some(least) = least.get(host.host.as_str()) else { continue };
            host.score = host.score.max(*least);
            if host.verdict == Verdict::Normal {
                host.verdict = Verdict::Review;
            }
        }
        hosts.sort_by(|a, b| b.score.total_cmp(&a.score).then_with(|| a.host.cmp(&b.host)));
        (1..).zip(hosts).for_each(|(rank, host)| host.rank = rank);
    }

    /// What a reader must know before trusting the ranking by what is rare.
    pub(super) fn warnings(&self) -> Vec<String> {
        let is_common = |found: &&Found| found.judged.members.len() as f64 > self.hosts as f64 * RARE;
        let unexplained = self.found.iter().filter(|campaign| campaign.is_unexplained());
        let widest = unexplained.filter(is_common).max_by_key(|campaign| campaign.judged.members.len());
        let warning = |found: &Found| {
            format!(
                "the same {} of {} hosts have rows of {} in common that nothing explains: the method frequency cannot see what so many share",
                found.judged.members.len(),
                self.hosts,
                listed(&found.judged.tables)
            )
        };
        widest.map(warning).into_iter().collect()
    }

    /// As outputs show them.
    pub(super) fn shown(self, state: &FleetState) -> Vec<model::Campaign> {
        let shown = |found: Found| model::Campaign {
            hosts: found.judged.members.iter().map(|host| state.hosts[host as usize].clone()).collect(),
            findings: found.findings,
            reason: found.reason,
            score: found.judged.score,
            tables: found.judged.tables,
            rows: found.rows,
            explained_by: found.judged.explained_by,
        };
        self.found.into_iter().map(shown).collect()
    }
}

fn candidate((row, item): (&JudgedRow, &Item), table: &Loaded<'_>, (host, line): (u32, usize)) -> Candidate {
    Candidate {
        hosts_with_row: item.members.len(),
        hosts_answered: table.answers.heard.len(),
        hosts_with_thing: item.members.len(),
        rare_columns: row.only.clone(),
        id: item.id,
        strict: Some(table.lines.lines[line].strict),
        ..Candidate::new(Method::Campaigns, item.kind, host, Subject::Line(line))
    }
}

#[cfg(test)]
mod tests {
    use super::super::peers::peer_groups;
    use super::super::testing::Fleet;
    use super::*;

    const VICTIMS: [u32; 6] = [3, 11, 20, 34, 47, 58];

    /// Sixty hosts of one kind, with settings of three zones and noise of their own.
    fn fleet() -> Fleet {
        let mut fleet = Fleet::new(60, |host| format!("web-{host}"));
        for table_row in 0..30 {
            fleet.row("processes", &format!("name=p{table_row}|path=/usr/sbin/p{table_row}|euid=0"), 0..60);
        }
        for host in 0..60 {
            fleet.row("processes", &format!("name=own|path=/run/{host}|euid=0"), [host]);
        }
        for zone in 0..3 {
            let members = || (0..60).filter(|host| host % 3 == zone).collect::<Vec<u32>>();
            fleet.row("hash", &format!("path=/etc/resolv.conf|sha256={zone}"), members());
            fleet.row("process_envs", &format!("key=ZONE|name=p1|value=zone-{zone}"), members());
        }
        fleet
    }

    fn worm(fleet: &mut Fleet, victims: &[u32]) {
        let victims = || victims.iter().copied();
        fleet.row("processes", "name=netd|path=/usr/lib/netd/netd|euid=0", victims());
        fleet.row("crontab", "command=/usr/lib/netd/netd -d|path=/etc/cron.d/netd", victims());
        fleet.row("users", "username=support|uid=0|directory=/root|shell=/bin/sh", victims());
        fleet.row("users", "username=root|uid=0|directory=/root|shell=/bin/sh", 0..60);
    }

    fn found(fleet: &Fleet) -> Vec<model::Campaign> {
        campaigns(&fleet.loaded(), &PeerGroups::default(), &fleet.state).shown(&fleet.state)
    }

    #[test]
    fn rows_of_three_tables_on_the_same_hosts_are_a_campaign() {
        let mut fleet = fleet();
        worm(&mut fleet, &VICTIMS);
        let found = found(&fleet);
        assert_eq!(found.len(), 1, "{found:#?}");
        assert_eq!(found[0].tables, ["crontab", "processes", "users"]);
        assert_eq!(found[0].hosts.len(), 6);
        assert_eq!(found[0].explained_by, None);
        assert!(found[0].score >= 60.0, "{}", found[0].score);
        assert!(
            found[0].reason.starts_with("the same 6 of 60 hosts have 3 rows of crontab, processes and users")
        );
    }

    #[test]
    fn a_settings_three_values_are_none() {
        assert_eq!(found(&fleet()), []);
    }

    #[test]
    fn a_row_that_one_host_lost_belongs_all_the_same() {
        let mut fleet = fleet();
        let victims: Vec<u32> = (1..60).step_by(4).collect();
        worm(&mut fleet, &victims);
        fleet.row("listening_ports", "port=4444|protocol=6|family=2|name=netd", victims[1..].iter().copied());
        let found = found(&fleet);
        assert_eq!(found[0].tables, ["crontab", "listening_ports", "processes", "users"]);
        assert_eq!(found[0].hosts.len(), 15);
    }

    #[test]
    fn a_host_that_did_not_answer_a_table_is_not_compared_in_it() {
        let mut fleet = fleet();
        let victims: Vec<u32> = (0..60).step_by(4).collect();
        worm(&mut fleet, &victims);
        for host in [0, 4, 8] {
            fleet.silence("crontab", host);
        }
        let found = found(&fleet);
        assert_eq!(found[0].tables, ["crontab", "processes", "users"], "{found:#?}");
    }

    #[test]
    fn a_package_explains_what_carries_its_name() {
        let mut fleet = fleet();
        fleet.row("deb_packages", "name=telemetry-agent|arch=amd64|version=1.2|revision=3", VICTIMS);
        fleet.row("processes", "name=telemetry-agent|path=/usr/bin/telemetry-agent|euid=0", VICTIMS);
        fleet.row("systemd_units", "id=telemetry-agent.service", VICTIMS);
        let before = found(&fleet);
        assert_eq!(before[0].explained_by.as_deref(), Some("package telemetry-agent 1.2-3"));
        assert!(before[0].score < 20.0, "{}", before[0].score);
        // And nothing else.
        worm(&mut fleet, &VICTIMS);
        let after = found(&fleet);
        assert_eq!(after[0].explained_by, None);
        assert_eq!(after[0].tables, ["crontab", "processes", "users"]);
    }

    #[test]
    fn another_port_and_path_of_the_same_release_raise_nobody() {
        let mut fleet = fleet();
        for (colour, port, release) in [(0, 8000, "5.56"), (1, 8010, "5.57")] {
            let hosts = || (0..60).filter(|host| host % 2 == colour).collect::<Vec<u32>>();
            fleet.row("listening_ports", &format!("port={port}|protocol=6|family=2|name=app"), hosts());
            fleet.row("processes", &format!("name=app|path=/srv/{release}/app|euid=33"), hosts());
            fleet.row("process_envs", &format!("key=COLOUR|name=app|value={colour}"), hosts());
            fleet.row("startup_items", &format!("name=app|path=/srv/{release}/app"), hosts());
        }
        let loaded = fleet.loaded();
        let found = campaigns(&loaded, &PeerGroups::default(), &fleet.state);
        assert!(found.found.iter().all(|found| !found.is_unexplained()), "{:#?}", found.found);
        let all = loaded.iter().enumerate().map(|(number, table)| found.candidates(number, table).len());
        assert_eq!(all.sum::<usize>(), 0);
    }

    #[test]
    fn hosts_with_software_of_their_own_are_another_kind_also_without_groups() {
        let mut fleet = fleet();
        let members = || (0..20).chain(40..44);
        for row in [
            "deb_packages name=postgresql-15|arch=amd64|version=15",
            "users username=postgres|uid=110|directory=/var/lib/postgresql|shell=/bin/sh",
            "groups groupname=postgres|gid=110",
            "listening_ports port=5432|protocol=6|family=2|name=postgres",
            "processes name=dbd|path=/opt/dbd|euid=110",
            "crontab command=/opt/dump|path=/etc/cron.d/dump",
            "systemd_units id=dbd.service",
        ] {
            let (table, row) = row.split_once(' ').unwrap();
            fleet.row(table, row, members());
        }
        let found = campaigns(&fleet.loaded(), &PeerGroups::default(), &fleet.state);
        let strongest = &found.found[0];
        assert!(!strongest.is_unexplained());
        assert!(strongest.reason.ends_with("another kind of host rather"), "{}", strongest.reason);
    }

    #[test]
    fn whole_peer_groups_are_no_campaign() {
        let mut fleet = Fleet::new(60, |host| format!("host-{host}"));
        for (role, members) in [("web", 0..30), ("db", 30..60)] {
            for number in 0..20 {
                fleet.row(
                    "processes",
                    &format!("name={role}{number}|path=/srv/{role}{number}"),
                    members.clone(),
                );
                fleet.row("systemd_units", &format!("id={role}{number}.service"), members.clone());
                fleet.row("deb_packages", &format!("name={role}{number}|version=1"), members.clone());
            }
        }
        let groups = peer_groups(&fleet.loaded(), &fleet.state);
        assert_eq!(groups.groups.len(), 2);
        let found = campaigns(&fleet.loaded(), &groups, &fleet.state).shown(&fleet.state);
        assert_eq!(found, []);
    }

    #[test]
    fn every_row_of_an_unexplained_campaign_is_a_candidate_on_each_of_its_hosts() {
        let mut fleet = fleet();
        worm(&mut fleet, &VICTIMS);
        let loaded = fleet.loaded();
        let found = campaigns(&loaded, &PeerGroups::default(), &fleet.state);
        let candidates =
            loaded.iter().enumerate().map(|(number, table)| found.candidates(number, table).len());
        assert_eq!(candidates.sum::<usize>(), 18);
    }

    #[test]
    fn a_thousand_hosts_with_rows_of_their_own() {
        let hosts: u32 = 1_000;
        let mut fleet = Fleet::new(hosts, |host| format!("web-{host}"));
        for number in 0..hosts * 60 {
            let table = ["processes", "deb_packages", "suid_bin"][number as usize % 3];
            let column = if table == "deb_packages" { "name" } else { "path" };
            let several = if number % 30 == 0 { number / 60 % 40 + 1 } else { 1 };
            let members =
                (0..several).map(|step| (number.wrapping_mul(2_654_435_761).rotate_left(step)) % hosts);
            fleet.row(table, &format!("{column}=/x/{number}"), members.collect::<Vec<u32>>());
        }
        for number in 0..600 {
            let has = |host: &u32| (host * 31 + number * 17) % 997 > number % 600;
            fleet.row("systemd_units", &format!("id=u{number}"), (0..hosts).filter(has));
        }
        let victims: Vec<u32> = (0..hosts).step_by(3).collect();
        worm(&mut fleet, &victims);
        let loaded = fleet.loaded();
        let found = campaigns(&loaded, &PeerGroups::default(), &fleet.state).shown(&fleet.state);
        assert_eq!(found[0].tables, ["crontab", "processes", "users"]);
    }
}
