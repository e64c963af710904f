//! The prompt of `diffy query`, on a terminal that Python makes.

use serde_json::json;

use crate::env::{DIFFY, TestEnv, run_python};

/// Types lines into a program on a terminal of its own, each after the prompt has come back, then end of input. Prints
/// all that the terminal showed. No sleeping: it waits for what must come, and gives up after a minute without.
const TYPE: &str = r#"
import os, pty, select, signal, sys
program, *lines = sys.argv[1:]
child, terminal = pty.fork()
if child == 0:
    os.environ["TERM"] = "xterm"
    os.execv(program, [program, "query"])
signal.alarm(60)
seen = b""
def wait_for(what, since):
    global seen
    while what not in seen[since:]:
        try:
            data = os.read(terminal, 65536)
        except OSError:
            data = b""
        if not data:
            return
        seen += data
wait_for(b"diffy> ", 0)
for line in lines:
    text, _, expected = line.partition(" => ")
    text, expected, since = text.encode().decode("unicode_escape"), expected.encode(), len(seen)
    os.write(terminal, text.encode())
    wait_for(expected, since)
    if text[-1] in "\r\n":
        wait_for(b"diffy> ", seen.find(expected, since))
os.write(terminal, b"\x04")
wait_for(b"there is no such text", len(seen))
_, status = os.waitpid(child, 0)
sys.stdout.buffer.write(seen)
print("\nstatus", os.waitstatus_to_exitcode(status))
"#;

/// What the terminal shows when these lines are typed; `TEXT => EXPECTED` waits for something before the next.
fn typed(env: &TestEnv, lines: &[&str]) -> String {
    run_python(env, TYPE, &[&[DIFFY], lines].concat())
}

fn one_host() -> TestEnv {
    let env = TestEnv::new();
    env.import_tables(&[("a", "users", json!([{"username": "root", "uid": "0"}]))]);
    env
}

#[test]
fn statements_and_commands_are_answered() {
    let env = one_host();
    let shown = typed(
        &env,
        &[
            r"SELECT username,\n => ",
            r"uid FROM users;\r => 1 rows",
            r"SELECT * FROM usrs;\r => did you mean",
            r"\\d users\r => username",
            r"\\l\r => rare_listening_ports",
            r"\\?\r => Ctrl-D",
        ],
    );
    for expected in ["root", "did you mean `users`?", "rare_listening_ports", "status 0"] {
        assert!(shown.contains(expected), "{expected}: {shown}");
    }
}

#[test]
fn tab_completes_tables() {
    let env = one_host();
    let shown = typed(&env, &[r"SELECT count(*) AS n FROM kernel_mod\t => kernel_modules", r";\r => 1 rows"]);
    assert!(shown.contains("kernel_modules") && shown.contains("status 0"), "{shown}");
}

#[test]
fn history_lasts_and_is_private() {
    let env = one_host();
    typed(&env, &[r"SELECT 40 + 2 AS answer;\r => 42"]);
    let history = env.path("home/state/diffy/history");
    assert!(std::fs::read_to_string(&history).unwrap().contains("SELECT 40 + 2"));
    use std::os::unix::fs::PermissionsExt;
    assert_eq!(std::fs::metadata(&history).unwrap().permissions().mode() & 0o077, 0);
    // The arrow key brings it back.
    let shown = typed(&env, &[r"\x1b[A => answer;", r"\r => 42"]);
    assert!(shown.contains("42"), "{shown}");
}
