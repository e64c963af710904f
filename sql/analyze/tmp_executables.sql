-- Which executable files lie in directories that everybody may write to?
-- tables: file
-- param: fleet = (text) Only this fleet; all fleets when empty.
-- false positives: installers and just-in-time compilers leave such files.
-- references: T1564.001, T1105, https://attack.mitre.org/techniques/T1105/

SELECT
    fleet, host, path, mode, uid, size,
    to_timestamp_seconds(mtime) AS modified, to_timestamp_seconds(ctime) AS changed
FROM current.file
WHERE regexp_like(path, '^/(tmp|var/tmp|dev/shm)/')
  AND type = 'regular'
  -- One of the three digits of owner, group and others is odd.
  AND regexp_like(mode, '([1357][0-7][0-7]|[0-7][1357][0-7]|[0-7][0-7][1357])$')
  AND ($fleet = '' OR fleet = $fleet)
ORDER BY fleet, path, host
