-- How many identities of one table of one snapshot there are, and how many of them have other hosts by the rows than by
-- prevalence. `table_name` stands for the table.
WITH again AS (
    SELECT r.loose_id, r.strict_id, bitmap_or(bitmap(h.ordinal)) AS members
    FROM public.table_name AS r
    INNER JOIN hosts AS h ON h.host = r.host
    WHERE r.snapshot = $snapshot AND h.snapshot = $snapshot
    GROUP BY r.loose_id, r.strict_id
),
kept AS (
    SELECT loose_id, strict_id, bitmap_or(members) AS members
    FROM prev.table_name
    WHERE snapshot = $snapshot
    GROUP BY loose_id, strict_id
)
SELECT count(*) AS identities, count(*) FILTER (WHERE again.members IS DISTINCT FROM kept.members) AS wrong
FROM again
FULL JOIN kept ON again.loose_id = kept.loose_id AND again.strict_id = kept.strict_id
