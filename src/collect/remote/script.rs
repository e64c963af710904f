//! Makes the script, and the SSM document, of `collect.sh`.

use std::sync::LazyLock;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use regex::Regex;
use serde_json::json;

use crate::catalog::TableSpec;
use crate::error::{Error, Result};

const COLLECT: &str = include_str!("collect.sh");
const OVER_SSH: &str = include_str!("ssh.sh");
/// Where the part for SSH takes over.
const LAST_LINES: &str = "main \"$@\" </dev/null\nexit 0\n";
const JOB_BEGINS: &str = "# --- job ---";
const JOB_ENDS: &str = "# --- end of job ---";

/// The name of the document's one step, which is a part of the keys of SSM's own S3 output.
pub const DOCUMENT_STEP: &str = "collect";

/// What a host is asked, and how it is to answer.
#[derive(Debug, Clone, Copy)]
pub struct Job<'a> {
    /// 32 lowercase hex digits, new for each run: what comes back names it.
    pub nonce: &'a str,
    /// The tables, in the order in which they are asked.
    pub tables: &'a [TableSpec],
    /// How the answers come back.
    pub output: OutputMode,
    /// A presigned PUT that must be sent `If-None-Match: *`; for [`OutputMode::Upload`].
    pub url: Option<&'a str>,
    /// What the host may spend.
    pub limits: &'a HostLimits,
    /// What to do where there is no osquery.
    pub bootstrap: Option<&'a Bootstrap>,
}

/// How the answers of a host come back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutputMode {
    /// Printed when short enough, else not at all.
    Inline,
    /// Printed when short enough, else uploaded.
    Upload,
    /// Printed, however long.
    Stdout,
}

impl OutputMode {
    fn as_str(self) -> &'static str {
        match self {
            Self::Inline => "inline",
            Self::Upload => "upload",
            Self::Stdout => "stdout",
        }
    }
}

/// What one host may spend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostLimits {
    /// Seconds of one query.
    pub query_seconds: u64,
    /// Seconds after which no query is started any more.
    pub host_seconds: u64,
    /// Bytes of the rows of one query.
    pub query_bytes: u64,
    /// Bytes of the whole output, above which it is not printed inline. SSM cuts at 24,000.
    pub inline_bytes: u64,
}

impl Default for HostLimits {
    fn default() -> Self {
        Self { query_seconds: 120, host_seconds: 900, query_bytes: 128 << 20, inline_bytes: 23_900 }
    }
}

impl HostLimits {
    /// Seconds after which a script with these limits has ended by itself, whatever happens: the last query, a program
    /// that is fetched (600) and an upload (960). For SSM's `executionTimeout`, which takes 5 to 172,800.
    pub fn execution_seconds(&self) -> u64 {
        let own = self.host_seconds.saturating_add(self.query_seconds);
        own.saturating_add(600 + 960 + 120).clamp(5, 172_800)
    }
}

/// What a program brought to a host is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BootstrapKind {
    /// osqueryi, or osqueryd under the name osqueryi: one executable file.
    Osquery,
    /// A `diffy` for the host's system, which answers with its native collector.
    Native,
}

/// A program for hosts without osquery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bootstrap {
    /// Where hosts fetch it; empty where it is pushed.
    pub url: String,
    /// SHA-256 of the file, as 64 lowercase hex digits; it is not run unless it has it.
    pub sha256: String,
    /// What it is.
    pub kind: BootstrapKind,
}

/// One assignment of the script, which is one parameter of the document.
struct Variable {
    name: &'static str,
    parameter: &'static str,
    /// What a value may be; none has a single quote, and none has a line end.
    pattern: &'static str,
    max_chars: usize,
    default: Option<&'static str>,
    description: &'static str,
}

const URL: &str = "^(https?://[A-Za-z0-9._~:/?&=%+@,;-]+)?$";
const NUMBER: &str = "^[1-9][0-9]{0,8}$";

