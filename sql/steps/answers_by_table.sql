-- How many hosts of one snapshot answered each table in which way; tables that no host has are left out.
SELECT table_name, status, count(*) AS answers
FROM coverage
WHERE snapshot = $snapshot
  AND table_name IN (
      SELECT table_name FROM coverage WHERE snapshot = $snapshot AND (status IN ('ok', 'empty') OR rows > 0)
  )
GROUP BY table_name, status
ORDER BY table_name, status
