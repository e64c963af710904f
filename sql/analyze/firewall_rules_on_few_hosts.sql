-- Which firewall rules exist on only a few hosts of a fleet?
-- tables: iptables
-- param: max_hosts = 3 (integer) Most hosts of a fleet that may have such a rule.
-- param: fleet = (text) Only this fleet; all fleets when empty.
-- false positives: rules of containers, with an address for each; rules that ban one attacker.
-- references: T1562.004, https://attack.mitre.org/techniques/T1562/004/

SELECT
    fleet, filter_name, chain, policy, target, protocol, src_ip, src_mask, src_port, dst_ip, dst_mask, dst_port,
    count(DISTINCT host) AS hosts_with_rule, min(host) AS a_host
FROM current.iptables
WHERE ($fleet = '' OR fleet = $fleet)
GROUP BY fleet, filter_name, chain, policy, target, protocol, src_ip, src_mask, src_port, dst_ip, dst_mask, dst_port
HAVING count(DISTINCT host) <= $max_hosts
ORDER BY hosts_with_rule, fleet, chain
