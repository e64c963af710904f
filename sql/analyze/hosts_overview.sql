-- Which hosts are in the newest snapshot of each fleet, and what are they?
-- tables: hosts, coverage
-- param: fleet = (text) Only this fleet; all fleets when empty.
-- false positives: none; it is a list.
-- references: none; it answers no technique.

WITH answers AS (
    SELECT
        fleet, host,
        sum(CASE WHEN status IN ('ok', 'empty') THEN 1 ELSE 0 END) AS tables_answered,
        sum(CASE WHEN status IN ('ok', 'empty', 'not_asked') THEN 0 ELSE 1 END) AS tables_failed,
        sum(rows) AS rows
    FROM current.coverage
    GROUP BY fleet, host
)
SELECT
    h.fleet, h.host, h.hostname, h.os_name, h.os_version, h.kernel, h.instance_type, h.image, h.zone, h.lifecycle,
    h.uptime_seconds / 3600 AS uptime_hours, answers.tables_answered, answers.tables_failed, answers.rows
FROM current.hosts AS h
LEFT JOIN answers ON answers.fleet = h.fleet AND answers.host = h.host
WHERE $fleet = '' OR h.fleet = $fleet
ORDER BY h.fleet, h.host
