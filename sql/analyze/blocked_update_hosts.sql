-- Which names of updates, logging and security services are sent nowhere by /etc/hosts?
-- tables: etc_hosts
-- param: fleet = (text) Only this fleet; all fleets when empty.
-- false positives: lists that block advertisements; tests.
-- references: T1562.001, T1565.001, https://attack.mitre.org/techniques/T1562/001/

SELECT fleet, address, hostnames, count(DISTINCT host) AS hosts_with_line, min(host) AS a_host
FROM current.etc_hosts
WHERE regexp_like(hostnames, '(^|\s)[^\s]*(update|security|mirror|archive\.|repo|packages|rpm|debian|ubuntu|amazonaws|googleapis|azure|crowdstrike|sentinelone|falcon|wazuh|elastic|splunk|datadog|sophos|clamav|virustotal|siem|syslog|logs?\.)[^\s]*', 'i')
  AND (address LIKE '127.%' OR address IN ('0.0.0.0', '::1', '::'))
  -- Names of the machine itself.
  AND NOT regexp_like(hostnames, '(^|\s)(localhost|ip6-localhost|ip6-loopback)(\s|$)')
  AND ($fleet = '' OR fleet = $fleet)
GROUP BY fleet, address, hostnames
ORDER BY hosts_with_line, fleet, hostnames