/// In the order of the script.
const VARIABLES: [Variable; 11] = [
    Variable {
        name: "NONCE",
        parameter: "Nonce",
        pattern: "^[0-9a-f]{32}$",
        max_chars: 32,
        default: None,
        description: "32 hex digits that name this run; the output begins and ends with them.",
    },
    Variable {
        name: "QUERIES",
        parameter: "Queries",
        pattern: "^[A-Za-z0-9_:+/= ]*$",
        max_chars: 40_000,
        default: None,
        description: "What to ask: TABLE:SQL, separated by blanks, the SQL in base64.",
    },
    Variable {
        name: "OUTPUT",
        parameter: "Output",
        pattern: "^(inline|upload|stdout)$",
        max_chars: 6,
        default: Some("inline"),
        description: "How answers come back: inline (printed when short), upload (printed when short, else uploaded), stdout (printed).",
    },
    Variable {
        name: "URL",
        parameter: "Url",
        pattern: URL,
        max_chars: 4096,
        default: Some(""),
        description: "Presigned PUT for upload, of one host and for one use.",
    },
    Variable {
        name: "QUERY_SECONDS",
        parameter: "QuerySeconds",
        pattern: NUMBER,
        max_chars: 9,
        default: Some("120"),
        description: "Seconds after which one query is killed.",
    },
    Variable {
        name: "HOST_SECONDS",
        parameter: "HostSeconds",
        pattern: NUMBER,
        max_chars: 9,
        default: Some("900"),
        description: "Seconds after which no further query is started.",
    },
    Variable {
        name: "QUERY_BYTES",
        parameter: "QueryBytes",
        pattern: NUMBER,
        max_chars: 9,
        default: Some("134217728"),
        description: "Bytes after which the answer of one query is cut.",
    },
    Variable {
        name: "INLINE_BYTES",
        parameter: "InlineBytes",
        pattern: NUMBER,
        max_chars: 9,
        default: Some("23900"),
        description: "Bytes up to which the whole output is printed inline; SSM cuts at 24000.",
    },
    Variable {
        name: "BOOTSTRAP_URL",
        parameter: "BootstrapUrl",
        pattern: URL,
        max_chars: 4096,
        default: Some(""),
        description: "Where a host without osquery fetches a program; it runs only with the digest below.",
    },
    Variable {
        name: "BOOTSTRAP_SHA256",
        parameter: "BootstrapSha256",
        pattern: "^([0-9a-f]{64})?$",
        max_chars: 64,
        default: Some(""),
        description: "SHA-256 of that program. As shipped none is allowed, so that whoever may send this document cannot bring programs of his own: to allow one, put its digest into allowedPattern, as ^(DIGEST)?$.",
    },
    Variable {
        name: "BOOTSTRAP_KIND",
        parameter: "BootstrapKind",
        pattern: "^(osquery|native)?$",
        max_chars: 7,
        default: Some(""),
        description: "What that program is: osquery (osqueryi as one file) or native (diffy).",
    },
];

static PATTERNS: LazyLock<Vec<Option<Regex>>> =
    LazyLock::new(|| VARIABLES.iter().map(|variable| Regex::new(variable.pattern).ok()).collect());

/// The whole script, for `AWS-RunShellScript`.
///
/// # Errors
/// A part of the job cannot be: a nonce that is none, a URL with other characters than presigned ones have, an upload
/// without URL, limits of zero, too many queries.
pub fn script(job: &Job<'_>) -> Result<String> {
    let values = values(job)?;
    let assignments = VARIABLES.iter().zip(&values).map(|(variable, value)| (variable.name, value.as_str()));
    Ok(body(assignments))
}

/// The whole script for `sh -s` over SSH, which says `DIFFY1-HERE NONCE` first and ends with its stdin. A host that has
/// no osquery asks for `push_bytes` bytes of the job's program: `DIFFY1-PUSH NONCE SYSTEM MACHINE`, and takes a line
/// `send` and the bytes, or a line with the reason why there are none.
///
/// # Errors
/// As [`script`].
pub fn ssh_script(job: &Job<'_>, push_bytes: u64) -> Result<String> {
    let script = script(job)?;
    let head =
        script.strip_suffix(LAST_LINES).ok_or_else(|| Error::internal("the script has another end"))?;
    // A shell reads a script from stdin byte by byte: it says that it is there before the rest has come.
    let mut over_ssh = format!("echo; echo 'DIFFY1-HERE {}'\n{head}PUSH_BYTES='{push_bytes}'\n", job.nonce);
    push_code(&mut over_ssh, OVER_SSH);
    Ok(over_ssh)
}

