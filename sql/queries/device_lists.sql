-- name: device_list
-- A page of the account's devices as people look for them, with how many there are in all.
SELECT id, account_id, thing_name, friendly_name, mac_address, firmware_version, tags, report_interval_s,
       clock, verifier, attributes, created_at, connection, connection_since, connection_reason, connection_ip,
       secret_used_at, secret_used_ip, enabled, paused_at, resumed_at,
       status.*, count(*) OVER () AS in_all
FROM device CROSS JOIN LATERAL device_status(device, %(now)s) AS status
WHERE account_id = %(account)s
  AND (%(tag)s::text IS NULL OR %(tag)s = ANY (tags))
  AND (%(text)s::text IS NULL
       OR strpos(lower(concat_ws(' ', id, thing_name, friendly_name)), lower(%(text)s)) > 0)
  AND CASE %(state)s
      WHEN 'paused' THEN paused_at IS NOT NULL
      WHEN 'online' THEN shown_connection = 'online'
      WHEN 'offline' THEN shown_connection = 'offline'
      WHEN 'fresh' THEN data_status = 'fresh'
      WHEN 'stale' THEN data_status = 'stale'
      WHEN 'never' THEN data_status = 'never'
      ELSE true END
ORDER BY CASE WHEN %(sort)s = 'name' THEN lower(coalesce(friendly_name, thing_name)) END,
         CASE WHEN %(sort)s = '-name' THEN lower(coalesce(friendly_name, thing_name)) END DESC,
         CASE WHEN %(sort)s = 'data' THEN data_last_at END DESC NULLS LAST,
         CASE WHEN %(sort)s = '-data' THEN data_last_at END NULLS FIRST,
         CASE WHEN %(sort)s = 'new' THEN created_at END DESC,
         created_at, id
LIMIT %(limit)s OFFSET %(offset)s;

-- name: device_counts
-- How the account's devices stand, counted.
SELECT count(*) AS devices,
       count(*) FILTER (WHERE shown_connection = 'online') AS online,
       count(*) FILTER (WHERE data_status = 'fresh') AS fresh,
       count(*) FILTER (WHERE data_status = 'stale') AS stale,
       count(*) FILTER (WHERE data_status = 'never') AS never,
       count(*) FILTER (WHERE paused_at IS NOT NULL) AS paused
FROM device CROSS JOIN LATERAL device_status(device, %(now)s) AS status
WHERE account_id = %(account)s;

-- name: device_tags
-- The tags the account's devices have, to choose among.
SELECT DISTINCT tag FROM device, unnest(tags) AS tag
WHERE account_id = %(account)s ORDER BY tag LIMIT %(limit)s;
