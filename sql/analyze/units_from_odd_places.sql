-- Which systemd units are read from places that no package and no administrator uses?
-- tables: systemd_units
-- param: fleet = (text) Only this fleet; all fleets when empty.
-- false positives: units that a generator or `systemd-run` makes while the system runs; snaps.
-- references: T1543.002, https://attack.mitre.org/techniques/T1543/002/

SELECT
    fleet, id, fragment_path, source_path, unit_file_state, active_state,
    count(DISTINCT host) AS hosts_with_unit, min(host) AS a_host
FROM current.systemd_units
WHERE fragment_path <> ''
  AND (
    NOT regexp_like(fragment_path, '^/(usr/lib|lib|etc|run|usr/local/lib)/systemd/')
    OR regexp_like(fragment_path, '/\.[^/]+')
  )
  AND ($fleet = '' OR fleet = $fleet)
GROUP BY fleet, id, fragment_path, source_path, unit_file_state, active_state
ORDER BY hosts_with_unit, fleet, id
