-- Which set-uid and set-gid programs lie where no package manager installs programs?
-- tables: suid_bin
-- param: fleet = (text) Only this fleet; all fleets when empty.
-- false positives: container layers below /var/lib; games and mail programs of old systems in /usr/local; backups of whole systems.
-- references: T1548.001, https://attack.mitre.org/techniques/T1548/001/

SELECT
    fleet, path, username, groupname, permissions,
    count(DISTINCT host) AS hosts_with_file, min(host) AS a_host
FROM current.suid_bin
WHERE NOT regexp_like(path, '^/(usr/(bin|sbin|lib|lib32|lib64|libexec)|bin|sbin|lib|lib64|opt|snap)/')
  AND ($fleet = '' OR fleet = $fleet)
GROUP BY fleet, path, username, groupname, permissions
ORDER BY hosts_with_file, fleet, path
