-- Which processes run from directories that no package manager installs to?
-- tables: processes
-- param: fleet = (text) Only this fleet; all fleets when empty.
-- false positives: software that is deployed below /srv, /home or /data; snaps and Nix.
-- references: T1036.005, https://attack.mitre.org/techniques/T1036/005/

SELECT
    fleet, path, count(DISTINCT host) AS hosts_with_path,
    min(host) AS a_host, min(cmdline) AS a_cmdline, min(uid) AS lowest_uid
FROM current.processes
WHERE path LIKE '/%'
  AND NOT regexp_like(path, '^/(usr|bin|sbin|lib|lib64|opt|snap|nix/store|var/lib/docker|var/lib/containerd|run/systemd)/')
  AND ($fleet = '' OR fleet = $fleet)
GROUP BY fleet, path
ORDER BY hosts_with_path, fleet, path
