-- Which SSH keys are in the newest snapshot of a fleet and in none of its earlier ones?
-- tables: authorized_keys, snapshots
-- param: fleet = (text) Only this fleet; all fleets when empty.
-- false positives: planned changes of keys; a fleet with one snapshot has no news.
-- references: T1098.004, https://attack.mitre.org/techniques/T1098/004/

WITH grown AS (
    SELECT fleet
    FROM snapshots
    WHERE $fleet = '' OR fleet = $fleet
    GROUP BY fleet
    HAVING count(*) > 1
),
before AS (
    SELECT DISTINCT prev.authorized_keys.fleet AS fleet, loose_id
    FROM prev.authorized_keys
    LEFT ANTI JOIN current.snapshots
        ON current.snapshots.snapshot = prev.authorized_keys.snapshot
)
SELECT now.fleet, now.host, now.username, now.key_file, now.algorithm, now.key, now.comment, now.options
FROM current.authorized_keys AS now
INNER JOIN grown ON grown.fleet = now.fleet
LEFT ANTI JOIN before ON before.fleet = now.fleet AND before.loose_id = now.loose_id
ORDER BY now.fleet, now.key, now.host
