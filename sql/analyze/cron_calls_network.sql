-- Which cron lines fetch something, open a connection, or decode what they run?
-- tables: crontab
-- param: fleet = (text) Only this fleet; all fleets when empty.
-- false positives: updates of certificates and of lists; monitoring that calls a URL; backups.
-- references: T1053.003, T1105, https://attack.mitre.org/techniques/T1053/003/

SELECT
    fleet, path, command, count(DISTINCT host) AS hosts_with_line, min(host) AS a_host,
    min(minute) AS a_minute, min(hour) AS an_hour
FROM current.crontab
WHERE regexp_like(
        command,
        '(\b(curl|wget|fetch|ncat|netcat|socat|telnet|ftp|tftp|scp|rsync|aria2c)\b|\bnc\s+-|/dev/(tcp|udp)/|https?://|base64\s+(-d|--decode)|\b(python[0-9.]*|perl|ruby|php)\s+-[ce])',
        'i')
  AND ($fleet = '' OR fleet = $fleet)
GROUP BY fleet, path, command
ORDER BY hosts_with_line, fleet, path, command
