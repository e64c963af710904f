-- Which hosts ask another name server than most hosts of the fleet?
-- tables: dns_resolvers, coverage
-- param: fleet = (text) Only this fleet; all fleets when empty.
-- false positives: local caches; hosts in another network; VPN clients.
-- references: T1557, T1071.004, https://attack.mitre.org/techniques/T1557/

WITH asked AS (
    SELECT fleet, address, count(DISTINCT host) AS hosts_with_resolver, min(host) AS a_host
    FROM current.dns_resolvers
    WHERE type = 'nameserver' AND ($fleet = '' OR fleet = $fleet)
    GROUP BY fleet, address
),
answered AS (
    SELECT fleet, count(*) AS hosts_answered
    FROM current.coverage
    WHERE table_name = 'dns_resolvers' AND status IN ('ok', 'empty')
    GROUP BY fleet
)
SELECT asked.fleet, asked.address, asked.hosts_with_resolver, answered.hosts_answered, asked.a_host
FROM asked
LEFT JOIN answered ON answered.fleet = asked.fleet
WHERE asked.hosts_with_resolver * 2 <= answered.hosts_answered
ORDER BY asked.hosts_with_resolver, asked.fleet, asked.address
