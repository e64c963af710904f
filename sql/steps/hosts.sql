-- The hosts of one snapshot in the order of the bitmaps' ordinals.
SELECT ordinal, host
FROM hosts
WHERE snapshot = $snapshot
ORDER BY ordinal
