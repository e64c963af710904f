"""Methods of others on the stores that `cargo bench --bench detection` made, measured as metrics.rs defines it.

    peers.py SCHEMAS DIR      prints, as JSON, a list of {cell, seed, method, measures}

The methods:

* structural diff: rows that are not equal, in all columns, to a row of one clean host; host = how many. What the
  original Diffy did.
* stacking: distinct rows over identity columns by the number of hosts that have them; host = how many of its rows are
  on at most 1 % or 5 % of the hosts.
* PyOD: seven detectors on the matrix of hosts and rows that some hosts have; the one with the best average precision
  of a cell is shown, chosen with the truth.
* CBRW: coupled biased random walks over the identity columns of each table; host = its oddest row, in standard
  deviations of its table.
* per-table surprise: -log2 of the share of hosts whose rarest row of that table is at least as rare; host = its best
  row, or the sum over tables.

Rows are those of the snapshot to judge; nobody knows the day before, nor which hosts are compromised, but where it says
so.
"""

import json
import math
import pathlib
import random
import re
import sys
import time
import tomllib
import warnings
from collections import defaultdict

import duckdb
import numpy

warnings.filterwarnings("ignore")
OWN = {"host", "fleet", "dt", "snapshot", "collected_at", "loose_id", "strict_id", "extra"}
# Every row of a fleet is held in memory.
MOST_HOSTS = 1000
VARYING = re.compile(r"[0-9a-fA-F]*[0-9][0-9a-fA-F]{5,}|[0-9a-fA-F]{5,}[0-9][0-9a-fA-F]*|[0-9]+")


class Table:
    """Rows of one table: the host of each, and numbers that name its content in several views."""

    def __init__(self, name, columns, identity, rows):
        self.name = name
        self.hosts = [row[0] for row in rows]
        texts, masks = {}, {}

        def text(value):
            value = "" if value is None else str(value)
            return texts.setdefault(value, value)

        def masked(value):
            if value not in masks:
                masks[value] = VARYING.sub("#", value)
            return masks[value]

        at = [columns.index(column) for column in identity if column in columns] or list(range(len(columns)))
        self.columns = [columns[i] for i in at]
        self.curated = [tuple(text(row[1 + i]) for i in at) for row in rows]
        self.masked = [tuple(masked(value) for value in content) for content in self.curated]
        # Of all columns only the equality of rows is asked for.
        self.full = [hash(row[1:]) for row in rows]


def shows(columns, row, traces):
    """Whether a row is one of the planted ones."""
    if not traces:
        return False
    cells = {name: "" if value is None else str(value) for name, value in zip(columns, row[1:])}
    return any(all(cells.get(name, "") == value for name, value in trace.items()) for trace in traces)


class Fleet:
    def __init__(self, kept, schemas):
        self.cell, self.seed = kept["cell"], kept["seed"]
        directory = pathlib.Path(kept["dir"])
        truth = json.loads((directory / "truth.json").read_text())
        store, snapshot = directory / "store", kept["snapshot"]
        sql = duckdb.connect()

        def read(kind):
            return (f"read_parquet('{store}/{kind}/**/*.parquet', hive_partitioning = true, "
                    "hive_types_autocast = false, union_by_name = true)")

        query = f"SELECT DISTINCT host FROM {read('hosts')} WHERE snapshot = ? ORDER BY host"
        self.hosts = [row[0] for row in sql.execute(query, [snapshot]).fetchall()]
        self.victims = {host for host in truth["compromised"] if host in set(self.hosts)}
        self.canaries = {host for host, facts in truth["facts"].items() if facts.get("canary") == "true"}
        traces = defaultdict(list)
        for host, planted in truth["compromised"].items():
            for trace in (trace for one in planted for trace in one["traces"] if not trace["missing"]):
                traces[(host, trace["table"])].append(trace["row"])
        self.row_victims = {host for host, _ in traces}
        self.tables = []
        for path in sorted((store / "rows").iterdir()):
            source = read("rows/" + path.name)
            names = [column[0] for column in sql.execute(f"DESCRIBE SELECT * FROM {source}").fetchall()]
            # Times are nobody's content, and would need one more package.
            names = [name for name in names if name == "host" or name not in OWN]
            quoted = ", ".join(f'"{name}"' for name in names)
            cursor = sql.execute(f"SELECT {quoted} FROM {source} WHERE snapshot = ?", [snapshot])
            columns = [name for name in names if name not in OWN]
            at = [names.index("host")] + [names.index(column) for column in columns]
            rows = [tuple(row[i] for i in at) for row in cursor.fetchall()]
            if not rows:
                continue
            table = Table(path.name, columns, schemas.get(path.name, []), rows)
            table.planted = [shows(columns, row, traces.get((row[0], path.name))) for row in rows]
            self.tables.append(table)

    def frequency(self, view):
        """By table: how many hosts have each content."""
        for table in self.tables:
            seen = defaultdict(set)
            for host, content in zip(table.hosts, getattr(table, view)):
                seen[content].add(host)
            yield table, {content: len(hosts) for content, hosts in seen.items()}


