-- Which hosts of which snapshots have the row of this strict id?
-- tables: prevalence, hosts
-- param: strict_id (text) The strict id in hex, as findings and `hex_id(strict_id)` print it.
-- param: fleet = (text) Only this fleet; all fleets when empty.
-- false positives: none; it only looks up.
-- references: none; it answers no technique.

WITH placed AS (
    SELECT table_name, fleet, dt, snapshot, row, unnest(bitmap_to_list(members)) AS ordinal
    FROM prevalence
    WHERE strict_id = id($strict_id)
      AND ($fleet = '' OR fleet = $fleet)
)
SELECT placed.fleet, placed.dt, placed.snapshot, hosts.host, placed.table_name, placed.row
FROM placed
LEFT JOIN hosts USING (fleet, snapshot, ordinal)
ORDER BY placed.fleet, placed.snapshot DESC, hosts.host
