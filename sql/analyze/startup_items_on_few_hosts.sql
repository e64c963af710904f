-- What starts with the system on only a few hosts of a fleet?
-- tables: startup_items, hosts
-- param: max_hosts = 3 (integer) Most hosts of a fleet that may have such an item.
-- param: fleet = (text) Only this fleet; all fleets when empty.
-- false positives: packages that were installed by hand on one host.
-- references: T1037, T1543.002, https://attack.mitre.org/techniques/T1037/

WITH items AS (
    SELECT fleet, snapshot, type, name, path, args, source, username, status, bitmap_or(members) AS members
    FROM current_prev.startup_items
    WHERE ($fleet = '' OR fleet = $fleet)
    GROUP BY fleet, snapshot, type, name, path, args, source, username, status
    HAVING bitmap_count(bitmap_or(members)) <= $max_hosts
),
placed AS (
    SELECT *, bitmap_count(members) AS hosts_with_item, unnest(bitmap_to_list(members)) AS ordinal
    FROM items
)
SELECT
    placed.fleet, placed.type, placed.name, placed.path, placed.args, placed.source, placed.username, placed.status,
    placed.hosts_with_item, min(hosts.host) AS a_host
FROM placed
LEFT JOIN current.hosts USING (fleet, snapshot, ordinal)
GROUP BY
    placed.fleet, placed.type, placed.name, placed.path, placed.args, placed.source, placed.username, placed.status,
    placed.hosts_with_item
ORDER BY placed.hosts_with_item, placed.fleet, placed.name, placed.path
