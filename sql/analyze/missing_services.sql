-- Which services run on most hosts of a fleet and on a few do not?
-- tables: systemd_units, coverage
-- param: max_hosts = 3 (integer) Most hosts that may lack the service.
-- param: fleet = (text) Only this fleet; all fleets when empty.
-- false positives: hosts that were just started or that fail their health checks.
-- references: T1685, https://attack.mitre.org/techniques/T1685/

WITH answered AS (
    SELECT fleet, host
    FROM current.coverage
    WHERE table_name = 'systemd_units'
      AND status IN ('ok', 'empty')
      AND ($fleet = '' OR fleet = $fleet)
),
totals AS (
    SELECT fleet, count(*) AS hosts_answered FROM answered GROUP BY fleet
),
running AS (
    SELECT DISTINCT fleet, host, id AS unit
    FROM current.systemd_units
    WHERE active_state = 'active' AND id LIKE '%.service'
),
usual AS (
    SELECT running.fleet, running.unit, totals.hosts_answered, count(*) AS hosts_with_service
    FROM running
    INNER JOIN totals ON totals.fleet = running.fleet
    GROUP BY running.fleet, running.unit, totals.hosts_answered
    HAVING count(*) * 2 > totals.hosts_answered AND totals.hosts_answered - count(*) BETWEEN 1 AND $max_hosts
)
SELECT answered.fleet, answered.host, usual.unit, usual.hosts_with_service, usual.hosts_answered
FROM usual
INNER JOIN answered ON answered.fleet = usual.fleet
LEFT ANTI JOIN running
    ON running.fleet = answered.fleet AND running.host = answered.host AND running.unit = usual.unit
ORDER BY answered.fleet, usual.unit, answered.host
