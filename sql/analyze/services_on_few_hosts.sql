-- Which services and timers of systemd exist on only a few hosts of a fleet?
-- tables: systemd_units, coverage, hosts
-- param: max_hosts = 3 (integer) Most hosts of a fleet that may have such a row.
-- param: fleet = (text) Only this fleet; all fleets when empty.
-- false positives: instance units (`user@1000.service`) of people who are logged in.
-- references: T1543.002, T1053.006, https://attack.mitre.org/techniques/T1543/002/

WITH rare AS (
    SELECT
        fleet,
        snapshot,
        loose_id,
        min(id) AS id,
        min(fragment_path) AS fragment_path,
        min(user) AS user,
        min(unit_file_state) AS unit_file_state,
        bitmap_or(members) AS members
    FROM current_prev.systemd_units
    WHERE ($fleet = '' OR fleet = $fleet)
      AND (id LIKE '%.service' OR id LIKE '%.timer')
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
    WHERE table_name = 'systemd_units' AND status IN ('ok', 'empty')
    GROUP BY fleet
)
SELECT
    placed.fleet, hosts.host, placed.id, placed.fragment_path, placed.user, placed.unit_file_state,
    placed.hosts_with_row, answered.hosts_answered, hex_id(placed.loose_id) AS loose_id
FROM placed
LEFT JOIN current.hosts USING (fleet, snapshot, ordinal)
LEFT JOIN answered ON answered.fleet = placed.fleet
-- In a fleet of few hosts, few is not rare.
WHERE answered.hosts_answered IS NULL OR placed.hosts_with_row * 2 <= answered.hosts_answered
ORDER BY placed.hosts_with_row, placed.fleet, placed.id, hosts.host
