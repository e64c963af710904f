-- What each host of one snapshot answered for each table.
SELECT host, table_name, status, rows, error, columns_missing
FROM coverage
WHERE snapshot = $snapshot
