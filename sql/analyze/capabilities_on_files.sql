-- Which files have capabilities, which are rights of root without the set-uid bit?
-- tables: extended_attributes
-- param: fleet = (text) Only this fleet; all fleets when empty.
-- false positives: ping, mtr, dumpcap and web servers that use low ports.
-- references: T1548.001, https://attack.mitre.org/techniques/T1548/001/

SELECT fleet, path, key, value, count(DISTINCT host) AS hosts_with_file, min(host) AS a_host
FROM current.extended_attributes
WHERE key = 'security.capability' AND ($fleet = '' OR fleet = $fleet)
GROUP BY fleet, path, key, value
ORDER BY hosts_with_file, fleet, path
