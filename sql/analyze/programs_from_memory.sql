-- Which processes run a program that only memory holds?
-- tables: processes, process_memory_map
-- param: fleet = (text) Only this fleet; all fleets when empty.
-- false positives: container runtimes (runc copies itself so) and some just-in-time compilers.
-- references: T1620, T1055, https://attack.mitre.org/techniques/T1620/

WITH seen AS (
    SELECT fleet, host, pid, name, path, cmdline FROM current.processes
    WHERE regexp_like(coalesce(path, ''), '^/?memfd:|^/dev/shm/.*\(deleted\)')
    UNION ALL
    SELECT fleet, host, pid, name, path, '' FROM current.process_memory_map
    WHERE regexp_like(coalesce(path, ''), '^/?memfd:') AND permissions LIKE '%x%'
)
SELECT fleet, host, pid, name, path, max(cmdline) AS cmdline
FROM seen
WHERE ($fleet = '' OR fleet = $fleet)
GROUP BY fleet, host, pid, name, path
ORDER BY fleet, host, pid
