-- Which shells, interpreters and network tools hold a connection to another host?
-- tables: process_open_sockets, processes
-- param: fleet = (text) Only this fleet; all fleets when empty.
-- false positives: scripts of configuration management and deployment; administrators at work; proxies made with socat.
-- references: T1059.004, T1071, https://attack.mitre.org/techniques/T1059/004/

SELECT
    s.fleet, p.path, p.cmdline, p.parent_path, p.uid, s.remote_port,
    count(DISTINCT s.host) AS hosts_with_connection, min(s.host) AS a_host,
    count(DISTINCT s.remote_address) AS remote_addresses, min(s.remote_address) AS a_remote_address
FROM current.process_open_sockets AS s
INNER JOIN current.processes AS p
    ON p.fleet = s.fleet AND p.host = s.host AND p.pid = s.pid
WHERE regexp_like(p.path, '/(ba|da|k|z|c|tc|fi|a)?sh$|/(python|perl|ruby|php|lua|node|nc|ncat|netcat|socat|telnet|busybox|awk|gawk|mawk)[0-9.]*(\.(openbsd|traditional))?$')
  AND s.remote_port > 0
  AND s.remote_address NOT IN ('', '0.0.0.0', '::', '::1')
  AND s.remote_address NOT LIKE '127.%'
  AND ($fleet = '' OR s.fleet = $fleet)
GROUP BY s.fleet, p.path, p.cmdline, p.parent_path, p.uid, s.remote_port
ORDER BY hosts_with_connection, s.fleet, p.path, p.cmdline, s.remote_port
