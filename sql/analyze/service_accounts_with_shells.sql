-- Which accounts of services have a shell to log in with?
-- tables: users
-- param: fleet = (text) Only this fleet; all fleets when empty.
-- false positives: accounts of databases (postgres) that administrators use; sync, shutdown and halt.
-- references: T1136.001, T1098, https://attack.mitre.org/techniques/T1136/001/

SELECT fleet, username, uid, shell, directory, description, count(DISTINCT host) AS hosts_with_account, min(host) AS a_host
FROM current.users
WHERE uid BETWEEN 1 AND 999
  AND NOT regexp_like(coalesce(shell, ''), '(nologin|/false|/sync|/shutdown|/halt|^$)')
  AND ($fleet = '' OR fleet = $fleet)
GROUP BY fleet, username, uid, shell, directory, description
ORDER BY hosts_with_account, fleet, username
