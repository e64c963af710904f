-- Which processes load libraries that their environment chose?
-- tables: process_envs
-- param: fleet = (text) Only this fleet; all fleets when empty.
-- false positives: memory allocators (jemalloc, tcmalloc) and tracing agents are loaded so.
-- references: T1574.006, https://attack.mitre.org/techniques/T1574/006/

SELECT
    fleet, key, value, process_path,
    count(DISTINCT host) AS hosts_with_value, min(host) AS a_host, min(uid) AS lowest_uid
FROM current.process_envs
WHERE key IN ('LD_PRELOAD', 'LD_AUDIT', 'LD_LIBRARY_PATH', 'DYLD_INSERT_LIBRARIES')
  AND value <> ''
  AND ($fleet = '' OR fleet = $fleet)
GROUP BY fleet, key, value, process_path
ORDER BY hosts_with_value, fleet, key, value
