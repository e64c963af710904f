-- Which keys may log in as root or as another account with uid 0?
-- tables: authorized_keys
-- param: fleet = (text) Only this fleet; all fleets when empty.
-- false positives: keys of the cloud's own set-up, whose options only print a hint; break-glass keys.
-- references: T1098.004, https://attack.mitre.org/techniques/T1098/004/

SELECT
    fleet, username, algorithm, key, options, key_file, comment,
    count(DISTINCT host) AS hosts_with_key, min(host) AS a_host
FROM current.authorized_keys
WHERE (uid = 0 OR username = 'root' OR key_file LIKE '/root/%')
  AND ($fleet = '' OR fleet = $fleet)
GROUP BY fleet, username, algorithm, key, options, key_file, comment
ORDER BY hosts_with_key, fleet, username, key
