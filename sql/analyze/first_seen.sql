-- In which snapshot was each row of the newest ones, with the same content, first seen?
-- tables: identities, snapshots
-- param: table = (text) Only this table; all tables when empty.
-- param: fleet = (text) Only this fleet; all fleets when empty.
-- false positives: none; it only looks up, and sees no further than the snapshots that the store still has.
-- references: none; it answers no technique.

WITH seen AS (
    SELECT fleet, table_name, strict_id, min(snapshot) AS first_snapshot, max(snapshot) AS last_snapshot
    FROM identities
    WHERE ($fleet = '' OR fleet = $fleet)
      AND ($table = '' OR table_name = $table)
    GROUP BY fleet, table_name, strict_id
)
-- Not in order: there may be many.
SELECT seen.fleet, seen.table_name, seen.strict_id, seen.first_snapshot
FROM seen
INNER JOIN current.snapshots ON current.snapshots.fleet = seen.fleet AND current.snapshots.snapshot = seen.last_snapshot
