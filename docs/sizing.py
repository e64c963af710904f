#!/usr/bin/env python3
"""The arithmetic of docs/sizing.md, to be done again with other numbers: docs/sizing.py --hosts 50000 --fleets 12"""

import argparse
import math

# Measured: the newest snapshot of `diffy demo --bundled` at 20,000 hosts, 47 tables asked of which 30 have rows.
MEASURED_HOSTS = 20_000
ROWS, LINES = 29_306_742, 1_554_040
BYTES = {"rows": 171_927_488, "prevalence": 67_178_678, "coverage": 5_074_734, "hosts": 581_144}
FILES = {"rows": 50, "prevalence": 30, "coverage": 1, "hosts": 1, "manifest": 1}
MANIFEST_BYTES = 37_485
SMALL_FILES = 20  # below 128 KiB, the manifest too
LARGE_FILES, LARGE_BYTES = 14, 178_698_331  # above 8 MiB: these go in parts
JSON_BYTES = 7_471_780_460  # as the hosts said it
# Measured elsewhere in these pages.
PACKED_BYTES_PER_HOST = 57_000  # gzip of one host's answers on the bench of docs/aws.md
INGEST_ROWS_PER_SECOND = 313_000  # 29,306,742 rows in 94 s, two cores
ANALYZE_SECONDS = 10  # of 20,000 hosts, two cores
INGEST_MEMORY_MIB = (902 - 463) / (20_000 - 2_000)  # what a host adds to the peak
ANALYZE_MEMORY_MIB = (850 - 325) / (20_000 - 2_000)

# List prices in US dollars, us-east-1. A month has 30 days.
PRICE = {
    "Standard": dict(gb=0.023, put=0.005, get=0.0004, back=0.0, into=0.0),
    "Standard-IA": dict(gb=0.0125, put=0.01, get=0.001, back=0.01, into=0.01),
    "Glacier IR": dict(gb=0.004, put=0.02, get=0.01, back=0.03, into=0.02),
}
ATHENA_TB, GLUE_OBJECTS, GLUE_FREE = 5.0, 1.0 / 100_000, 1_000_000
VCPU_HOUR, GB_HOUR = 0.04048, 0.004445  # Fargate, Linux on x86
KMS_CALL, NAT_GB, CLOUDTRAIL_EVENT = 0.03 / 10_000, 0.045, 0.10 / 100_000

GB, TB = 1e9, 1e12


def parsed():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hosts", type=int, default=1_000_000)
    parser.add_argument("--fleets", type=int, default=50)
    parser.add_argument("--snapshots-a-day", type=float, default=1)
    parser.add_argument("--days", type=int, default=365, help="how long snapshots are kept")
    parser.add_argument("--warm-days", type=int, default=30, help="how long they stay in S3 Standard")
    parser.add_argument("--gets-per-analysis", type=int, default=139, help="measured for 20,000 hosts")
    return parser.parse_args()


def table(title, lines):
    print(f"\n**{title}**\n\n| | | |\n| --- | ---: | --- |")
    for what, value, how in lines:
        print(f"| {what} | {value} | {how} |")


def count(number):
    return f"{number:,.0f}"


