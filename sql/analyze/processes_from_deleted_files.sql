-- Which processes run from a file that is not on the disk any more?
-- tables: processes
-- param: fleet = (text) Only this fleet; all fleets when empty.
-- false positives: services that were not restarted after a package upgrade; programs inside of containers.
-- references: T1070.004, T1620, https://attack.mitre.org/techniques/T1070/004/

SELECT fleet, host, name, path, cmdline, parent_name, uid, pid, to_timestamp_seconds(start_time) AS started
FROM current.processes
WHERE on_disk = 0
  AND path <> ''
  AND ($fleet = '' OR fleet = $fleet)
ORDER BY fleet, path, host
