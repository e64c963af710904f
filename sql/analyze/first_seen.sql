-- In which snapshot was each row of the newest ones, with the same content, first seen?
-- tables: sightings
-- param: table = (text) Only this table; all tables when empty.
-- param: fleet = (text) Only this fleet; all fleets when empty.
-- false positives: none; it only looks up, and sees no further than the snapshots that the store still has.
-- references: none; it answers no technique.

-- Not in order: there may be many.
SELECT fleet, table_name, strict_id, first_snapshot, snapshots AS in_snapshots
FROM current.sightings
WHERE ($fleet = '' OR fleet = $fleet)
  AND ($table = '' OR table_name = $table)
