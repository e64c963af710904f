-- Which rows, with what is in them, are on at most some percent of the hosts that answered for their table?
-- tables: identities, coverage, hosts
-- param: max_percent = 1 (integer) Most hosts of a fleet that may have such a row, in percent of those that answered.
-- param: table = (text) Only this table; all tables when empty.
-- param: fleet = (text) Only this fleet; all fleets when empty.
-- false positives: rows that each host has of its own; `row_on_hosts` shows the content of a strict id.
-- references: T1036, https://attack.mitre.org/techniques/T1036/

WITH answered AS (
    SELECT snapshot, table_name, count(*) AS hosts_answered
    FROM current.coverage
    WHERE status IN ('ok', 'empty')
    GROUP BY snapshot, table_name
),
placed AS (
    SELECT
        fleet, snapshot, table_name, strict_id, hosts_answered, hosts AS hosts_with_row,
        unnest(bitmap_to_list(members)) AS ordinal
    FROM current.identities AS distinct_row
    INNER JOIN answered USING (snapshot, table_name)
    WHERE hosts * 100 <= hosts_answered * $max_percent
      AND ($fleet = '' OR distinct_row.fleet = $fleet)
      AND ($table = '' OR distinct_row.table_name = $table)
)
-- Not in order: there may be many.
SELECT
    placed.fleet, hosts.host, placed.table_name, placed.strict_id, placed.hosts_with_row, placed.hosts_answered
FROM placed
INNER JOIN current.hosts USING (snapshot, ordinal)