/// The parameters of the document `Diffy-Collect` for this job, `executionTimeout` among them.
///
/// # Errors
/// As [`script`].
pub fn parameters(job: &Job<'_>) -> Result<Vec<(&'static str, String)>> {
    let names = VARIABLES.iter().map(|variable| variable.parameter);
    let mut parameters: Vec<_> = names.zip(values(job)?).collect();
    parameters.push(("executionTimeout", job.limits.execution_seconds().to_string()));
    Ok(parameters)
}

/// The SSM document `Diffy-Collect`, as JSON: the same body as [`script`], with parameters for the job.
///
/// Patterns keep values inside of their single quotes, so that whoever may send this document, and no other, can run
/// osquery queries but no programs.
pub fn document() -> String {
    let placeholders: Vec<String> =
        VARIABLES.iter().map(|variable| format!("{{{{ {} }}}}", variable.parameter)).collect();
    let assignments =
        VARIABLES.iter().zip(&placeholders).map(|(variable, text)| (variable.name, text.as_str()));
    let body = body(assignments);
    let mut parameters: serde_json::Map<String, serde_json::Value> =
        VARIABLES.iter().map(|variable| (variable.parameter.to_owned(), declared(variable))).collect();
    parameters.insert(
        "executionTimeout".to_owned(),
        json!({
            "type": "String",
            "description": "Seconds after which SSM kills the script; it ends by itself before that.",
            "allowedPattern": NUMBER,
            "default": HostLimits::default().execution_seconds().to_string(),
        }),
    );
    let document = json!({
        "schemaVersion": "2.2",
        "description": "Diffy: asks osquery for tables, prints or uploads the answers, and leaves nothing behind. \
                        Runs the queries that it is given, and no other program.",
        "parameters": parameters,
        "mainSteps": [{
            "action": "aws:runShellScript",
            "name": DOCUMENT_STEP,
            "inputs": {
                "timeoutSeconds": "{{ executionTimeout }}",
                "runCommand": body.lines().collect::<Vec<_>>(),
            },
        }],
    });
    format!("{document:#}\n")
}

fn declared(variable: &Variable) -> serde_json::Value {
    let pattern = match variable.name {
        "BOOTSTRAP_SHA256" => "^$",
        _ => variable.pattern,
    };
    let mut declared = json!({
        "type": "String",
        "description": variable.description,
        "allowedPattern": pattern,
        "maxChars": variable.max_chars,
    });
    if let Some(default) = variable.default {
        declared["default"] = json!(default);
    }
    declared
}

/// The script with these assignments and without its comments: hosts keep what they are sent.
fn body<'a>(assignments: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    let mut body =
        String::from("#!/bin/sh\n# Diffy: asks osquery for tables, prints or uploads the answers.\n");
    body.extend(assignments.map(|(name, value)| format!("{name}='{value}'\n")));
    push_code(&mut body, COLLECT);
    body
}

/// Appends a script without comments and without its job.
fn push_code(body: &mut String, script: &str) {
    let mut is_job = false;
    for line in script.lines() {
        is_job = (is_job || line == JOB_BEGINS) && line != JOB_ENDS;
        let text = line.trim_start();
        if !is_job && !text.is_empty() && !text.starts_with('#') {
            body.push_str(line);
            body.push('\n');
        }
    }
}