# --- methods: each gives a score by host, and a list of (host, table number, row number, score) or None ---

def structural_diff(fleet):
    clean = [host for host in fleet.hosts if host not in fleet.victims and host not in fleet.canaries]
    baseline, scores, rows = clean[0], dict.fromkeys(fleet.hosts, 0), []
    for number, table in enumerate(fleet.tables):
        known = {content for host, content in zip(table.hosts, table.full) if host == baseline}
        for row, (host, content) in enumerate(zip(table.hosts, table.full)):
            if content not in known:
                scores[host] += 1
                rows.append((host, number, row, 1.0))
    return scores, rows


def stacking(percent):
    def method(fleet):
        most = max(1, int(len(fleet.hosts) * percent / 100))
        scores, rows = dict.fromkeys(fleet.hosts, 0), []
        for number, (table, frequency) in enumerate(fleet.frequency("curated")):
            for row, (host, content) in enumerate(zip(table.hosts, table.curated)):
                if frequency[content] <= most:
                    scores[host] += 1
                    rows.append((host, number, row, -float(frequency[content])))
        return scores, rows
    return method


def surprise(view, combine):
    def method(fleet):
        total, scores, rows = len(fleet.hosts), dict.fromkeys(fleet.hosts, 0.0), []
        for number, (table, frequency) in enumerate(fleet.frequency(view)):
            contents = getattr(table, view)
            rarest = defaultdict(lambda: total)
            for host, content in zip(table.hosts, contents):
                rarest[host] = min(rarest[host], frequency[content])
            sorted_rarest = numpy.sort([rarest[host] for host in fleet.hosts])
            bits = {count: -math.log2(numpy.searchsorted(sorted_rarest, count, side="right") / total)
                    for count in set(frequency.values())}
            best = defaultdict(float)
            for row, (host, content) in enumerate(zip(table.hosts, contents)):
                score = bits[frequency[content]]
                best[host] = max(best[host], score)
                if frequency[content] < total:
                    rows.append((host, number, row, score))
            for host, score in best.items():
                scores[host] = combine(scores[host], score)
        return scores, rows
    return method


def cbrw(fleet):
    from coupled_biased_random_walks import CBRW
    scores, rows = dict.fromkeys(fleet.hosts, 0.0), []
    for number, table in enumerate(fleet.tables):
        observations = [{name: value for name, value in zip(table.columns, row) if value} or {"none": "1"}
                        for row in table.curated]
        if len(set(table.curated)) < 2 or len(table.columns) < 2:
            continue
        try:
            detector = CBRW()
            detector.add_observations(observations)
            odd = numpy.asarray(detector.fit().score(observations), dtype=float)
        except Exception as error:
            print(f"peers.py: CBRW cannot do {table.name}: {error}", file=sys.stderr)
            continue
        odd = numpy.nan_to_num((odd - numpy.nanmean(odd)) / (numpy.nanstd(odd) or 1.0))
        for row, (host, score) in enumerate(zip(table.hosts, odd)):
            scores[host] = max(scores[host], float(score))
            rows.append((host, number, row, float(score)))
    return scores, rows


