-- Which hosts have another version of a package than most hosts of the fleet?
-- tables: deb_packages, rpm_packages, hosts
-- param: max_hosts = 3 (integer) Most hosts of a fleet that may have such a version.
-- param: fleet = (text) Only this fleet; all fleets when empty.
-- false positives: hosts in the middle of an update; blue and green halves; kernels, of which several are installed at once.
-- references: T1554, T1195.002, https://attack.mitre.org/techniques/T1554/

WITH installed AS (
    SELECT fleet, snapshot, name, arch, version, members
    FROM current_prev.deb_packages
    WHERE ($fleet = '' OR fleet = $fleet)
    UNION ALL
    SELECT fleet, snapshot, name, arch, version || '-' || release, members
    FROM current_prev.rpm_packages
    WHERE ($fleet = '' OR fleet = $fleet)
),
versions AS (
    SELECT
        fleet, snapshot, name, arch, version, bitmap_or(members) AS members,
        bitmap_count(bitmap_or(members)) AS hosts_with_version
    FROM installed
    GROUP BY fleet, snapshot, name, arch, version
),
ranked AS (
    SELECT
        *,
        sum(hosts_with_version) OVER (PARTITION BY fleet, name, arch) AS hosts_with_package,
        first_value(version) OVER (PARTITION BY fleet, name, arch ORDER BY hosts_with_version DESC, version) AS usual_version,
        max(hosts_with_version) OVER (PARTITION BY fleet, name, arch) AS hosts_with_usual
    FROM versions
),
placed AS (
    SELECT *, unnest(bitmap_to_list(members)) AS ordinal
    FROM ranked
    WHERE version <> usual_version
      -- There is a majority to be off.
      AND hosts_with_usual * 2 > hosts_with_package
      AND hosts_with_version <= $max_hosts
)
SELECT
    placed.fleet, placed.name, placed.arch, placed.version, placed.hosts_with_version, placed.usual_version,
    placed.hosts_with_usual, min(hosts.host) AS a_host
FROM placed
LEFT JOIN current.hosts USING (fleet, snapshot, ordinal)
GROUP BY
    placed.fleet, placed.name, placed.arch, placed.version, placed.hosts_with_version, placed.usual_version,
    placed.hosts_with_usual
ORDER BY placed.hosts_with_version, placed.fleet, placed.name, placed.version
