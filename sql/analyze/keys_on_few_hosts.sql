-- Which SSH keys may log in to only a few hosts of a fleet?
-- tables: authorized_keys, coverage, hosts
-- param: max_hosts = 3 (integer) Most hosts of a fleet that may have such a row.
-- param: fleet = (text) Only this fleet; all fleets when empty.
-- false positives: keys that a person added for a support case and forgot.
-- references: T1098.004, https://attack.mitre.org/techniques/T1098/004/

WITH rare AS (
    SELECT
        fleet,
        snapshot,
        loose_id,
        min(username) AS username,
        min(key) AS key,
        min(algorithm) AS algorithm,
        min(options) AS options,
        min(key_file) AS key_file,
        min(comment) AS comment,
        bitmap_or(members) AS members
    FROM current_prev.authorized_keys
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
    WHERE table_name = 'authorized_keys' AND status IN ('ok', 'empty')
    GROUP BY fleet
)
SELECT
    placed.fleet, hosts.host, placed.username, placed.key, placed.algorithm, placed.options, placed.key_file, placed.comment,
    placed.hosts_with_row, answered.hosts_answered, hex_id(placed.loose_id) AS loose_id
FROM placed
LEFT JOIN current.hosts USING (fleet, snapshot, ordinal)
LEFT JOIN answered ON answered.fleet = placed.fleet
-- In a fleet of few hosts, few is not rare.
WHERE answered.hosts_answered IS NULL OR placed.hosts_with_row * 2 <= answered.hosts_answered
ORDER BY placed.hosts_with_row, placed.fleet, placed.username, hosts.host
