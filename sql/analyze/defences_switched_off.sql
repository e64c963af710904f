-- Where are audit, security agents or firewalls installed and not running, or mandatory access control not enforced?
-- tables: systemd_units, selinux_settings, apparmor_profiles
-- param: fleet = (text) Only this fleet; all fleets when empty.
-- false positives: services that the fleet never uses; profiles that are being written.
-- references: T1562.001, T1562.004, T1562.012, https://attack.mitre.org/techniques/T1562/001/

WITH off AS (
    SELECT fleet, host, 'unit ' || id AS what, active_state || ', ' || coalesce(unit_file_state, '') AS state
    FROM current.systemd_units
    WHERE regexp_like(id, '^(auditd|osqueryd|falcon-sensor|sentinelone|wazuh-agent|ossec|clamav-daemon|crowdsec|fail2ban|ufw|firewalld|nftables|iptables|apparmor|amazon-ssm-agent|amazon-cloudwatch-agent|rsyslog|systemd-journald|syslog-ng|auditbeat|filebeat|td-agent|fluent-bit)\.service$')
      AND (active_state IN ('inactive', 'failed') OR load_state = 'masked' OR unit_file_state IN ('masked', 'disabled'))
    UNION ALL
    SELECT fleet, host, 'selinux ' || key, value
    FROM current.selinux_settings
    WHERE key IN ('enforce', 'mode') AND value IN ('0', 'permissive', 'disabled')
    UNION ALL
    SELECT fleet, host, 'apparmor profile ' || name, mode
    FROM current.apparmor_profiles
    WHERE mode NOT IN ('enforce', 'kill')
)
SELECT fleet, what, state, count(DISTINCT host) AS hosts_with_state, min(host) AS a_host
FROM off
WHERE ($fleet = '' OR fleet = $fleet)
GROUP BY fleet, what, state
ORDER BY hosts_with_state, fleet, what
