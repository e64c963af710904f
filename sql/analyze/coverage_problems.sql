-- Which hosts did not answer which tables in full, and why?
-- tables: coverage
-- param: fleet = (text) Only this fleet; all fleets when empty.
-- false positives: tables that no host of a fleet supports are left out; old agents lack tables; a broken agent is worth a look all the same.
-- references: T1685, https://attack.mitre.org/techniques/T1685/

WITH answered AS (
    SELECT DISTINCT fleet, table_name FROM current.coverage WHERE status IN ('ok', 'empty', 'truncated')
)
SELECT
    problems.fleet, problems.host, problems.status, count(*) AS tables,
    string_agg(problems.table_name, ', ' ORDER BY problems.table_name) AS table_names,
    min(nullif(problems.error, '')) AS an_error
FROM current.coverage AS problems
LEFT JOIN answered ON answered.fleet = problems.fleet AND answered.table_name = problems.table_name
WHERE problems.status NOT IN ('ok', 'empty', 'not_asked')
  AND (problems.status <> 'not_supported' OR answered.table_name IS NOT NULL)
  AND ($fleet = '' OR problems.fleet = $fleet)
GROUP BY problems.fleet, problems.host, problems.status
ORDER BY tables DESC, problems.fleet, problems.host, problems.status
