-- Which rows of the newest snapshots are not, with the same content, in another snapshot?
-- tables: identities
-- param: snapshot (snapshot) The snapshot to compare with, of any fleet.
-- param: table = (text) Only this table; all tables when empty.
-- param: fleet = (text) Only this fleet; all fleets when empty.
-- false positives: rows that each host has of its own; `row_on_hosts` shows the content of a strict id.
-- references: T1036, https://attack.mitre.org/techniques/T1036/

-- Not in order: there may be many. A strict id belongs to one table. What is on the left is held in memory.
SELECT now.fleet, now.table_name, now.loose_id, now.strict_id, now.hosts AS hosts_with_row
FROM (SELECT strict_id FROM identities WHERE snapshot = $snapshot) AS other
RIGHT ANTI JOIN current.identities AS now ON now.strict_id = other.strict_id
WHERE ($fleet = '' OR now.fleet = $fleet)
  AND ($table = '' OR now.table_name = $table)
