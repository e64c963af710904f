"""Diffy against DuckDB, Polars and chDB: the same questions on the same stores, each run a process of its own.

    benches/peers/run --hosts 200,2000 --diffy target/release/diffy

Stores come from `diffy demo --bundled`: a baseline snapshot of a tenth of the hosts with another seed, then the snapshot
that is asked about. For `first_seen` the rows of one demo are imported 30 times, one day apart; each day has rows that
the days before did not have. Imports of a large fleet would take hours: with `--history demos` the 30 days are copies of
the snapshots of two demos. Engines take turns; each answer goes to a Parquet file, and these are compared as sets of
rows. Prints a table in Markdown and, with --keep, writes every measurement to DIR/results.jsonl.
"""

import argparse
import datetime
import json
import os
import pathlib
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import zlib

HERE = pathlib.Path(__file__).resolve().parent
SAVED = HERE.parent.parent / "sql" / "analyze"
PEERS = ["duckdb", "polars", "chdb"]
OWN = {"host", "collected_at", "loose_id", "strict_id", "extra"}
ADHOC = [
    "changed_after_written", "shells_with_connections", "ld_preload", "open_sockets_by_process", "tmp_executables",
]
SNAPSHOTS = 30
# What is compared of an answer, with the columns as Diffy names them; peers name them alike.
SAME = {
    "rare": ["table_name", "hex(strict_id)", "host"],
    "baseline": ["table_name", "hex(strict_id)", "hosts"],
    "first_seen": ["table_name", "hex(strict_id)", "first_snapshot"],
}


def say(text):
    print(f"benches/peers: {text}", file=sys.stderr, flush=True)


def measured(command, errors, most=None):
    """Wall seconds, peak resident MiB and processor seconds of one process, which is killed after `most` seconds."""
    with open(errors, "wb") as stderr:
        start = time.perf_counter()
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=stderr)
        timer = threading.Timer(most or 86400, child.kill)
        timer.start()
        _, status, usage = os.wait4(child.pid, 0)
        timer.cancel()
        seconds = time.perf_counter() - start
    child.returncode = os.waitstatus_to_exitcode(status)
    if most and seconds >= most and child.returncode == -signal.SIGKILL:
        raise RuntimeError(f"not ended after {most} s")
    if child.returncode:
        text = pathlib.Path(errors).read_text(errors="replace")[-2000:]
        raise RuntimeError(f"{' '.join(map(str, command))} ended with {child.returncode}: {text}")
    return seconds, usage.ru_maxrss / 1024, usage.ru_utime + usage.ru_stime


def manifests(store):
    """All manifests, oldest first."""
    paths = sorted(pathlib.Path(store).glob("snapshots/*/*.json"), key=lambda path: path.name)
    return [json.loads(path.read_text()) for path in paths]


def spec_of(store):
    """What a peer is told of a store: files of the newest snapshot, of the one before, of all."""
    found = manifests(store)
    newest, before = found[-1], found[-2] if len(found) > 1 else None

    def rows(manifest, table):
        files = manifest["files"] if manifest else []
        return [f"{store}/{f['path']}" for f in files if f["kind"] == "rows" and f["table"] == table]

    tables = sorted({f["table"] for f in newest["files"] if f["kind"] == "rows"})
    return {
        "newest": newest["snapshot"],
        "before": before and before["snapshot"],
        "rows": newest["rows"],
        "coverage": [f"{store}/{f['path']}" for f in newest["files"] if f["kind"] == "coverage"],
        "tables": {
            table: {
                "rows": rows(newest, table),
                "base": rows(before, table),
                "history": [path for manifest in found for path in rows(manifest, table)],
            }
            for table in tables
        },
    }


# ---- inputs -------------------------------------------------------------------------------------------------------


