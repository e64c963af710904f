-- The distinct rows of one table of one snapshot, equal ids beside each other. `prev.table_name` stands for the table.
SELECT *
FROM prev.table_name
WHERE snapshot = $snapshot
ORDER BY loose_id, strict_id, hosts DESC
