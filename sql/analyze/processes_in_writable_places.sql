-- Which processes run from, or work in, directories that everybody may write to?
-- tables: processes
-- param: fleet = (text) Only this fleet; all fleets when empty.
-- false positives: installers and build jobs.
-- references: T1059, https://attack.mitre.org/techniques/T1059/

SELECT fleet, host, name, path, cwd, cmdline, uid, pid, to_timestamp_seconds(start_time) AS started
FROM current.processes
WHERE (regexp_like(path, '^/(tmp|var/tmp|dev/shm|run/user|run/lock)/')
   OR regexp_like(cwd, '^/(tmp|var/tmp|dev/shm)(/|$)')
   OR regexp_like(path, '/[.][^/]+/'))
  AND ($fleet = '' OR fleet = $fleet)
ORDER BY fleet, path, host
