-- What is mounted over directories of programs, settings or processes?
-- tables: mounts
-- param: fleet = (text) Only this fleet; all fleets when empty.
-- false positives: containers and snaps; read-only images with an overlay.
-- references: T1564, T1222.002, https://attack.mitre.org/techniques/T1564/

SELECT fleet, path, type, device, flags, count(DISTINCT host) AS hosts_with_mount, min(host) AS a_host
FROM current.mounts
WHERE regexp_like(path, '^/(usr|bin|sbin|lib|lib64|etc|root)(/|$)|^/proc/[0-9]+')
  AND ($fleet = '' OR fleet = $fleet)
GROUP BY fleet, path, type, device, flags
ORDER BY hosts_with_mount, fleet, path
