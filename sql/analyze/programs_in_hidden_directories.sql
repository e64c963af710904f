-- Which processes run from hidden files or directories?
-- tables: processes
-- param: fleet = (text) Only this fleet; all fleets when empty.
-- false positives: tools that a person installed in a home directory (.local, .cargo, .nvm, .vscode-server).
-- references: T1564.001, https://attack.mitre.org/techniques/T1564/001/

SELECT
    fleet, path, name, count(DISTINCT host) AS hosts_with_path, min(host) AS a_host,
    min(cmdline) AS a_cmdline, min(uid) AS lowest_uid
FROM current.processes
WHERE (regexp_like(path, '/\.[^/.][^/]*(/|$)') OR regexp_like(path, '/(\.\.\.+|\. |\.\. |\s)[^/]*(/|$)') OR regexp_like(cwd, '/\.(\.\.+|\s)'))
  AND ($fleet = '' OR fleet = $fleet)
GROUP BY fleet, path, name
ORDER BY hosts_with_path, fleet, path
