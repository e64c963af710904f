-- Which scripts in the cron directories exist on only a few hosts of a fleet?
-- tables: cron_scripts, coverage, hosts
-- param: max_hosts = 3 (integer) Most hosts of a fleet that may have such a row.
-- param: fleet = (text) Only this fleet; all fleets when empty.
-- false positives: packages that were installed by hand on one host.
-- references: T1053.003, https://attack.mitre.org/techniques/T1053/003/

WITH rare AS (
    SELECT
        fleet,
        snapshot,
        loose_id,
        min(path) AS path,
        min(schedule) AS schedule,
        min(sha256) AS sha256,
        min(mode) AS mode,
        min(uid) AS uid,
        bitmap_or(members) AS members
    FROM current_prev.cron_scripts
    WHERE ($fleet = '' OR fleet = $fleet)
    GROUP BY fleet, snapshot, loose_id
    HAVING bitmap_count(bitmap_or(members)) <= $max_hosts
),
placed AS (
    SELECT *, bitmap_count(members) AS hosts_with_row, unnest(bitmap_to_list(members)) AS ordinal
    FROM rare
),
answered AS (
    SELECT fleet, count(*) AS hosts_answered
    FROM current.coverage
    WHERE table_name = 'cron_scripts' AND status IN ('ok', 'empty')
    GROUP BY fleet
)
SELECT
    placed.fleet, hosts.host, placed.path, placed.schedule, placed.sha256, placed.mode, placed.uid,
    placed.hosts_with_row, answered.hosts_answered, hex_id(placed.loose_id) AS loose_id
FROM placed
LEFT JOIN current.hosts USING (fleet, snapshot, ordinal)
LEFT JOIN answered ON answered.fleet = placed.fleet
-- In a fleet of few hosts, few is not rare.
WHERE answered.hosts_answered IS NULL OR placed.hosts_with_row * 2 <= answered.hosts_answered
ORDER BY placed.hosts_with_row, placed.fleet, placed.path, hosts.host
