-- Which accounts other than root have the powers of root?
-- tables: users
-- param: fleet = (text) Only this fleet; all fleets when empty.
-- false positives: `toor` of some distributions.
-- references: T1136.001, T1078.003, https://attack.mitre.org/techniques/T1136/001/

SELECT fleet, host, username, uid, gid, directory, shell, description
FROM current.users
WHERE uid = 0
  AND coalesce(username, '') <> 'root'
  AND ($fleet = '' OR fleet = $fleet)
ORDER BY fleet, username, host