/// The values of all variables, each of which fits its pattern.
fn values(job: &Job<'_>) -> Result<[String; VARIABLES.len()]> {
    if job.output == OutputMode::Upload && job.url.is_none() {
        return Err(Error::internal("an upload needs a URL"));
    }
    let (url, sha256, kind) = match job.bootstrap {
        None => ("", "", ""),
        Some(Bootstrap { sha256, .. }) if sha256.is_empty() => {
            return Err(Error::usage("a program for hosts needs its digest").hint("`--sha256` names it"));
        }
        Some(Bootstrap { url, sha256, kind: BootstrapKind::Osquery }) => (&**url, &**sha256, "osquery"),
        Some(Bootstrap { url, sha256, kind: BootstrapKind::Native }) => (&**url, &**sha256, "native"),
    };
    let limits = job.limits;
    let values = [
        job.nonce.to_owned(),
        queries(job.tables),
        job.output.as_str().to_owned(),
        job.url.unwrap_or_default().to_owned(),
        limits.query_seconds.to_string(),
        limits.host_seconds.to_string(),
        limits.query_bytes.to_string(),
        limits.inline_bytes.to_string(),
        url.to_owned(),
        sha256.to_owned(),
        kind.to_owned(),
    ];
    for ((variable, pattern), value) in VARIABLES.iter().zip(PATTERNS.iter()).zip(&values) {
        check(variable, pattern.as_ref(), value)?;
    }
    Ok(values)
}

fn check(variable: &Variable, pattern: Option<&Regex>, value: &str) -> Result<()> {
    let Variable { parameter, max_chars, .. } = variable;
    if value.len() > *max_chars {
        let most = format!("{parameter} is {} characters long, of {max_chars} at most", value.len());
        return Err(Error::usage(format!("this does not fit into a command for a host: {most}"))
            .hint("ask for fewer tables in one run, with `--tables`"));
    }
    if !pattern.is_some_and(|pattern| pattern.is_match(value)) {
        // A URL is a secret.
        let shown = if parameter.contains("Url") { "…".into() } else { value.escape_debug().to_string() };
        return Err(
            Error::usage(format!("{parameter} cannot be `{shown}`")).with("allowed", variable.pattern)
        );
    }
    Ok(())
}

