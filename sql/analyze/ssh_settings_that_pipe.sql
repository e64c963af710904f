-- Which settings of ssh run a command, or forward more than a session?
-- tables: ssh_configs
-- param: fleet = (text) Only this fleet; all fleets when empty.
-- false positives: jump hosts; clients of clouds that use a ProxyCommand.
-- references: T1572, T1021.004, https://attack.mitre.org/techniques/T1572/

SELECT fleet, username, block, option, ssh_config_file, count(DISTINCT host) AS hosts_with_setting, min(host) AS a_host
FROM current.ssh_configs
WHERE regexp_like(option, '^(proxycommand|localcommand|permitlocalcommand|remoteforward|dynamicforward|localforward|knownhostscommand|match\s+exec)', 'i')
  AND ($fleet = '' OR fleet = $fleet)
GROUP BY fleet, username, block, option, ssh_config_file
ORDER BY hosts_with_setting, fleet, option
