-- Which hosts have another version of a package than most hosts of the fleet?
-- tables: deb_packages, rpm_packages
-- param: max_hosts = 3 (integer) Most hosts of a fleet that may have such a version.
-- param: fleet = (text) Only this fleet; all fleets when empty.
-- false positives: hosts in the middle of an update; blue and green halves; kernels, of which several are installed at once.
-- references: T1554, T1195.002, https://attack.mitre.org/techniques/T1554/

WITH installed AS (
    SELECT fleet, host, name, arch, version FROM current.deb_packages WHERE ($fleet = '' OR fleet = $fleet)
    UNION ALL
    SELECT fleet, host, name, arch, version || '-' || release FROM current.rpm_packages WHERE ($fleet = '' OR fleet = $fleet)
),
versions AS (
    SELECT fleet, name, arch, version, count(DISTINCT host) AS hosts_with_version, min(host) AS a_host
    FROM installed
    GROUP BY fleet, name, arch, version
),
ranked AS (
    SELECT
        *,
        sum(hosts_with_version) OVER (PARTITION BY fleet, name, arch) AS hosts_with_package,
        first_value(version) OVER (PARTITION BY fleet, name, arch ORDER BY hosts_with_version DESC, version) AS usual_version,
        max(hosts_with_version) OVER (PARTITION BY fleet, name, arch) AS hosts_with_usual
    FROM versions
)
SELECT fleet, name, arch, version, hosts_with_version, usual_version, hosts_with_usual, a_host
FROM ranked
WHERE version <> usual_version
  -- There is a majority to be off.
  AND hosts_with_usual * 2 > hosts_with_package
  AND hosts_with_version <= $max_hosts
ORDER BY hosts_with_version, fleet, name, version
