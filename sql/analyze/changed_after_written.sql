-- Which programs and settings claim to be much older than their last change?
-- tables: file
-- param: max_hosts = 3 (integer) Most hosts of a fleet that may have such a file.
-- param: fleet = (text) Only this fleet; all fleets when empty.
-- false positives: packages keep the times of the build, so a fresh installation looks so on all of its files; look for single files.
-- references: T1070.006, https://attack.mitre.org/techniques/T1070/006/

WITH odd AS (
    SELECT fleet, host, path, mtime, ctime
    FROM current.file
    WHERE regexp_like(path, '^/(usr/|bin/|sbin/|lib|etc/)') AND type = 'regular' AND ctime - mtime > 30 * 86400
),
places AS (
    SELECT fleet, path, count(DISTINCT host) AS hosts_with_age, min(host) AS a_host, min(mtime) AS mtime, max(ctime) AS ctime
    FROM odd
    WHERE ($fleet = '' OR fleet = $fleet)
    GROUP BY fleet, path
)
SELECT fleet, path, hosts_with_age, a_host, to_timestamp_seconds(mtime) AS modified, to_timestamp_seconds(ctime) AS changed
FROM places
WHERE hosts_with_age <= $max_hosts
ORDER BY hosts_with_age, fleet, path
