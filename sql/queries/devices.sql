-- name: lock_device_count
-- Two requests at once must not pass the plan's limit together.
SELECT pg_advisory_xact_lock(7064, %(account)s);

-- name: count_devices
-- For the plan's limit.
SELECT count(*) AS devices FROM device WHERE account_id = %(account)s;

-- name: create_devices
-- New devices of the account; those whose thing_name is taken do not come back.
INSERT INTO device (id, account_id, thing_name, friendly_name, mac_address, firmware_version, tags,
                    report_interval_s, clock, verifier)
SELECT id, %(account)s, thing_name, friendly_name, mac_address, firmware_version, tags,
       report_interval, clock, verifier
FROM jsonb_to_recordset(%(devices)s) AS t (
    id text, thing_name text, friendly_name text, mac_address macaddr, firmware_version text,
    tags text[], report_interval int, clock text, verifier text)
ON CONFLICT (account_id, thing_name) DO NOTHING
RETURNING id, account_id, thing_name, friendly_name, mac_address, firmware_version, tags, report_interval_s,
          clock, verifier, attributes, created_at, connection, connection_since, connection_reason, connection_ip,
          secret_used_at, secret_used_ip, enabled, paused_at, resumed_at;

-- name: get_device
-- One device of the account as it is stored.
SELECT id, account_id, thing_name, friendly_name, mac_address, firmware_version, tags, report_interval_s,
       clock, verifier, attributes, created_at, connection, connection_since, connection_reason, connection_ip,
       secret_used_at, secret_used_ip, enabled, paused_at, resumed_at
FROM device WHERE account_id = %(account)s AND id = %(id)s;

-- name: show_device
-- One device of the account with its status at a moment.
SELECT id, account_id, thing_name, friendly_name, mac_address, firmware_version, tags, report_interval_s,
       clock, verifier, attributes, created_at, connection, connection_since, connection_reason, connection_ip,
       secret_used_at, secret_used_ip, enabled, paused_at, resumed_at,
       status.*
FROM device CROSS JOIN LATERAL device_status(device, %(now)s) AS status
WHERE account_id = %(account)s AND id = %(id)s;

-- name: get_device_for_change
-- The same device of the account, held until the change commits: two changes at once both last.
SELECT id, account_id, thing_name, friendly_name, mac_address, firmware_version, tags, report_interval_s,
       clock, verifier, attributes, created_at, connection, connection_since, connection_reason, connection_ip,
       secret_used_at, secret_used_ip, enabled, paused_at, resumed_at
FROM device WHERE account_id = %(account)s AND id = %(id)s FOR NO KEY UPDATE;

-- name: device_ids
-- The ids of the account's devices, or of those with a tag.
SELECT id FROM device
WHERE account_id = %(account)s
  AND (%(allowed)s::text[] IS NULL OR id = ANY (%(allowed)s))
  AND (%(tag)s::text IS NULL OR %(tag)s = ANY (tags))
ORDER BY created_at, id;

-- name: list_devices
-- A page of the account's devices in the order they were made, with their status at a moment.
SELECT id, account_id, thing_name, friendly_name, mac_address, firmware_version, tags, report_interval_s,
       clock, verifier, attributes, created_at, connection, connection_since, connection_reason, connection_ip,
       secret_used_at, secret_used_ip, enabled, paused_at, resumed_at,
       status.*
FROM device CROSS JOIN LATERAL device_status(device, coalesce(%(now)s, now())) AS status
WHERE account_id = %(account)s
  AND (%(allowed)s::text[] IS NULL OR id = ANY (%(allowed)s))
  AND (%(tag)s::text IS NULL OR %(tag)s = ANY (tags))
  AND (%(status)s::text IS NULL OR shown_connection = %(status)s)
  AND (%(data)s::text IS NULL OR data_status = %(data)s)
  AND (%(text)s::text IS NULL OR strpos(lower(concat_ws(' ', id, thing_name, friendly_name)), lower(%(text)s)) > 0)
  AND (%(after_time)s::timestamptz IS NULL OR (created_at, id) > (%(after_time)s, %(after_id)s))
ORDER BY created_at, id
LIMIT %(limit)s;

-- name: update_device
-- What the account says of its device; the whole row, so that null clears.
UPDATE device SET thing_name = %(thing_name)s, friendly_name = %(friendly_name)s,
    mac_address = %(mac_address)s, firmware_version = %(firmware_version)s, tags = %(tags)s,
    report_interval_s = %(report_interval)s
WHERE account_id = %(account)s AND id = %(id)s;

-- name: set_device_clock
-- Apart from the rest: ingest must hear of it before its next flush.
UPDATE device SET clock = %(clock)s
WHERE account_id = %(account)s AND id = %(id)s AND clock <> %(clock)s;

-- name: device_series
-- The metrics of one device.
SELECT id, metric, kind, label, unit, created_at FROM series
WHERE account_id = %(account)s AND device_id = %(id)s ORDER BY metric;

-- name: set_metric_kind
-- Ingest must hear of it before its next flush; readings of the account stay where they stand.
UPDATE series SET kind = %(kind)s, mixed = mixed OR (kind = 'text') <> (%(kind)s = 'text')
WHERE account_id = %(account)s AND device_id = %(id)s AND metric = %(metric)s AND kind <> %(kind)s;

-- name: update_metric
-- What the account calls its metric; what is not given stays.
UPDATE series SET label = CASE WHEN %(set_label)s THEN %(label)s ELSE label END,
    unit = CASE WHEN %(set_unit)s THEN %(unit)s ELSE unit END
WHERE account_id = %(account)s AND device_id = %(id)s AND metric = %(metric)s
RETURNING metric, kind, label, unit, created_at;

-- name: delete_metric
-- The account's series goes at once, its readings by a job.
DELETE FROM series
WHERE account_id = %(account)s AND device_id = %(id)s AND metric = %(metric)s
RETURNING id;

-- name: lock_directory
-- Taken before a deletion or a move looks: no flush is between its own look and its commit.
SELECT pg_advisory_xact_lock(7061, 1);

-- name: delete_device
-- The row goes at once; its readings by a job.
DELETE FROM device WHERE account_id = %(account)s AND id = %(id)s RETURNING id, paused_at;

-- name: set_verifier
-- A new secret; the broker cuts the old one's connection off.
UPDATE device SET verifier = %(verifier)s WHERE account_id = %(account)s AND id = %(id)s
RETURNING id;

-- name: device_events
-- A page of the connection events of one device of the account, newest first.
SELECT id, time, kind, reason, host(ip) AS ip FROM device_event
WHERE account_id = %(account)s AND device_id = %(id)s
  AND (%(after_time)s::timestamptz IS NULL OR (time, id) < (%(after_time)s, %(after_id)s))
ORDER BY time DESC, id DESC LIMIT %(limit)s;

-- name: attributes_for_change
-- What the account's device said of itself, held until the change commits: two patches both last.
SELECT mac_address, firmware_version, attributes FROM device
WHERE account_id = %(account)s AND id = %(id)s FOR NO KEY UPDATE;

-- name: set_attributes
-- What the account's device says of itself; the columns ingest may write.
UPDATE device SET mac_address = %(mac_address)s, firmware_version = %(firmware_version)s,
    attributes = %(attributes)s
WHERE account_id = %(account)s AND id = %(id)s;

-- name: metrics_of_account
-- The names a person may choose among when they write a rule or a chart.
SELECT DISTINCT metric FROM series WHERE account_id = %(account)s ORDER BY metric LIMIT %(limit)s;
