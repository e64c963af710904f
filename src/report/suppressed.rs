//! What is left out of the view for a tired responder, and by whose word: in one line, or in full on demand.

use super::page::{Page, Tone, piece, prose};
use crate::error::Result;
use crate::model::{Suppressed, SuppressedBy, count};

/// Reasons in the line; the rest is counted.
const REASONS_SHOWN: usize = 3;

/// Writes the line, and the findings where they were asked for; nothing where nothing is left out.
pub(super) fn render(page: &mut Page<'_>, suppressed: &Suppressed) -> Result<()> {
    if suppressed.findings == 0 {
        return Ok(());
    }
    page.blank()?;
    page.sentence(0, Tone::Yellow, &line(suppressed))?;
    for (number, by) in suppressed.by.iter().enumerate().filter(|_| !suppressed.list.is_empty()) {
        page.sentence(4, Tone::Plain, &vouched(by))?;
        for gone in suppressed.list.iter().filter(|gone| gone.by == number) {
            let finding = &gone.finding;
            page.line(
                6,
                &[
                    piece(Tone::Bold, &gone.host),
                    piece(
                        Tone::Plain,
                        format!("  {:.1} {} {}  ", finding.score, finding.kind, finding.table),
                    ),
                    prose(Tone::Dim, &finding.reason),
                ],
            )?;
        }
    }
    Ok(())
}

fn line(suppressed: &Suppressed) -> String {
    let verb = if suppressed.findings == 1 { "is" } else { "are" };
    let mut reasons: Vec<String> = suppressed.by.iter().take(REASONS_SHOWN).map(vouched).collect();
    let more = suppressed.by.len().saturating_sub(REASONS_SHOWN);
    reasons.extend((more > 0).then(|| format!("{more} more")));
    format!(
        "{} on {} {verb} suppressed: {}",
        count(suppressed.findings, "finding"),
        count(suppressed.hosts, "host"),
        reasons.join("; ")
    )
}

/// `4 × the backup of the database (ann, until 2026-12-31)`.
fn vouched(by: &SuppressedBy) -> String {
    let until = by.until.map(|until| format!(", until {until}")).unwrap_or_default();
    format!("{} × {} ({}{until})", by.count, by.reason, by.who)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_is_counted_with_its_reasons() {
        let by = |count| SuppressedBy {
            reason: format!("reason {count}"),
            who: "ann".to_owned(),
            until: (count == 3).then(|| "2026-12-31".parse().unwrap()),
            count,
        };
        let mut suppressed =
            Suppressed { findings: 9, hosts: 5, by: [3, 2, 2, 1, 1].map(by).into(), list: Vec::new() };
        assert_eq!(
            line(&suppressed),
            "9 findings on 5 hosts are suppressed: 3 × reason 3 (ann, until 2026-12-31); 2 × reason 2 (ann); \
             2 × reason 2 (ann); 2 more"
        );
        suppressed = Suppressed { findings: 1, hosts: 1, by: vec![by(1)], list: Vec::new() };
        assert_eq!(line(&suppressed), "1 finding on 1 host is suppressed: 1 × reason 1 (ann)");
    }
}
