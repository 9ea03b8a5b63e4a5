-- name: lock_streams
-- Two streams opened at once must not pass the plan's limit together.
SELECT pg_advisory_xact_lock(7065, %(account)s);

-- name: count_streams
-- The account's open streams, in whichever process.
SELECT count(*) AS streams FROM stream WHERE account_id = %(account)s AND until > now();

-- name: open_stream
-- From here on flushes tell what the account's stream is to show.
INSERT INTO stream (id, account_id, device_id, key_id, session_id, until)
VALUES (%(id)s, %(account)s, %(device)s, %(key)s, %(session)s, now() + %(lasts)s);

-- name: keep_stream
-- It goes on while the device is there, the account is open and what it was opened with holds.
UPDATE stream SET until = now() + %(lasts)s
FROM account
WHERE stream.id = %(id)s AND account_id = %(account)s AND account.id = account_id
  AND account.disabled_at IS NULL AND account.closing_at IS NULL
  AND (session_id IS NULL OR EXISTS (
        SELECT FROM session WHERE session.id = session_id AND ended_at IS NULL AND expires_at > now()))
  AND (key_id IS NULL OR EXISTS (
        SELECT FROM api_key WHERE api_key.id = key_id AND (expires_at IS NULL OR expires_at > now())))
RETURNING stream.id;

-- name: close_stream
-- Nobody of the account reads it any more.
DELETE FROM stream WHERE id = %(id)s AND account_id = %(account)s;

-- name: unscoped_forget_streams
-- Those whose process died, whosesoever they are.
DELETE FROM stream WHERE until < now();

-- name: unscoped_live_channel
-- The name of the channel readings travel on; it belongs to nobody.
SELECT name FROM live_channel;

-- name: unscoped_notify_live
-- What a flush has for those who watch; delivered when it commits, each part to whom it is for.
SELECT pg_notify(%(channel)s, part) FROM unnest(%(parts)s::text[]) AS t (part);

-- name: unscoped_notify_connections
-- Devices of any account whose connection changed, where somebody watches them.
SELECT pg_notify((SELECT name FROM live_channel),
                 json_build_object('account', account_id, 'device', id, 'status', true)::text)
FROM device
WHERE id = ANY (%(devices)s)
  AND EXISTS (SELECT FROM stream WHERE stream.account_id = device.account_id AND until > now()
              AND (stream.device_id IS NULL OR stream.device_id = device.id));

-- name: stream_statuses
-- Where the account's watched devices stand: connection and freshness at a moment.
SELECT device.id, device.connection_ip, status.*
FROM device CROSS JOIN LATERAL device_status(device, %(now)s) AS status
WHERE account_id = %(account)s AND id = ANY (%(devices)s) ORDER BY id;
