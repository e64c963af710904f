-- Which rows of any table exist on only a few hosts of a fleet?
-- tables: prevalence, coverage, hosts
-- param: max_hosts = 1 (integer) Most hosts of a fleet that may have such a row.
-- param: table = (text) Only this table; all tables when empty.
-- param: fleet = (text) Only this fleet; all fleets when empty.
-- false positives: most rare rows are harmless; the tables that are noisy on a fleet are better asked one at a time.
-- references: T1036, https://attack.mitre.org/techniques/T1036/

WITH rare AS (
    SELECT table_name, fleet, snapshot, loose_id, min(row) AS row, bitmap_or(members) AS members
    FROM current.prevalence
    WHERE ($fleet = '' OR fleet = $fleet)
      AND ($table = '' OR table_name = $table)
    GROUP BY table_name, fleet, snapshot, loose_id
    HAVING bitmap_count(bitmap_or(members)) <= $max_hosts
),
placed AS (
    SELECT *, bitmap_count(members) AS hosts_with_row, unnest(bitmap_to_list(members)) AS ordinal
    FROM rare
),
answered AS (
    SELECT fleet, table_name, count(*) AS hosts_answered
    FROM current.coverage
    WHERE status IN ('ok', 'empty')
    GROUP BY fleet, table_name
)
SELECT
    placed.fleet, hosts.host, placed.table_name, placed.row,
    placed.hosts_with_row, answered.hosts_answered, hex_id(placed.loose_id) AS loose_id
FROM placed
LEFT JOIN current.hosts USING (fleet, snapshot, ordinal)
LEFT JOIN answered ON answered.fleet = placed.fleet AND answered.table_name = placed.table_name
WHERE answered.hosts_answered IS NULL OR placed.hosts_with_row * 2 <= answered.hosts_answered
ORDER BY placed.hosts_with_row, placed.fleet, placed.table_name, hosts.host
