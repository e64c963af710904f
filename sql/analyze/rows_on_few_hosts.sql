-- Which rows, with what is in them, are on at most some percent of the hosts that answered for their table?
-- tables: identities, hosts
-- param: max_percent = 1 (integer) Most hosts of a fleet that may have such a row, in percent of those that answered.
-- param: table = (text) Only this table; all tables when empty.
-- param: fleet = (text) Only this fleet; all fleets when empty.
-- false positives: rows that each host has of its own; `row_on_hosts` shows the content of a strict id.
-- references: T1036, https://attack.mitre.org/techniques/T1036/

WITH placed AS (
    SELECT
        fleet, snapshot, table_name, strict_id, hosts AS hosts_with_row, hosts_answered,
        unnest(bitmap_to_list(members)) AS ordinal
    FROM current.identities
    WHERE hosts * 100 <= hosts_answered * $max_percent
      AND ($fleet = '' OR fleet = $fleet)
      AND ($table = '' OR table_name = $table)
)
-- Not in order: there may be many.
SELECT
    placed.fleet, hosts.host, placed.table_name, placed.strict_id, placed.hosts_with_row, placed.hosts_answered
FROM placed
INNER JOIN current.hosts USING (snapshot, ordinal)