fn queries(tables: &[TableSpec]) -> String {
    let query = |table: &TableSpec| format!("{}:{}", table.name, STANDARD.encode(table.query.trim()));
    tables.iter().map(query).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::Catalog;

    const NONCE: &str = "0123456789abcdef0123456789abcdef";

    fn job<'a>(tables: &'a [TableSpec], limits: &'a HostLimits) -> Job<'a> {
        Job { nonce: NONCE, tables, output: OutputMode::Inline, url: None, limits, bootstrap: None }
    }

    #[test]
    fn the_script_with_all_tables_and_a_long_url_fits_into_a_command() {
        let tables: Vec<TableSpec> = Catalog::builtin().unwrap().tables().cloned().collect();
        let limits = HostLimits::default();
        let url =
            format!("https://b.s3.eu-west-1.amazonaws.com/raw/x.gz?X-Amz-Signature={}", "a%2F".repeat(1000));
        let job = Job { output: OutputMode::Upload, url: Some(&url), ..job(&tables, &limits) };
        let script = script(&job).unwrap();
        assert!(script.len() < 48 << 10, "{} bytes", script.len());
        assert!(script.starts_with("#!/bin/sh\n") && script.contains(&format!("URL='{url}'\n")));
        assert_eq!(script.lines().filter(|line| line.trim_start().starts_with('#')).count(), 2);
        assert!(!script.contains("{{"), "SSM would replace it");
        assert!(document().len() < 64 << 10);
    }

    #[test]
    fn the_job_of_the_file_is_replaced() {
        let limits = HostLimits::default();
        let script = script(&job(&[], &limits)).unwrap();
        for variable in &VARIABLES {
            let assigned = format!("\n{}='", variable.name);
            assert_eq!(script.matches(&assigned).count(), 1, "{}", variable.name);
            assert_eq!(COLLECT.matches(&assigned).count(), 1, "{}", variable.name);
        }
        for default in VARIABLES.iter().filter(|variable| variable.name.contains("_SECONDS")) {
            let line = format!("{}='{}'", default.name, default.default.unwrap());
            assert!(COLLECT.contains(&line) && script.contains(&line), "{line}");
        }
    }

    #[test]
    fn over_ssh_the_script_has_another_end() {
        let limits = HostLimits::default();
        let job = job(&[], &limits);
        let (plain, over_ssh) = (script(&job).unwrap(), ssh_script(&job, 7).unwrap());
        assert!(over_ssh.contains(plain.strip_suffix(LAST_LINES).unwrap()));
        assert!(
            !plain.contains("DIFFY1-HERE")
                && over_ssh.starts_with(&format!("echo; echo 'DIFFY1-HERE {NONCE}'\n"))
        );
        assert!(over_ssh.contains("\nPUSH_BYTES='7'\nhold() {\n"));
        assert!(over_ssh.ends_with("8<&0 </dev/null\nexit 0\n"));
    }

    #[test]
    fn what_would_leave_its_quotes_is_refused() {
        let limits = HostLimits::default();
        let plain = job(&[], &limits);
        let (zero, huge) =
            (HostLimits { query_seconds: 0, ..limits }, HostLimits { query_bytes: 1 << 40, ..limits });
        let bad_table = [TableSpec { name: "a'b".to_owned(), ..TableSpec::undeclared("a") }];
        let digest = "0".repeat(64);
        let bootstrap = |url: &str, sha256: &str| Bootstrap {
            url: url.to_owned(),
            sha256: sha256.to_owned(),
            kind: BootstrapKind::Osquery,
        };
        let bad =
            [bootstrap("http://x/';id", &digest), bootstrap("http://x/", "abc"), bootstrap("http://x/", "")];
        for (job, expected) in [
            (Job { nonce: "'; reboot; '", ..plain }, "Nonce"),
            (Job { url: Some("https://x/'$(id)'"), ..plain }, "Url"),
            (Job { url: Some("https://x/a\nb"), ..plain }, "Url"),
            (Job { url: Some("file:///etc/passwd"), ..plain }, "Url"),
            (Job { output: OutputMode::Upload, ..plain }, "needs a URL"),
            (Job { limits: &zero, ..plain }, "QuerySeconds"),
            (Job { limits: &huge, ..plain }, "QueryBytes"),
            (Job { tables: &bad_table, ..plain }, "Queries"),
            (Job { bootstrap: Some(&bad[0]), ..plain }, "BootstrapUrl"),
            (Job { bootstrap: Some(&bad[1]), ..plain }, "BootstrapSha256"),
            (Job { bootstrap: Some(&bad[2]), ..plain }, "digest"),
        ] {
            let error = script(&job).unwrap_err();
            assert!(error.to_string().contains(expected), "{error} is not `{expected}`");
            assert!(!error.to_string().contains("$(id)"), "{error}");
        }
    }

    #[test]
    fn no_pattern_lets_a_quote_or_a_line_end_through() {
        for pattern in PATTERNS.iter() {
            let pattern = pattern.as_ref().unwrap();
            for value in ["'", "a'b", "https://x/'", "\n", "a\nb", "https://x/\n", "1\n2", "\"", "\\", "`id`"]
            {
                assert!(!pattern.is_match(value), "{pattern} allows {value:?}");
            }
        }
    }

    #[test]
    fn the_document_runs_the_same_script() {
        let document: serde_json::Value = serde_json::from_str(&document()).unwrap();
        let tables = [TableSpec { query: "SELECT 1".to_owned(), ..TableSpec::undeclared("users") }];
        let limits = HostLimits::default();
        let job = job(&tables, &limits);
        let lines = document["mainSteps"][0]["inputs"]["runCommand"].as_array().unwrap();
        let mut text: String = lines.iter().map(|line| format!("{}\n", line.as_str().unwrap())).collect();
        let parameters = parameters(&job).unwrap();
        for (name, value) in &parameters {
            text = text.replace(&format!("{{{{ {name} }}}}"), value);
        }
        assert_eq!(text, script(&job).unwrap());
        let declared = document["parameters"].as_object().unwrap();
        let sent: Vec<&str> = parameters.iter().map(|(name, _)| *name).collect();
        assert_eq!(declared.keys().map(String::as_str).collect::<Vec<_>>(), sent);
    }
}
