-- Which accounts need no password, or have one of a weak kind?
-- tables: shadow
-- param: fleet = (text) Only this fleet; all fleets when empty.
-- false positives: images that are only reached with keys and have an empty password locked elsewhere.
-- references: T1078.003, https://attack.mitre.org/techniques/T1078/003/

SELECT fleet, username, password_status, hash_alg, count(DISTINCT host) AS hosts_with_account, min(host) AS a_host
FROM current.shadow
WHERE (password_status = 'empty' OR (password_status = 'active' AND hash_alg IN ('1', 'md5', 'des', '')))
  AND ($fleet = '' OR fleet = $fleet)
GROUP BY fleet, username, password_status, hash_alg
ORDER BY hosts_with_account, fleet, username
