-- Which files have on a few hosts another content than on the rest of their fleet?
-- tables: hash, hosts
-- param: max_hosts = 3 (integer) Most hosts that may have such a content.
-- param: fleet = (text) Only this fleet; all fleets when empty.
-- false positives: hosts that are half way through an upgrade.
-- references: T1554, T1036.005, https://attack.mitre.org/techniques/T1554/

WITH contents AS (
    SELECT fleet, snapshot, path, sha256, bitmap_or(members) AS members
    FROM current_prev.hash
    WHERE sha256 <> ''
      AND ($fleet = '' OR fleet = $fleet)
    GROUP BY fleet, snapshot, path, sha256
),
counted AS (
    SELECT *, bitmap_count(members) AS hosts_with_content FROM contents
),
compared AS (
    SELECT *, max(hosts_with_content) OVER (PARTITION BY fleet, path) AS hosts_with_usual_content
    FROM counted
),
placed AS (
    SELECT *, unnest(bitmap_to_list(members)) AS ordinal
    FROM compared
    WHERE hosts_with_content <= $max_hosts
      AND hosts_with_content < hosts_with_usual_content
)
SELECT placed.fleet, hosts.host, placed.path, placed.sha256, placed.hosts_with_content, placed.hosts_with_usual_content
FROM placed
LEFT JOIN current.hosts USING (fleet, snapshot, ordinal)
ORDER BY placed.hosts_with_content, placed.fleet, placed.path, hosts.host
