-- Which kernel settings differ from those of most hosts of the fleet?
-- tables: system_controls
-- param: fleet = (text) Only this fleet; all fleets when empty.
-- false positives: settings that follow the size of a machine; counters that the kernel keeps below these names.
-- references: T1562, T1547.006, https://attack.mitre.org/techniques/T1562/

WITH settings AS (
    SELECT fleet, name, current_value, count(DISTINCT host) AS hosts_with_value, min(host) AS a_host
    FROM current.system_controls
    WHERE ($fleet = '' OR fleet = $fleet)
    GROUP BY fleet, name, current_value
),
ranked AS (
    SELECT
        *,
        sum(hosts_with_value) OVER (PARTITION BY fleet, name) AS hosts_with_name,
        first_value(current_value) OVER (PARTITION BY fleet, name ORDER BY hosts_with_value DESC, current_value) AS usual_value,
        max(hosts_with_value) OVER (PARTITION BY fleet, name) AS hosts_with_usual
    FROM settings
)
SELECT fleet, name, current_value, hosts_with_value, usual_value, hosts_with_usual, a_host
FROM ranked
WHERE current_value <> usual_value AND hosts_with_usual * 2 > hosts_with_name
ORDER BY hosts_with_value, fleet, name