def main():
    a = parsed()
    scale = a.hosts / MEASURED_HOSTS  # of bytes and rows
    per_fleet = a.hosts / a.fleets
    snapshots = a.fleets * a.snapshots_a_day
    monthly = snapshots * 30
    # Tables have one file each however small the fleet, and another part for each million rows.
    parts = FILES["prevalence"] + max(0, FILES["rows"] - FILES["prevalence"]) * per_fleet / MEASURED_HOSTS
    objects = parts + FILES["prevalence"] + FILES["coverage"] + FILES["hosts"] + FILES["manifest"]
    day_bytes = sum(BYTES.values()) * scale * a.snapshots_a_day + MANIFEST_BYTES * snapshots
    kept_bytes = day_bytes * a.days
    large = LARGE_BYTES * scale / a.fleets  # of a snapshot
    puts = objects + math.ceil(large / (8 << 20)) + LARGE_FILES * per_fleet / MEASURED_HOSTS

    table("What lies there", [
        ("rows a day", count(ROWS * scale * a.snapshots_a_day), "1,465 a host"),
        ("lines of prevalence a day", count(LINES * scale * a.snapshots_a_day), "78 a host"),
        ("JSON of hosts a day", f"{JSON_BYTES * scale * a.snapshots_a_day / GB:,.0f} GB", "374 KB a host"),
        ("stored a day", f"{day_bytes / GB:,.1f} GB", f"{sum(BYTES.values()) / MEASURED_HOSTS / 1000:,.1f} KB a host"),
        ("objects of a snapshot", count(objects), "62 files and the manifest; a part more for each million rows"),
        ("objects a day", count(objects * snapshots), ""),
        ("**objects after the time kept**", f"**{count(objects * snapshots * a.days)}**", f"{a.days} days"),
        ("**bytes after the time kept**", f"**{kept_bytes / TB:,.2f} TB**", ""),
        ("of these rows, prevalence", f"{BYTES['rows'] / sum(BYTES.values()):.0%}, {BYTES['prevalence'] / sum(BYTES.values()):.0%}", "measured"),
    ])

    packs = a.hosts * a.snapshots_a_day * 30
    raw_bytes = packs * PACKED_BYTES_PER_HOST
    p = PRICE["Standard"]
    warm = min(a.warm_days, a.days) / a.days
    costs = {name: kept_bytes / GB * price["gb"] for name, price in PRICE.items()}
    lines = [("snapshots, all in S3 Standard", costs["Standard"], f"{p['gb']} a GB")]
    for name in ("Standard-IA", "Glacier IR"):
        price = PRICE[name]
        mixed = costs["Standard"] * warm + kept_bytes / GB * (1 - warm) * price["gb"]
        move = objects * monthly / 1000 * price["into"]
        lines.append((f"or: {a.warm_days} days Standard, then {name}", mixed + move, f"{move:,.2f} of it for moving the objects of a month"))
    table("Storage, dollars a month once the store is full", [(w, f"{c:,.2f}", h) for w, c, h in lines])

    read_back = day_bytes * 30 * (BYTES["prevalence"] + BYTES["coverage"] + BYTES["hosts"]) / sum(BYTES.values()) / GB
    gets = monthly * a.gets_per_analysis
    table("Requests and the rest, dollars a month", [
        ("PUT of snapshots", f"{puts * monthly / 1000 * p['put']:,.2f}", f"{count(puts)} each: one a file, one for each 8 MiB of larger ones, two around those"),
        ("GET and LIST of analyses", f"{gets / 1000 * p['get'] + 2 * monthly / 1000 * p['put']:,.2f}", f"{count(a.gets_per_analysis)} and 2 each"),
        ("`--history 30d`: GET", f"{monthly * 30 * 33 / 1000 * p['get']:,.2f}", "33 for each earlier snapshot, of which large files take more"),
        ("… and the same out of Glacier IR", f"{read_back * 30 * PRICE['Glacier IR']['back']:,.2f}", f"{read_back * 30 / 1000:,.1f} TB read; keep what history reads in Standard"),
        ("PUT of answers (`raw/`, `ssm-out/`)", f"{packs / 1000 * p['put']:,.2f}", "one a host and collection"),
        ("GET of answers", f"{packs / 1000 * p['get']:,.2f}", "one a host"),
        ("answers kept 30 days", f"{raw_bytes / GB * p['gb']:,.2f}", f"{raw_bytes / TB:,.2f} TB; 7 days: {raw_bytes / GB * p['gb'] * 7 / 30:,.2f}"),
        ("KMS without bucket key", f"{2 * packs * KMS_CALL:,.2f}", "two calls a host; with one next to nothing"),
        ("Run Command", "0.00", "no charge for EC2 instances"),
    ])

    ingest = ROWS * scale * a.snapshots_a_day / INGEST_ROWS_PER_SECOND / 3600 * 2
    analyse = ANALYZE_SECONDS * scale * a.snapshots_a_day / 3600 * 2
    hours = (ingest + analyse) * 30
    table("Work, a month", [
        ("core hours of ingest", f"{ingest * 30:,.0f}", f"{ingest:,.1f} a day"),
        ("core hours of analysis", f"{analyse * 30:,.0f}", f"{analyse:,.1f} a day"),
        ("on Fargate, 4 GB a core", f"{hours * (VCPU_HOUR + 4 * GB_HOUR):,.2f} $", "without waiting for hosts"),
        ("a machine of 4 cores that waits all month", f"{720 * 4 * (VCPU_HOUR + 4 * GB_HOUR):,.2f} $", ""),
    ])

    rows_year = kept_bytes * BYTES["rows"] / sum(BYTES.values())
    prevalence_year = kept_bytes * BYTES["prevalence"] / sum(BYTES.values())
    partitions = 62 * snapshots * a.days
    table("Athena", [
        ("rows of a day, all columns", f"{rows_year / a.days / TB * ATHENA_TB:,.2f} $", "each time"),
        ("rows of all days, all columns", f"{rows_year / TB * ATHENA_TB:,.2f} $", "each time"),
        ("prevalence of all days", f"{prevalence_year / TB * ATHENA_TB:,.2f} $", "each time"),
        ("partitions in Glue", count(partitions), f"{max(0, partitions - GLUE_FREE) * GLUE_OBJECTS:,.2f} $ a month above the free million"),
    ])

    table("Of one fleet, on one machine", [
        ("hosts", count(per_fleet), ""),
        ("memory to finish a collection", f"{463 + max(per_fleet - 2000, 0) * INGEST_MEMORY_MIB:,.0f} MiB", "what a host adds, measured between 2,000 and 20,000"),
        ("memory to analyse", f"{325 + max(per_fleet - 2000, 0) * ANALYZE_MEMORY_MIB:,.0f} MiB", "as above"),
        ("disk for the spool", f"{per_fleet * PACKED_BYTES_PER_HOST / GB:,.1f} GB", "if zstd packs as well as gzip"),
        ("sending, a command a host", f"{per_fleet / 4.5 / 3600:,.1f} h", "4.5 commands a second"),
        ("sending, a command for 50", f"{per_fleet / 50 / 4.5 / 3600:,.2f} h", ""),
        ("all hosts in one account and region, a command a host", f"{a.hosts / 4.5 / 86400:,.1f} days", ""),
        ("… a command for 50", f"{a.hosts / 50 / 4.5 / 3600:,.1f} h", ""),
        ("… 500 hosts at once, 30 s each", f"{a.hosts / 500 * 30 / 3600:,.1f} h", ""),
    ])


if __name__ == "__main__":
    main()
