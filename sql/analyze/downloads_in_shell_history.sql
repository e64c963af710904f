-- Which commands of shell histories fetch something and run it?
-- tables: shell_history
-- param: fleet = (text) Only this fleet; all fleets when empty.
-- false positives: installers that are meant to be used like that.
-- references: T1105, T1059.004, https://attack.mitre.org/techniques/T1105/

SELECT fleet, host, username, command, history_file, to_timestamp_seconds(nullif(time, 0)) AS at
FROM current.shell_history
WHERE (
        regexp_like(command, '(curl|wget|fetch)[^|;&]*[|][ ]*(sudo )?(ba|da|z|k)?sh')
        OR regexp_like(command, '(curl|wget|fetch)[ ].*(;|&&)[ ]*(sudo )?(chmod |[.]/|/(tmp|var/tmp|dev/shm)/|(ba|da|z|k)?sh |(python|perl)[0-9.]* )')
        OR regexp_like(command, '(sh|eval|source)[ ].*[(](curl|wget|fetch)[ ]')
        OR regexp_like(command, 'base64[ ]+(-d|--decode)')
        OR regexp_like(command, '/dev/(tcp|udp)/')
        OR regexp_like(command, '(nc|ncat|socat)[ ].*(-e|exec)')
      )
  AND ($fleet = '' OR fleet = $fleet)
ORDER BY fleet, host, at
