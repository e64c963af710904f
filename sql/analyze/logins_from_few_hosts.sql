-- From which addresses were there logins on only a few hosts of a fleet?
-- tables: last
-- param: max_hosts = 3 (integer) Most hosts of a fleet that may have such a login.
-- param: fleet = (text) Only this fleet; all fleets when empty.
-- false positives: administrators who look at one host; addresses that a provider changes.
-- references: T1021.004, T1078, https://attack.mitre.org/techniques/T1021/004/

SELECT
    fleet, username, from_host, count(DISTINCT host) AS hosts_with_login, count(*) AS logins,
    min(host) AS a_host, to_timestamp_seconds(max("time")) AS last_login
FROM current.last
WHERE from_host <> '' AND type_name = 'user-process'
  AND ($fleet = '' OR fleet = $fleet)
GROUP BY fleet, username, from_host
HAVING count(DISTINCT host) <= $max_hosts
ORDER BY hosts_with_login, fleet, from_host, username
