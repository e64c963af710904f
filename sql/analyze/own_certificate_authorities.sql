-- Which certificate authorities are trusted on only a few hosts of a fleet?
-- tables: certificates
-- param: max_hosts = 3 (integer) Most hosts of a fleet that may trust it.
-- param: fleet = (text) Only this fleet; all fleets when empty.
-- false positives: an authority of the company that was not yet rolled out everywhere.
-- references: T1553.004, https://attack.mitre.org/techniques/T1553/004/

SELECT
    fleet, sha1, common_name, issuer, path, self_signed, count(DISTINCT host) AS hosts_with_authority, min(host) AS a_host
FROM current.certificates
WHERE ca = 1 AND ($fleet = '' OR fleet = $fleet)
GROUP BY fleet, sha1, common_name, issuer, path, self_signed
HAVING count(DISTINCT host) <= $max_hosts
ORDER BY hosts_with_authority, fleet, common_name
