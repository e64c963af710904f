-- What one host of one snapshot answered for each table.
SELECT host, table_name, status, rows, bytes, error, columns_missing
FROM coverage
WHERE snapshot = $snapshot AND host = $host
ORDER BY table_name
