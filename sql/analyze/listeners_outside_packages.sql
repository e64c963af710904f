-- Which programs listen on the network that no package manager has installed, or whose file is gone?
-- tables: listening_ports, processes
-- param: fleet = (text) Only this fleet; all fleets when empty.
-- false positives: software that is deployed below /srv, /home or /data; containers, whose paths are those of the container.
-- references: T1571, T1036.005, https://attack.mitre.org/techniques/T1571/

SELECT
    l.fleet, l.port, l.protocol, l.address, p.path, p.on_disk,
    count(DISTINCT l.host) AS hosts_with_listener, min(l.host) AS a_host, min(p.cmdline) AS a_cmdline, min(p.uid) AS lowest_uid
FROM current.listening_ports AS l
INNER JOIN current.processes AS p
    ON p.fleet = l.fleet AND p.host = l.host AND p.pid = l.pid
WHERE l.port > 0
  AND (p.on_disk = 0 OR NOT regexp_like(coalesce(p.path, ''), '^/(usr/(bin|sbin|lib|lib32|lib64|libexec|share)|bin|sbin|lib|lib64|snap|nix/store|opt)/'))
  -- Names of kernel threads and what may not be read have no path.
  AND coalesce(p.path, '') <> ''
  AND ($fleet = '' OR l.fleet = $fleet)
GROUP BY l.fleet, l.port, l.protocol, l.address, p.path, p.on_disk
ORDER BY hosts_with_listener, l.fleet, l.port, p.path
