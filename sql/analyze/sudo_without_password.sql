-- Who may become another user without a password?
-- tables: sudoers
-- param: fleet = (text) Only this fleet; all fleets when empty.
-- false positives: accounts of cloud-init and of configuration management.
-- references: T1548.003, https://attack.mitre.org/techniques/T1548/003/

SELECT fleet, source, header, rule_details, count(DISTINCT host) AS hosts_with_rule, min(host) AS a_host
FROM current.sudoers
WHERE (rule_details ILIKE '%NOPASSWD%' OR rule_details ILIKE '%!authenticate%' OR header ILIKE '%!authenticate%')
  AND ($fleet = '' OR fleet = $fleet)
GROUP BY fleet, source, header, rule_details
ORDER BY hosts_with_rule, fleet, source, header
