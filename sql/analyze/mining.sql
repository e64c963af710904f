-- Which processes talk to a mining pool, or are started as a miner is?
-- tables: processes, process_open_sockets
-- param: fleet = (text) Only this fleet; all fleets when empty.
-- false positives: databases and applications that use one of these ports.
-- references: T1496, https://attack.mitre.org/techniques/T1496/

WITH seen AS (
    SELECT fleet, host, path, cmdline, '' AS remote
    FROM current.processes
    WHERE regexp_like(cmdline, '(stratum\+(tcp|ssl)|--donate-level|--coin[= ]|\bxmrig\b|\bminerd\b|\bcpuminer\b|\bcryptonight\b|\brandomx\b|nicehash|moneroocean|supportxmr|nanopool|\bpool\.)', 'i')
    UNION ALL
    SELECT fleet, host, process_path, cmdline, remote_address || ':' || CAST(remote_port AS varchar)
    FROM current.process_open_sockets
    WHERE remote_port IN (3333, 3334, 4444, 5555, 7777, 9999, 14433, 14444, 45560, 45700)
      -- A client of a server may happen to use such a port.
      AND local_port >= 32768
      AND remote_address NOT LIKE '127.%'
)
SELECT fleet, host, path, max(cmdline) AS cmdline, remote
FROM seen
WHERE ($fleet = '' OR fleet = $fleet)
GROUP BY fleet, host, path, remote
ORDER BY fleet, host, path, remote