def matrix(fleet):
    """Hosts by masked rows that some hosts have and others have not."""
    ordinals = {host: number for number, host in enumerate(fleet.hosts)}
    members = defaultdict(set)
    for table in fleet.tables:
        for host, content in zip(table.hosts, table.masked):
            members[(table.name, content)].add(ordinals[host])
    columns = [hosts for hosts in members.values() if len(hosts) < len(fleet.hosts)]
    one_hot = numpy.zeros((len(fleet.hosts), len(columns)), dtype=numpy.float32)
    for number, hosts in enumerate(columns):
        one_hot[list(hosts), number] = 1.0
    return one_hot


def detectors():
    from pyod.models.copod import COPOD
    from pyod.models.ecod import ECOD
    from pyod.models.hbos import HBOS
    from pyod.models.iforest import IForest
    from pyod.models.knn import KNN
    from pyod.models.loda import LODA
    from pyod.models.pca import PCA
    return {
        "IForest": lambda: IForest(random_state=1), "ECOD": ECOD, "COPOD": COPOD, "HBOS": HBOS,
        "LODA": lambda: LODA(), "PCA": lambda: PCA(random_state=1), "KNN": KNN,
    }


# --- measures: metrics.rs in Python ---

def ties(ranked):
    groups = []
    for score, victim in ranked:
        if groups and groups[-1][0] == score:
            groups[-1][1] += 1
            groups[-1][2] += victim
        else:
            groups.append([score, 1, int(victim)])
    return [(hosts, victims) for _, hosts, victims in groups]


def average_precision(groups):
    above = victims_above = total = 0.0
    for hosts, victims in groups:
        others = (victims - 1) / (hosts - 1) if hosts > 1 else 0.0
        for place in range(hosts):
            total += victims / hosts * (victims_above + 1 + place * others) / (above + place + 1)
        above, victims_above = above + hosts, victims_above + victims
    return total / victims_above if victims_above else None


def recall_at(groups, places):
    left, found, victims = places, 0.0, sum(group[1] for group in groups)
    for hosts, inside in groups:
        taken = min(left, hosts)
        found, left = found + inside * taken / hosts, left - taken
    return found / victims if victims else None


def reached_by(values, share):
    known = sorted(value for value in values if value is not None)
    needed = max(1, math.ceil(share * len(values) - 1e-9))
    return known[needed - 1] if needed <= len(known) else None


def shares(values):
    return [reached_by(values, share) for share in (0.5, 0.9, 1.0)]


def row_measures(fleet, scores, rows):
    """One list of distinct rows for each host: (score, masked content, planted)."""
    lists = defaultdict(dict)
    for host, number, row, score in rows:
        table = fleet.tables[number]
        key = (number, table.curated[row])
        planted = table.planted[row]
        old = lists[host].get(key)
        if old is None or score > old[0] or planted > old[2]:
            masked = (number, table.masked[row])
            lists[host][key] = (max(score, old[0]) if old else score, masked, planted or bool(old and old[2]))
    benign, first, best = {}, [], []
    for host in fleet.hosts:
        entries = list(lists[host].values())
        for score, masked, planted in entries:
            if not planted:
                benign[masked] = max(score, benign.get(masked, -math.inf))
        if host not in fleet.row_victims:
            continue
        top = max((score for score, _, planted in entries if planted), default=None)
        best.append(top)
        if top is not None:
            higher = sum(score > top for score, _, _ in entries)
            equal = sum(score == top for score, _, _ in entries)
            mine = sum(score == top and planted for score, _, planted in entries)
            first.append(higher + (equal + 1) / (mine + 1))
    if not best:
        return None
    ordered = numpy.sort([-score for score in benign.values()])

    def above(score):
        higher = int(numpy.searchsorted(ordered, -score, side="left"))
        equal = int(numpy.searchsorted(ordered, -score, side="right")) - higher
        return higher + equal / 2

    return {
        "first": first,
        "listed": len(first) / len(best),
        "top_ten": sum(rank <= 10 for rank in first) / len(best),
        "read": shares([None if score is None else above(score) for score in best]),
        "by_host": shares(read_by_host(fleet, scores, lists)),
    }


