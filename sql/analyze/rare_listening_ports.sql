-- Which sockets wait for peers on only a few hosts of a fleet?
-- tables: listening_ports, coverage, hosts
-- param: max_hosts = 3 (integer) Most hosts of a fleet that may have such a row.
-- param: fleet = (text) Only this fleet; all fleets when empty.
-- false positives: a host that was given a debugging or migration task; services that choose a port at random.
-- references: T1571, T1205, https://attack.mitre.org/techniques/T1571/

WITH rare AS (
    SELECT
        fleet,
        snapshot,
        loose_id,
        min(port) AS port,
        min(protocol) AS protocol,
        min(family) AS family,
        min(address) AS address,
        min(name) AS name,
        min(process_path) AS process_path,
        min(cmdline) AS cmdline,
        bitmap_or(members) AS members
    FROM current_prev.listening_ports
    WHERE ($fleet = '' OR fleet = $fleet)
      AND coalesce(family, 0) <> 1
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
    WHERE table_name = 'listening_ports' AND status IN ('ok', 'empty')
    GROUP BY fleet
)
SELECT
    placed.fleet, hosts.host, placed.port, placed.protocol, placed.family, placed.address, placed.name,
    placed.process_path, placed.cmdline,
    placed.hosts_with_row, answered.hosts_answered, hex_id(placed.loose_id) AS loose_id
FROM placed
LEFT JOIN current.hosts USING (fleet, snapshot, ordinal)
LEFT JOIN answered ON answered.fleet = placed.fleet
-- In a fleet of few hosts, few is not rare.
WHERE answered.hosts_answered IS NULL OR placed.hosts_with_row * 2 <= answered.hosts_answered
ORDER BY placed.hosts_with_row, placed.fleet, placed.port, hosts.host
