-- Which processes read raw packets from the network?
-- tables: process_open_sockets
-- param: fleet = (text) Only this fleet; all fleets when empty.
-- false positives: DHCP clients, network managers and monitoring agents.
-- references: T1040, T1205.002, https://attack.mitre.org/techniques/T1205/002/

SELECT
    fleet, process_path, name, protocol,
    count(DISTINCT host) AS hosts_with_sniffer, min(host) AS a_host, min(cmdline) AS a_cmdline
FROM current.process_open_sockets
-- 17 is AF_PACKET; protocol 255 is a raw socket.
WHERE (family = 17 OR protocol = 255)
  AND ($fleet = '' OR fleet = $fleet)
GROUP BY fleet, process_path, name, protocol
ORDER BY hosts_with_sniffer, fleet, process_path
