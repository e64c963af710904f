"""The questions in chDB, ClickHouse as a library: `file()` over Parquet, arrays of hosts cut where they are no longer
rare."""

import chdb

READ = "use_hive_partitioning = 0, input_format_parquet_use_native_reader_v3 = 1"
# Bytes stay bytes, times stay times.
WRITE = "output_format_parquet_string_as_string = 1, output_format_parquet_datetime_as_uint32 = 0, session_timezone = 'UTC'"


def source(paths):
    """All files of one snapshot, or of all snapshots: `file()` takes patterns."""
    folders = {path.rsplit("/", 1)[0] for path in paths}
    if len(folders) == 1:
        return f"file('{folders.pop()}/*.parquet', Parquet)"
    return f"file('{paths[0].rsplit('/', 3)[0]}/*/*/*.parquet', Parquet)"


def write(sql, out, read=READ):
    chdb.query(f"{sql} INTO OUTFILE '{out}' TRUNCATE FORMAT Parquet SETTINGS {read}, {WRITE}")


def rare(spec, out):
    counts = chdb.query(
        f"SELECT table_name, count() FROM {source(spec['coverage'])} WHERE status IN ('ok', 'empty') "
        f"GROUP BY table_name SETTINGS {READ}",
        "TSV",
    )
    answered = dict(line.split("\t") for line in str(counts).splitlines())
    parts = []
    for table, paths in spec["tables"].items():
        most = int(answered.get(table, 0)) // 100
        # One host too many is enough to know.
        parts.append(f"""
            SELECT '{table}' AS table_name, strict_id, host
            FROM (
                SELECT strict_id, groupUniqArray({most + 1})(host) AS hosts
                FROM {source(paths['rows'])} GROUP BY strict_id HAVING length(hosts) <= {most}
            ) ARRAY JOIN hosts AS host""")
    write(f"SELECT * FROM ({' UNION ALL '.join(parts)})", out)


def baseline(spec, out):
    parts = []
    for table, paths in spec["tables"].items():
        known = f"WHERE strict_id NOT IN (SELECT strict_id FROM {source(paths['base'])})" if paths["base"] else ""
        parts.append(f"""
            SELECT '{table}' AS table_name, strict_id, uniqExact(host) AS hosts
            FROM {source(paths['rows'])} {known} GROUP BY strict_id""")
    write(f"SELECT * FROM ({' UNION ALL '.join(parts)})", out)


def first_seen(spec, out):
    parts = []
    for table, paths in spec["tables"].items():
        parts.append(f"""
            SELECT '{table}' AS table_name, strict_id, min(snapshot) AS first_snapshot
            FROM {source(paths['history'])}
            WHERE strict_id IN (SELECT strict_id FROM {source(paths['rows'])})
            GROUP BY strict_id""")
    write(f"SELECT * FROM ({' UNION ALL '.join(parts)})", out, READ.replace("partitioning = 0", "partitioning = 1"))


ADHOC = {
    "changed_after_written": """
        SELECT path, uniqExact(host) AS hosts_with_age, min(host) AS a_host,
            fromUnixTimestamp(assumeNotNull(min(mtime))) AS modified, fromUnixTimestamp(assumeNotNull(max(ctime))) AS changed
        FROM {file}
        WHERE match(path, '^/(usr/|bin/|sbin/|lib|etc/)') AND type = 'regular' AND ctime - mtime > 30 * 86400
        GROUP BY path HAVING hosts_with_age <= 3
        ORDER BY hosts_with_age, path""",
    "shells_with_connections": """
        SELECT p.path, p.cmdline, p.parent_path, p.uid, s.remote_port,
            uniqExact(s.host) AS hosts_with_connection, min(s.host) AS a_host,
            uniqExact(s.remote_address) AS remote_addresses, min(s.remote_address) AS a_remote_address
        FROM (
            SELECT host, pid, remote_port, remote_address FROM {process_open_sockets}
            WHERE remote_port > 0 AND remote_address NOT IN ('', '0.0.0.0', '::', '::1') AND remote_address NOT LIKE '127.%'
        ) AS s
        JOIN (
            SELECT host, pid, path, cmdline, parent_path, uid FROM {processes}
            WHERE match(path, '/(ba|da|k|z|c|tc|fi|a)?sh$|/(python|perl|ruby|php|lua|node|nc|ncat|netcat|socat|telnet|busybox|awk|gawk|mawk)[0-9.]*([.](openbsd|traditional))?$')
        ) AS p ON p.host = s.host AND p.pid = s.pid
        GROUP BY p.path, p.cmdline, p.parent_path, p.uid, s.remote_port
        ORDER BY hosts_with_connection, p.path, p.cmdline, s.remote_port""",
    "ld_preload": """
        SELECT key, value, process_path, uniqExact(host) AS hosts_with_value, min(host) AS a_host,
            min(uid) AS lowest_uid
        FROM {process_envs}
        WHERE key IN ('LD_PRELOAD', 'LD_AUDIT', 'LD_LIBRARY_PATH', 'DYLD_INSERT_LIBRARIES') AND value <> ''
        GROUP BY key, value, process_path ORDER BY hosts_with_value, key, value""",
    "open_sockets_by_process": """
        SELECT process_path, remote_address, remote_port, protocol, uniqExact(host) AS hosts_talking,
            min(host) AS a_host, count() AS sockets
        FROM {process_open_sockets}
        WHERE remote_port > 0 AND remote_address NOT IN ('', '0.0.0.0', '::', '127.0.0.1', '::1')
        GROUP BY process_path, remote_address, remote_port, protocol HAVING hosts_talking <= 10
        ORDER BY hosts_talking, process_path, remote_address, remote_port""",
    "tmp_executables": """
        SELECT host, path, mode, uid, size, fromUnixTimestamp(assumeNotNull(mtime)) AS modified,
            fromUnixTimestamp(assumeNotNull(ctime)) AS changed
        FROM {file}
        WHERE match(path, '^/(tmp|var/tmp|dev/shm)/') AND type = 'regular'
          AND match(mode, '([1357][0-7][0-7]|[0-7][1357][0-7]|[0-7][0-7][1357])$')
        ORDER BY path, host""",
}


def adhoc(name, spec, out):
    tables = {table: source(paths["rows"]) for table, paths in spec["tables"].items()}
    write(ADHOC[name].format(**tables), out)


KINDS = {"text": "Nullable(String)", "integer": "Nullable(Int64)", "double": "Nullable(Float64)"}


def ingest(spec, out):
    for table, columns in spec["columns"].items():
        kinds = ", ".join(f"`{name}` {KINDS[kind]}" for name, kind in columns.items())
        chdb.query(f"""
            SELECT *, splitByChar('/', _path)[-2] AS host
            FROM file('{spec['json']}/*/{table}.json', JSONEachRow, '{kinds}')
            INTO OUTFILE '{out}/{table}.parquet' TRUNCATE FORMAT Parquet
            SETTINGS output_format_parquet_compression_method = 'zstd'""")
