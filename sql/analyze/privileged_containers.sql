-- Which containers are privileged, or mount the host's root, its devices or the engine's socket?
-- tables: docker_containers, docker_container_mounts
-- param: fleet = (text) Only this fleet; all fleets when empty.
-- false positives: agents of monitoring and of security; network plugins; builds of images.
-- references: T1611, T1610, https://attack.mitre.org/techniques/T1611/

WITH mounted AS (
    SELECT fleet, host, id, string_agg(source, ' ' ORDER BY source) AS sources
    FROM current.docker_container_mounts
    WHERE regexp_like(source, '^(/|/etc|/root|/home|/proc|/sys|/dev|/boot|/var/run/docker.sock|/run/docker.sock|/run/containerd/containerd.sock|/var/lib/docker)/?$')
      AND ($fleet = '' OR fleet = $fleet)
    GROUP BY fleet, host, id
)
SELECT
    c.fleet, c.name, c.image, c.privileged, c.security_options, m.sources AS mounted_from_host,
    count(DISTINCT c.host) AS hosts_with_container, min(c.host) AS a_host, min(c.command) AS a_command
FROM current.docker_containers AS c
LEFT JOIN mounted AS m ON m.fleet = c.fleet AND m.host = c.host AND m.id = c.id
WHERE (c.privileged = 1 OR m.sources IS NOT NULL OR c.security_options LIKE '%unconfined%')
  AND ($fleet = '' OR c.fleet = $fleet)
GROUP BY c.fleet, c.name, c.image, c.privileged, c.security_options, m.sources
ORDER BY hosts_with_container, c.fleet, c.name
