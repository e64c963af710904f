-- Which snapshots are there of a fleet, the newest first?
-- tables: snapshots
-- param: fleet = (text) Only this fleet; all fleets when empty.
-- false positives: none; it is a list.
-- references: none; it answers no technique.

SELECT
    fleet, snapshot, started, ended, collector, collected_by, incident,
    hosts_asked, hosts_answered, hosts_failed, tables, rows, bytes, diffy_version
FROM snapshots
WHERE $fleet = '' OR fleet = $fleet
ORDER BY fleet, started DESC
