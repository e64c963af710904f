-- What hosts of one snapshot did not answer in full although others answered it.
SELECT host, table_name, status, rows, bytes, error, columns_missing
FROM coverage
WHERE snapshot = $snapshot
  AND status NOT IN ('ok', 'empty', 'not_asked')
  AND table_name IN (
      SELECT table_name FROM coverage WHERE snapshot = $snapshot AND (status IN ('ok', 'empty') OR rows > 0)
  )
ORDER BY host, table_name
