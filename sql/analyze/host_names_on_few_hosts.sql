-- Which lines of the hosts file exist on only a few hosts of a fleet?
-- tables: etc_hosts, coverage, hosts
-- param: max_hosts = 3 (integer) Most hosts of a fleet that may have such a row.
-- param: fleet = (text) Only this fleet; all fleets when empty.
-- false positives: cloud-init writes the own name of a host; what still names the host itself is told apart.
-- references: T1565.001, https://attack.mitre.org/techniques/T1565/001/

WITH rare AS (
    SELECT
        fleet,
        snapshot,
        loose_id,
        min(hostnames) AS hostnames,
        min(address) AS address,
        bitmap_or(members) AS members
    FROM current_prev.etc_hosts
    WHERE ($fleet = '' OR fleet = $fleet)
    GROUP BY fleet, snapshot, loose_id
    HAVING bitmap_count(bitmap_or(members)) <= $max_hosts
),
placed AS (
    SELECT *, bitmap_count(members) AS hosts_with_row, unnest(bitmap_to_list(members)) AS ordinal
    FROM rare
),
answered AS (
    SELECT fleet, count(*) AS hosts_answered
    FROM current.coverage
    WHERE table_name = 'etc_hosts' AND status IN ('ok', 'empty')
    GROUP BY fleet
)
SELECT
    placed.fleet, hosts.host, placed.hostnames, placed.address,
    placed.hosts_with_row, answered.hosts_answered, hex_id(placed.loose_id) AS loose_id
FROM placed
LEFT JOIN current.hosts USING (fleet, snapshot, ordinal)
LEFT JOIN answered ON answered.fleet = placed.fleet
-- In a fleet of few hosts, few is not rare.
WHERE answered.hosts_answered IS NULL OR placed.hosts_with_row * 2 <= answered.hosts_answered
ORDER BY placed.hosts_with_row, placed.fleet, placed.hostnames, hosts.host
