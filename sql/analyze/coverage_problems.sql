-- Which hosts did not answer which tables in full, and why?
-- tables: coverage
-- param: fleet = (text) Only this fleet; all fleets when empty.
-- false positives: old agents lack tables; a broken agent is worth a look all the same.
-- references: T1562.001, https://attack.mitre.org/techniques/T1562/001/

SELECT
    fleet, host, status, count(*) AS tables,
    string_agg(table_name, ', ' ORDER BY table_name) AS table_names,
    min(nullif(error, '')) AS an_error
FROM current.coverage
WHERE status NOT IN ('ok', 'empty', 'not_asked')
  AND ($fleet = '' OR fleet = $fleet)
GROUP BY fleet, host, status
ORDER BY tables DESC, fleet, host, status
