-- Which kernels are tainted, and by what?
-- tables: system_controls
-- param: fleet = (text) Only this fleet; all fleets when empty.
-- false positives: drivers of vendors (GPU, storage, DKMS) are out of tree or proprietary; live patches.
-- references: T1547.006, T1014, https://attack.mitre.org/techniques/T1547/006/

WITH tainted AS (
    SELECT fleet, host, TRY_CAST(current_value AS bigint) AS taint
    FROM current.system_controls
    WHERE name = 'kernel.tainted' AND ($fleet = '' OR fleet = $fleet)
)
-- The bits are those of the kernel's documentation, admin-guide/tainted-kernels.
SELECT
    fleet, taint, count(DISTINCT host) AS hosts_with_taint, min(host) AS a_host,
    taint & 1 <> 0 AS proprietary_module,
    taint & 2 <> 0 AS module_forced,
    taint & 128 <> 0 AS died_before,
    taint & 4096 <> 0 AS out_of_tree_module,
    taint & 8192 <> 0 AS unsigned_module,
    taint & 32768 <> 0 AS live_patched
FROM tainted
WHERE taint <> 0
GROUP BY fleet, taint
ORDER BY hosts_with_taint, fleet, taint