def read_by_host(fleet, scores, lists):
    """Ties of hosts and rows in one random order, the same in every run."""
    chance = random.Random(1)
    read, reached = set(), []
    for host in sorted(fleet.hosts, key=lambda host: (-scores[host], chance.random())):
        found = False
        for _, masked, planted in sorted(lists[host].values(), key=lambda entry: (-entry[0], chance.random())):
            if planted and host in fleet.row_victims:
                found = True
                break
            if not planted:
                read.add(masked)
        if host in fleet.row_victims:
            reached.append(float(len(read)) if found else None)
    return reached


def measures(fleet, scores, rows, seconds):
    ranked = sorted(((float(scores[host]), host in fleet.victims) for host in fleet.hosts), reverse=True)
    groups = ties(ranked)
    return {
        "ap": average_precision(groups),
        "chance": len(fleet.victims) / len(fleet.hosts),
        "recall": recall_at(groups, len(fleet.victims)),
        "rows": row_measures(fleet, scores, rows) if rows is not None else None,
        "seconds": seconds,
    }


METHODS = {
    "structural diff to one clean host": structural_diff,
    "stacking, rows on <= 1 %": stacking(1),
    "stacking, rows on <= 5 %": stacking(5),
    "CBRW": cbrw,
    "per-table surprise, best row": surprise("curated", max),
    "per-table surprise, masked, best": surprise("masked", max),
    "per-table surprise, masked, sum": surprise("masked", lambda a, b: a + b),
}


def run(fleet):
    for name, method in METHODS.items():
        started = time.monotonic()
        scores, rows = method(fleet)
        yield name, measures(fleet, scores, rows, time.monotonic() - started)
    one_hot = matrix(fleet)
    for name, make in detectors().items():
        started = time.monotonic()
        try:
            detector = make()
            numpy.random.seed(1)
            detector.fit(one_hot)
            odd = numpy.nan_to_num(detector.decision_scores_)
        except Exception as error:
            print(f"peers.py: {name} cannot do {fleet.cell}: {error}", file=sys.stderr)
            continue
        scores = dict(zip(fleet.hosts, odd))
        yield f"PyOD {name}", measures(fleet, scores, None, time.monotonic() - started)


def best_of_pyod(results):
    """Leaves, of the detectors of each cell, the best."""
    precision = defaultdict(list)
    for result in results:
        if result["method"].startswith("PyOD "):
            precision[(result["cell"], result["method"])].append(result["measures"]["ap"] or 0.0)
    best = {}
    for (cell, method), values in precision.items():
        best[cell] = max(best.get(cell, (0.0, method)), (sum(values) / len(values), method))
    kept = []
    for result in results:
        if not result["method"].startswith("PyOD "):
            kept.append(result)
        elif best[result["cell"]][1] == result["method"]:
            kept.append(result | {"method": f"best of 7 of PyOD: {result['method'].removeprefix('PyOD ')}"})
    return kept


def identity_columns(directory):
    columns = {}
    for path in pathlib.Path(directory).glob("*.toml"):
        spec = tomllib.loads(path.read_text())
        columns[spec["name"]] = [column["name"] for column in spec["column"] if column["role"] == "identity"]
    return columns


def main(schemas, directory):
    schemas, results = identity_columns(schemas), []
    for kept in json.loads((pathlib.Path(directory) / "fleets.json").read_text()):
        if kept.get("hosts", 0) > MOST_HOSTS:
            print(f"peers.py: {kept['cell']} is left out: too large", file=sys.stderr)
            continue
        fleet = Fleet(kept, schemas)
        if not fleet.victims:
            continue
        print(f"peers.py: {fleet.cell}, seed {fleet.seed}", file=sys.stderr)
        for method, measured in run(fleet):
            results.append({"cell": fleet.cell, "seed": fleet.seed, "method": method, "measures": measured})
    json.dump(best_of_pyod(results), sys.stdout)


if __name__ == "__main__":
    main(*sys.argv[1:])
