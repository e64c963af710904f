-- Which programs talk to which addresses, the rarest first?
-- tables: process_open_sockets
-- param: fleet = (text) Only this fleet; all fleets when empty.
-- param: max_hosts = 10 (integer) Most hosts that may have such a conversation.
-- false positives: addresses of load-balanced services change all the time.
-- references: T1071, T1095, https://attack.mitre.org/techniques/T1071/

-- `sum(1)` counts rows; beside `count(*)` the engine would keep a set of hosts for each group.
SELECT
    fleet, process_path, remote_address, remote_port, protocol,
    count(DISTINCT host) AS hosts_talking, min(host) AS a_host, sum(1) AS sockets
FROM current.process_open_sockets
WHERE remote_port > 0
  AND remote_address NOT IN ('', '0.0.0.0', '::', '127.0.0.1', '::1')
  AND ($fleet = '' OR fleet = $fleet)
GROUP BY fleet, process_path, remote_address, remote_port, protocol
HAVING count(DISTINCT host) <= $max_hosts
ORDER BY hosts_talking, fleet, process_path, remote_address, remote_port