def make_store(diffy, store, hosts, seed):
    if (store / "ready").exists():
        return
    shutil.rmtree(store, ignore_errors=True)
    for count, with_seed in [(max(hosts // 10, 10), seed + 1), (hosts, seed)]:
        say(f"simulating {count} hosts into {store}")
        demo = [diffy, "demo", "--bundled", "--hosts", count, "--seed", with_seed, "--store", store, "--top", 1]
        demo += ["--report", "none"]
        seconds, memory, _ = measured([str(word) for word in demo], store.parent / "errors")
        say(f"{seconds:.1f} s, {memory:.0f} MiB at most, simulation and first analysis included")
    (store / "ready").touch()


def osqueryi_files(store, into, rows_limit):
    """The rows of the newest snapshot as HOST/TABLE.json, every value a text, as `osqueryi --json` prints them."""
    import pyarrow.parquet as parquet

    if (into / "ready").exists():
        return
    shutil.rmtree(into, ignore_errors=True)
    spec = spec_of(store)
    hosts = set()
    for paths in spec["tables"].values():
        for path in paths["rows"]:
            hosts.update(parquet.read_table(path, columns=["host"])["host"].unique().to_pylist())
    hosts = sorted(hosts)
    if rows_limit:
        hosts = hosts[: max(1, rows_limit * len(hosts) // max(spec["rows"], 1))]
    for host in hosts:
        (into / "json" / host).mkdir(parents=True)
    kept, columns = set(hosts), {}
    for table, paths in spec["tables"].items():
        by_host = {}
        for path in paths["rows"]:
            data = parquet.read_table(path)
            names = [name for name in data.column_names if name not in OWN]
            kinds = {"string": "text", "int64": "integer", "double": "double"}
            columns.setdefault(table, {}).update((name, kinds[str(data.schema.field(name).type)]) for name in names)
            cells = [data[name].to_pylist() for name in names]
            for host, *values in zip(data["host"].to_pylist(), *cells):
                if host in kept:
                    row = {name: str(value) for name, value in zip(names, values) if value is not None}
                    by_host.setdefault(host, []).append(row)
        for host, found in by_host.items():
            (into / "json" / host / f"{table}.json").write_text(json.dumps(found, indent=0))
    (into / "ready").write_text(json.dumps(columns))


def make_history(diffy, files, store, seed):
    """30 imports of the same hosts. Nine of ten rows are there from the first day; each other comes on a day of its
    own choice and stays."""
    if (store / "ready").exists():
        return
    shutil.rmtree(store, ignore_errors=True)
    days = store.parent / f"{store.name}-days"
    shutil.rmtree(days, ignore_errors=True)
    coming = {}
    for path in sorted((files / "json").glob("*/*.json")):
        rows = json.loads(path.read_text())
        born = []
        for row in rows:
            dice = zlib.crc32(f"{seed} {path.parent.name} {sorted(row.items())}".encode())
            born.append(0 if dice % 10 else 1 + dice // 10 % (SNAPSHOTS - 1))
        for day in set(born) | {0}:
            coming.setdefault(day, []).append((path, [r for r, b in zip(rows, born) if b <= day]))
    for day in range(SNAPSHOTS):
        for path, rows in coming.get(day, []):
            place = days / path.parent.name / path.name
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(json.dumps(rows))
        words = [diffy, "import", days, "--fleet", "web", "--collected-at", f"2026-01-{day + 1:02}", "--store", store]
        measured([str(word) for word in words], store.parent / "errors")
    shutil.rmtree(days)
    (store / "ready").touch()


def make_dated(diffy, store, hosts, seed):
    """15 days of one fleet, then 15 of another: as of a group that replaced all its instances. A day is the snapshot of
    a demo under an id and a date of its own; its files are hard links."""
    if (store / "ready").exists():
        return
    shutil.rmtree(store, ignore_errors=True)
    store.mkdir()
    for half, with_seed in enumerate([seed + 2, seed]):
        demo = store.parent / f"{store.name}-demo"
        shutil.rmtree(demo, ignore_errors=True)
        say(f"simulating {hosts} hosts for {SNAPSHOTS // 2} days")
        words = [diffy, "demo", "--bundled", "--hosts", hosts, "--seed", with_seed, "--store", demo, "--top", 1]
        measured([str(word) for word in [*words, "--report", "none"]], store.parent / "errors")
        shutil.copy(demo / "diffy-store.json", store)
        for day in range(SNAPSHOTS // 2):
            date(demo, store, datetime.date(2026, 1, 1) + datetime.timedelta(days=SNAPSHOTS // 2 * half + day))
        shutil.rmtree(demo)
    (store / "ready").touch()


def date(demo, store, day):
    """The only snapshot of `demo` in `store`, as if it were of that day."""
    manifest = manifests(demo)[0]
    was, of_day = manifest["snapshot"], f"dt={manifest['started'][:10]}"
    # A ULID begins with its time in milliseconds, ten digits in base 32.
    moment = int(datetime.datetime(day.year, day.month, day.day, tzinfo=datetime.timezone.utc).timestamp()) * 1000
    digits = "".join("0123456789ABCDEFGHJKMNPQRSTVWXYZ"[moment >> 5 * place & 31] for place in range(9, -1, -1))
    snapshot = digits + was[10:]
    for file in manifest["files"]:
        source = demo / file["path"]
        file["path"] = file["path"].replace(was, snapshot).replace(of_day, f"dt={day}")
        (store / file["path"]).parent.mkdir(parents=True, exist_ok=True)
        os.link(source, store / file["path"])
    manifest |= {"snapshot": snapshot, "started": f"{day}T00:00:00Z", "ended": f"{day}T00:00:00Z"}
    place = store / "snapshots" / f"fleet={manifest['fleet']}" / f"{snapshot}.json"
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(json.dumps(manifest))


# ---- one run ------------------------------------------------------------------------------------------------------


def command(bench, engine, question, out):
    """The process that answers a question; `bench` says where things are."""
    if engine != "diffy":
        return [sys.executable, __file__, "task", engine, question, str(bench["spec"]), str(out)]
    diffy = [bench["diffy"], "--store", str(bench["store"])]
    if question == "ingest":
        return [bench["diffy"], "import", bench["json"], "--fleet", "web", "--store", str(out)]
    name, params = {
        "rare": ("rows_on_few_hosts", ["max_percent=1"]),
        "baseline": ("not_in_snapshot", [f"snapshot={bench['before']}"]),
        "first_seen": ("first_seen", []),
    }.get(question, (question, []))
    words = ["query", "--sql-dir", str(SAVED), "--name", name, "--format", "parquet", "-o", str(out)]
    return diffy + words + [word for param in params for word in ("--param", param)]


def task(engine, question, spec, out):
    """The body of a peer's process."""
    sys.path.insert(0, str(HERE))
    module = __import__(f"with_{engine}")
    spec = json.loads(pathlib.Path(spec).read_text())
    start = time.perf_counter()
    if question in ADHOC:
        module.adhoc(question, spec, out)
    else:
        if question == "ingest":
            pathlib.Path(out).mkdir(parents=True)
        getattr(module, question)(spec, out)
    # Told apart from starting Python and importing the engine.
    print(json.dumps({"inside": time.perf_counter() - start}), file=sys.stderr)


def digest(question, out):
    """Rows of an answer, and a sum of hashes that knows no order. Runs in a process of its own."""
    import duckdb

    db = duckdb.connect()
    if question == "ingest":
        rows = 0
        for path in sorted(pathlib.Path(out).glob("*.parquet")) or sorted(pathlib.Path(out).glob("rows/**/*.parquet")):
            rows += db.execute(f"SELECT count(*) FROM read_parquet('{path}')").fetchone()[0]
        print(json.dumps([rows, "rows only"]))
        return
    read = f"read_parquet('{out}', hive_partitioning = false)"
    kinds = {row[0]: row[1] for row in db.execute(f"DESCRIBE SELECT * FROM {read}").fetchall()}
    wanted = SAME.get(question) or sorted(set(kinds) - {"fleet"})

    def text(column):
        if column == "hosts" and column not in kinds:
            column = "hosts_with_row"
        if kinds.get(column, "").startswith("TIMESTAMP"):
            return f"epoch({column})::BIGINT::VARCHAR"
        return f"({column})::VARCHAR" if "(" in column else f'"{column}"::VARCHAR'

    row = ", '|', ".join(f"coalesce({text(column)}, '~')" for column in wanted)
    found = db.execute(f"SELECT count(*), sum(hash(concat({row}))::HUGEINT % 1000000007) FROM {read}").fetchone()
    print(json.dumps([found[0], str(found[1])]))


def answer_of(question, out):
    words = [sys.executable, __file__, "digest", question, str(out)]
    return json.loads(subprocess.run(words, check=True, capture_output=True).stdout)


def bytes_below(path, pattern="**/*.parquet"):
    return sum(file.stat().st_size for file in pathlib.Path(path).glob(pattern))


def ask(bench, question, runs, work):
    """All engines, taking turns; the first round is not counted where there are more."""
    engines = ["diffy", *PEERS]
    times, answers = {engine: [] for engine in engines}, {}
    failed = {}
    for turn in range(runs + 1 if runs > 1 else 1):
        order = engines[turn % len(engines) :] + engines[: turn % len(engines)]
        for engine in order:
            if engine in failed:
                continue
            out = work / f"{engine}-{question}"
            shutil.rmtree(out, ignore_errors=True)
            out.unlink(missing_ok=True)
            errors = work / "errors"
            try:
                seconds, memory, cpu = measured(command(bench, engine, question, out), errors, bench["most"])
            except RuntimeError as error:
                failed[engine] = str(error)
                say(f"{engine} {question}: {error}")
                continue
            told = errors.read_text(errors="replace").strip().splitlines()
            inside = json.loads(told[-1])["inside"] if engine != "diffy" else seconds
            if turn or runs < 2:
                times[engine].append({"s": seconds, "inside": inside, "mib": memory, "cpu": cpu})
            if not turn:
                answers[engine] = answer_of(question, out)
                if question == "ingest":
                    pattern = "rows/**/*.parquet" if engine == "diffy" else "*.parquet"
                    answers[engine].append(bytes_below(out, pattern))
                    if engine == "diffy":
                        answers[engine].append(bytes_below(out))
    return times, answers, failed


# ---- what is printed ----------------------------------------------------------------------------------------------


def report(label, question, result, keep):
    times, answers, failed = result
    median = {e: statistics.median(r["s"] for r in runs) for e, runs in times.items() if runs}
    inside = {e: statistics.median(r["inside"] for r in runs) for e, runs in times.items() if runs}
    peers = [median[e] for e in PEERS if e in median]
    peers_inside = [inside[e] for e in PEERS if e in inside]
    said = {tuple(answer[:2]) for answer in answers.values()}
    for engine in ["diffy", *PEERS]:
        if engine not in median:
            print(f"| {label} | {question} | {engine} | failed | | | | | | {failed.get(engine, '')[-80:]!r} |")
            continue
        runs = times[engine]
        spread = f"{min(r['s'] for r in runs):.2f}-{max(r['s'] for r in runs):.2f}"
        ratio = f"{min(peers) / median[engine]:.1f}" if engine == "diffy" and peers else ""
        if ratio:
            ratio += f" ({min(peers_inside) / inside[engine]:.1f})"
        note = "same" if len(said) == 1 else "DIFFERS"
        if len(answers[engine]) > 2:
            note += ", bytes " + " / ".join(f"{size:,}" for size in answers[engine][2:])
        memory = max(r["mib"] for r in runs)
        cpu = statistics.median(r["cpu"] for r in runs)
        print(
            f"| {label} | {question} | {engine} | {median[engine]:.2f} | {spread} | {inside[engine]:.2f} | {cpu:.2f} | {memory:.0f} | "
            f"{ratio} | {answers[engine][0]:,} rows, {note} |",
            flush=True,
        )
    if keep:
        with open(keep / "results.jsonl", "a") as lines:
            record = {"label": label, "question": question, "times": times, "answers": answers, "failed": failed}
            lines.write(json.dumps(record) + "\n")


def arrival(store, work):
    """Bytes of the stored rows, ids included, as DuckDB writes them in arrival order. In a process of its own."""
    import duckdb

    db = duckdb.connect()
    total, ours = 0, 0
    for table, paths in spec_of(store)["tables"].items():
        out = f"{work}/arrival.parquet"
        files = "[" + ", ".join(f"'{path}'" for path in paths["rows"]) + "]"
        db.execute(f"""COPY (SELECT * FROM read_parquet({files}, hive_partitioning = false) ORDER BY collected_at, host)
            TO '{out}' (FORMAT parquet, COMPRESSION zstd)""")
        total += os.path.getsize(out)
        ours += sum(os.path.getsize(path) for path in paths["rows"])
    prevalence = sum(f["bytes"] for f in manifests(store)[-1]["files"] if f["kind"] != "rows")
    print(f"{store}: rows {ours:,} bytes, with prevalence and the rest {ours + prevalence:,}; DuckDB in arrival order {total:,}")


def inside_process(words):
    kind, *rest = words
    {
        "task": task,
        "digest": digest,
        "json": lambda store, into, limit: osqueryi_files(pathlib.Path(store), pathlib.Path(into), int(limit)),
        "arrival": arrival,
    }[kind](*rest)


def here(*words):
    subprocess.run([sys.executable, __file__, *map(str, words)], check=True)


def options():
    parser = argparse.ArgumentParser(prog="benches/peers/run", description=__doc__.split("\n")[0])
    parser.add_argument("--hosts", default="200", help="fleet sizes, with commas between [default: 200]")
    parser.add_argument("--history-hosts", type=int, default=100, help="hosts of the 30 snapshots [default: 100]")
    parser.add_argument("--history", choices=["imports", "demos"], default="imports", help="what they are made of")
    parser.add_argument("--rows-limit", type=int, default=0, help="about how many rows `ingest` reads [default: all]")
    parser.add_argument("--runs", type=int, default=5, help="counted runs of each engine [default: 5]")
    parser.add_argument("--timeout", type=int, default=900, metavar="SECONDS", help="end a run after so long [default: 900]")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--diffy", default="target/release/diffy", metavar="PATH", help="the binary; a release build")
    parser.add_argument("--questions", default="rare,baseline,first_seen,adhoc,ingest")
    parser.add_argument("--keep", type=pathlib.Path, metavar="DIR", help="keep stores and measurements here")
    return parser.parse_args()


def main():
    args = options()
    args.diffy = str(pathlib.Path(args.diffy).resolve())
    scratch = None if args.keep else tempfile.TemporaryDirectory(prefix="diffy-peers-")
    base = (args.keep or pathlib.Path(scratch.name)).resolve()
    work = base / "work"
    work.mkdir(parents=True, exist_ok=True)
    asked = args.questions.split(",")
    print("| Fleet | Question | Engine | s | spread | without start | CPU s | MiB | fastest peer ÷ Diffy | answer |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |", flush=True)
    for hosts in map(int, args.hosts.split(",")):
        store = base / f"store-{hosts}"
        make_store(args.diffy, store, hosts, args.seed)
        spec = spec_of(store)
        bench = {"most": args.timeout, "diffy": args.diffy, "store": store, "before": spec["before"], "spec": work / f"spec-{hosts}.json"}
        bench["spec"].write_text(json.dumps(spec))
        names = [q for q in ("rare", "baseline") if q in asked] + (ADHOC if "adhoc" in asked else [])
        for question in names:
            report(hosts, question, ask(bench, question, args.runs, work), args.keep)
        if "ingest" in asked:
            ingest(args, bench, (hosts, base, work))
    if "first_seen" in asked:
        history(args, base, work)


def ingest(args, bench, places):
    hosts, base, work = places
    files = base / f"files-{hosts}"
    here("json", bench["store"], files, args.rows_limit)
    spec = {"json": str(files / "json"), "columns": json.loads((files / "ready").read_text())}
    bench = bench | {"json": spec["json"], "spec": work / f"ingest-{hosts}.json"}
    bench["spec"].write_text(json.dumps(spec))
    size = bytes_below(spec["json"], "*/*.json")
    say(f"{size / 2**20:.0f} MiB of JSON")
    report(hosts, "ingest", ask(bench, "ingest", args.runs, work), args.keep)
    here("arrival", bench["store"], work)


def history(args, base, work):
    hosts = args.history_hosts
    past = base / f"history-{args.history}-{hosts}"
    if args.history == "demos":
        make_dated(args.diffy, past, hosts, args.seed)
    else:
        store, files = base / f"store-{hosts}", base / f"files-{hosts}"
        make_store(args.diffy, store, hosts, args.seed)
        here("json", store, files, 0)
        make_history(args.diffy, files, past, args.seed)
    bench = {"most": args.timeout, "diffy": args.diffy, "store": past, "before": "", "spec": work / "spec-history.json"}
    bench["spec"].write_text(json.dumps(spec_of(past)))
    report(f"{hosts} × {SNAPSHOTS}", "first_seen", ask(bench, "first_seen", args.runs, work), args.keep)


if __name__ == "__main__":
    if len(sys.argv) > 1 and sys.argv[1] in ("task", "digest", "json", "arrival"):
        inside_process(sys.argv[2:] and sys.argv[1:])
    else:
        main()
