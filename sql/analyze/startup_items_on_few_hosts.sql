-- What starts with the system on only a few hosts of a fleet?
-- tables: startup_items
-- param: max_hosts = 3 (integer) Most hosts of a fleet that may have such an item.
-- param: fleet = (text) Only this fleet; all fleets when empty.
-- false positives: packages that were installed by hand on one host.
-- references: T1037, T1543.002, https://attack.mitre.org/techniques/T1037/

SELECT
    fleet, type, name, path, args, source, username, status, count(DISTINCT host) AS hosts_with_item, min(host) AS a_host
FROM current.startup_items
WHERE ($fleet = '' OR fleet = $fleet)
GROUP BY fleet, type, name, path, args, source, username, status
HAVING count(DISTINCT host) <= $max_hosts
ORDER BY hosts_with_item, fleet, name, path
