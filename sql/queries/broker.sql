-- name: unscoped_device_verifiers
-- Every device's line of the password file: the broker serves all accounts that are neither
-- disabled nor closing, but for devices their plans have no room for.
SELECT device.id, device.verifier FROM device JOIN account ON account.id = device.account_id
WHERE account.disabled_at IS NULL AND account.closing_at IS NULL AND device.paused_at IS NULL ORDER BY device.id;

-- name: unscoped_device_verifier
-- One device's of them, for a broker that asks: whose it is tells its secret.
SELECT device.verifier FROM device JOIN account ON account.id = device.account_id
WHERE account.disabled_at IS NULL AND account.closing_at IS NULL AND device.paused_at IS NULL
    AND device.id = %(device)s;

-- name: unscoped_online_devices
-- What the record says of every account's devices, to be held to what a broker says.
SELECT id FROM device WHERE connection = 'online';

-- name: unscoped_note_connections
-- The last state of each device the broker's log speaks of, whosesoever it is.
UPDATE device SET connection = t.connection, connection_since = t.since,
    connection_reason = t.reason, connection_ip = coalesce(t.ip, device.connection_ip)
FROM unnest(%(devices)s::text[], %(connections)s::text[], %(sinces)s::timestamptz[],
            %(reasons)s::text[], %(ips)s::inet[]) AS t (id, connection, since, reason, ip)
WHERE device.id = t.id;

-- name: unscoped_note_events
-- Everything the broker says of devices that exist, for each device's events, in its order.
INSERT INTO device_event (account_id, device_id, time, kind, reason, ip)
SELECT device.account_id, device.id, t.time, t.kind, t.reason, t.ip
FROM unnest(%(devices)s::text[], %(times)s::timestamptz[], %(kinds)s::text[],
            %(reasons)s::text[], %(ips)s::inet[]) WITH ORDINALITY AS t (id, time, kind, reason, ip, place)
JOIN device USING (id) ORDER BY t.place;

-- name: unscoped_note_secret_uses
-- When and from where each device's secret was last accepted, whosesoever it is.
UPDATE device SET secret_used_at = t.time, secret_used_ip = coalesce(t.ip, secret_used_ip)
FROM (
    SELECT DISTINCT ON (id) id, time, ip
    FROM unnest(%(devices)s::text[], %(times)s::timestamptz[], %(kinds)s::text[],
                %(reasons)s::text[], %(ips)s::inet[]) AS e (id, time, kind, reason, ip)
    WHERE kind = 'connected' ORDER BY id, time DESC
) AS t
WHERE device.id = t.id AND (secret_used_at IS NULL OR secret_used_at < t.time);

-- name: unscoped_all_offline
-- A broker that starts has no connections, whatever was recorded before.
UPDATE device SET connection = 'offline', connection_since = %(now)s,
    connection_reason = 'the broker restarted'
WHERE connection IN ('online', 'unknown');

-- name: unscoped_note_broker_seen
-- The heartbeat: what the log says of any device has been recorded up to now.
INSERT INTO broker_record (seen_at) VALUES (%(now)s)
ON CONFLICT (singleton) DO UPDATE SET seen_at = EXCLUDED.seen_at;
