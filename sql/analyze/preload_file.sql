-- Where is there an /etc/ld.so.preload, which puts a library into every program?
-- tables: file
-- param: fleet = (text) Only this fleet; all fleets when empty.
-- false positives: a few products for tracing and for old hardware.
-- references: T1574.006, https://attack.mitre.org/techniques/T1574/006/

SELECT
    fleet, host, path, size, mode, uid, to_timestamp_seconds(mtime) AS modified, to_timestamp_seconds(ctime) AS changed
FROM current.file
WHERE path IN ('/etc/ld.so.preload', '/usr/local/etc/ld.so.preload')
  AND size > 0
  AND ($fleet = '' OR fleet = $fleet)
ORDER BY fleet, host
