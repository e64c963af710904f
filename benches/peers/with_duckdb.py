"""The questions as DuckDB's own users would write them: explicit files, only the columns that are needed, no Hive
partitions but where they are the question."""

import duckdb


def files(paths):
    return "[" + ", ".join(f"'{path}'" for path in paths) + "]"


def connect():
    db = duckdb.connect()
    db.execute("SET preserve_insertion_order = false")
    return db


def copy(db, sql, out):
    db.execute(f"COPY ({sql}) TO '{out}' (FORMAT parquet)")


def rare(spec, out):
    db = connect()
    coverage = f"read_parquet({files(spec['coverage'])}, hive_partitioning = false)"
    answered = db.execute(
        f"SELECT table_name, count(*) FROM {coverage} WHERE status IN ('ok', 'empty') GROUP BY ALL"
    ).fetchall()
    parts = []
    for table, most in answered:
        if table not in spec["tables"]:
            continue
        paths = files(spec["tables"][table]["rows"])
        # Common ids are dropped by their number of hosts before any host is kept.
        parts.append(f"""
            SELECT '{table}' AS table_name, strict_id, host
            FROM (SELECT DISTINCT strict_id, host FROM read_parquet({paths}, hive_partitioning = false))
            SEMI JOIN (
                SELECT strict_id FROM read_parquet({paths}, hive_partitioning = false)
                GROUP BY strict_id HAVING count(DISTINCT host) * 100 <= {most}
            ) USING (strict_id)""")
    copy(db, " UNION ALL ".join(parts), out)


def baseline(spec, out):
    parts = [
        f"""SELECT '{table}' AS table_name, strict_id, count(DISTINCT host) AS hosts
            FROM read_parquet({files(paths['rows'])}, hive_partitioning = false)
            ANTI JOIN (
                SELECT DISTINCT strict_id FROM read_parquet({files(paths['base'])}, hive_partitioning = false)
            ) USING (strict_id)
            GROUP BY strict_id"""
        if paths["base"]
        else f"""SELECT '{table}' AS table_name, strict_id, count(DISTINCT host) AS hosts
            FROM read_parquet({files(paths['rows'])}, hive_partitioning = false) GROUP BY strict_id"""
        for table, paths in spec["tables"].items()
    ]
    copy(connect(), " UNION ALL ".join(parts), out)


def first_seen(spec, out):
    parts = [
        f"""SELECT '{table}' AS table_name, strict_id, min(snapshot) AS first_snapshot
            FROM read_parquet({files(paths['history'])}, hive_partitioning = true, hive_types_autocast = 0)
            GROUP BY strict_id HAVING max(snapshot) = '{spec['newest']}'"""
        for table, paths in spec["tables"].items()
    ]
    copy(connect(), " UNION ALL ".join(parts), out)


ADHOC = {
    "changed_after_written": """
        SELECT path, count(DISTINCT host) AS hosts_with_age, min(host) AS a_host,
            make_timestamp(min(mtime) * 1000000) AS modified, make_timestamp(max(ctime) * 1000000) AS changed
        FROM {file}
        WHERE regexp_matches(path, '^/(usr/|bin/|sbin/|lib|etc/)') AND type = 'regular' AND ctime - mtime > 30 * 86400
        GROUP BY path HAVING count(DISTINCT host) <= 3
        ORDER BY hosts_with_age, path""",
    "shells_with_connections": """
        SELECT p.path, p.cmdline, p.parent_path, p.uid, s.remote_port,
            count(DISTINCT s.host) AS hosts_with_connection, min(s.host) AS a_host,
            count(DISTINCT s.remote_address) AS remote_addresses, min(s.remote_address) AS a_remote_address
        FROM {process_open_sockets} AS s
        JOIN {processes} AS p ON p.host = s.host AND p.pid = s.pid
        WHERE regexp_matches(p.path, '/(ba|da|k|z|c|tc|fi|a)?sh$|/(python|perl|ruby|php|lua|node|nc|ncat|netcat|socat|telnet|busybox|awk|gawk|mawk)[0-9.]*([.](openbsd|traditional))?$')
          AND s.remote_port > 0 AND s.remote_address NOT IN ('', '0.0.0.0', '::', '::1')
          AND s.remote_address NOT LIKE '127.%'
        GROUP BY p.path, p.cmdline, p.parent_path, p.uid, s.remote_port
        ORDER BY hosts_with_connection, p.path, p.cmdline, s.remote_port""",
    "ld_preload": """
        SELECT key, value, process_path, count(DISTINCT host) AS hosts_with_value, min(host) AS a_host,
            min(uid) AS lowest_uid
        FROM {process_envs}
        WHERE key IN ('LD_PRELOAD', 'LD_AUDIT', 'LD_LIBRARY_PATH', 'DYLD_INSERT_LIBRARIES') AND value <> ''
        GROUP BY key, value, process_path ORDER BY hosts_with_value, key, value""",
    "open_sockets_by_process": """
        SELECT process_path, remote_address, remote_port, protocol, count(DISTINCT host) AS hosts_talking,
            min(host) AS a_host, count(*) AS sockets
        FROM {process_open_sockets}
        WHERE remote_port > 0 AND remote_address NOT IN ('', '0.0.0.0', '::', '127.0.0.1', '::1')
        GROUP BY process_path, remote_address, remote_port, protocol HAVING count(DISTINCT host) <= 10
        ORDER BY hosts_talking, process_path, remote_address, remote_port""",
    "tmp_executables": """
        SELECT host, path, mode, uid, size, make_timestamp(mtime * 1000000) AS modified,
            make_timestamp(ctime * 1000000) AS changed
        FROM {file}
        WHERE regexp_matches(path, '^/(tmp|var/tmp|dev/shm)/') AND type = 'regular'
          AND regexp_matches(mode, '([1357][0-7][0-7]|[0-7][1357][0-7]|[0-7][0-7][1357])$')
        ORDER BY path, host""",
}


def adhoc(name, spec, out):
    tables = {
        table: f"read_parquet({files(paths['rows'])}, hive_partitioning = false)"
        for table, paths in spec["tables"].items()
    }
    copy(connect(), ADHOC[name].format(**tables), out)


KINDS = {"text": "VARCHAR", "integer": "BIGINT", "double": "DOUBLE"}


def ingest(spec, out):
    db = connect()
    for table, columns in spec["columns"].items():
        kinds = ", ".join(f"'{name}': '{KINDS[kind]}'" for name, kind in columns.items())
        db.execute(f"""COPY (
            SELECT * EXCLUDE (source_file), split_part(source_file, '/', -2) AS host
            FROM read_json('{spec['json']}/*/{table}.json', format = 'array', filename = 'source_file', columns = {{{kinds}}})
        ) TO '{out}/{table}.parquet' (FORMAT parquet, COMPRESSION zstd)""")
