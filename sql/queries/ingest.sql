-- name: lock_directory_shared
-- A flush holds this until it commits, so that nothing it relies on changes meanwhile.
SELECT pg_advisory_xact_lock_shared(7061, 1);

-- name: unscoped_directory_version
-- One number tells whether the directory in memory is still true, for every account at once.
SELECT coalesce(max(version), 0) AS version FROM directory_change;

-- name: unscoped_directory_changes
-- What to forget since a version: a flush carries readings of many accounts.
SELECT version, account_id, device_id FROM directory_change
WHERE version > %(version)s ORDER BY version;

-- name: unscoped_directory_devices
-- Devices by id with what a flush needs of their accounts: the broker has vouched for the ids.
SELECT device.id AS device_id, device.account_id, device.clock, account.plan, account.tier,
       account.moving_from, (extract(epoch FROM tier.retention) * 1000000)::bigint AS retention_us
FROM device
JOIN account ON account.id = device.account_id
JOIN tier ON tier.name = account.tier
WHERE device.id = ANY (%(devices)s);

-- name: unscoped_directory_series
-- The series of the devices just loaded, of whichever account.
SELECT id, device_id, metric, kind FROM series WHERE device_id = ANY (%(devices)s);

-- name: lock_new_series
-- Serialises the first sight of metrics on one device, so that no plan's limit is overrun.
SELECT pg_advisory_xact_lock(7063, hashtext(d.id))
FROM (SELECT DISTINCT id FROM unnest(%(devices)s::text[]) AS t (id) ORDER BY id) AS d;

-- name: create_series
-- First sight of metrics; what another flush made first is left alone and read back.
INSERT INTO series (account_id, device_id, metric, kind)
SELECT account_id, device_id, metric, kind
FROM unnest(%(accounts)s::int[], %(devices)s::text[], %(metrics)s::text[], %(kinds)s::text[])
    AS t (account_id, device_id, metric, kind)
ORDER BY device_id, metric
ON CONFLICT (device_id, metric) DO NOTHING;

-- name: lock_move_shared
-- While an account moves between tiers, its flushes and the mover take turns.
SELECT pg_advisory_xact_lock_shared(7062, id)
FROM (SELECT DISTINCT id FROM unnest(%(accounts)s::int[]) AS t (id) ORDER BY id) AS a;

-- name: copy_numbers
-- The fast path; the rows carry their account_id.
COPY {tier} (time, account_id, series_id, value) FROM STDIN (FORMAT BINARY);

-- name: copy_texts
-- The fast path for text values; the rows carry their account_id.
COPY {tier_text} (time, account_id, series_id, value) FROM STDIN (FORMAT BINARY);

-- name: unscoped_stage_numbers
-- The slow path's table, gone with the transaction; the readings in it carry their account_id.
CREATE TEMPORARY TABLE staged_number (
    time timestamptz, account_id int, series_id int, value float8) ON COMMIT DROP;

-- name: unscoped_stage_texts
-- The same for text values.
CREATE TEMPORARY TABLE staged_text (
    time timestamptz, account_id int, series_id int, value text) ON COMMIT DROP;

-- name: copy_staged_numbers
-- Fills the slow path's table; the rows carry their account_id.
COPY staged_number (time, account_id, series_id, value) FROM STDIN (FORMAT BINARY);

-- name: copy_staged_texts
-- Fills the slow path's table; the rows carry their account_id.
COPY staged_text (time, account_id, series_id, value) FROM STDIN (FORMAT BINARY);

-- name: insert_staged_numbers
-- Keeps the first reading of each (series, time); the rows carry their account_id.
INSERT INTO {tier} (time, account_id, series_id, value)
SELECT time, account_id, series_id, value FROM staged_number
ON CONFLICT (series_id, time) DO NOTHING RETURNING series_id, account_id;

-- name: insert_staged_texts
-- Keeps the first reading of each (series, time); the rows carry their account_id.
INSERT INTO {tier_text} (time, account_id, series_id, value)
SELECT time, account_id, series_id, value FROM staged_text
ON CONFLICT (series_id, time) DO NOTHING RETURNING series_id, account_id;

-- name: drop_moved_numbers
-- While a move is open: what the tier moved from already holds is a duplicate, account by account.
DELETE FROM staged_number AS s USING {tier} AS t
WHERE t.series_id = s.series_id AND t.time = s.time AND t.account_id = s.account_id;

-- name: drop_moved_texts
-- While a move is open: what the tier moved from already holds is a duplicate, account by account.
DELETE FROM staged_text AS s USING {tier_text} AS t
WHERE t.series_id = s.series_id AND t.time = s.time AND t.account_id = s.account_id;

-- name: count_usage
-- Usage equals what is stored: counted in the transaction of the readings, by account and device.
INSERT INTO usage_hour AS u (account_id, device_id, hour, messages, points, bytes, duplicates)
SELECT account_id, device_id, date_trunc('hour', %(now)s::timestamptz), messages, points, bytes, duplicates
FROM unnest(%(accounts)s::int[], %(devices)s::text[], %(messages)s::int[], %(points)s::int[],
            %(bytes)s::int[], %(duplicates)s::int[])
    AS t (account_id, device_id, messages, points, bytes, duplicates)
ORDER BY account_id, device_id
ON CONFLICT (account_id, device_id, hour) DO UPDATE SET
    messages = u.messages + EXCLUDED.messages, points = u.points + EXCLUDED.points,
    bytes = u.bytes + EXCLUDED.bytes, duplicates = u.duplicates + EXCLUDED.duplicates;

-- name: count_rejections
-- Every refused reading is counted with its code, by account, device and hour.
INSERT INTO rejection_hour AS r (account_id, device_id, hour, code, points)
SELECT account_id, device_id, date_trunc('hour', %(now)s::timestamptz), code, points
FROM unnest(%(accounts)s::int[], %(devices)s::text[], %(codes)s::text[], %(points)s::int[])
    AS t (account_id, device_id, code, points)
ORDER BY account_id, device_id, code
ON CONFLICT (account_id, device_id, hour, code) DO UPDATE SET points = r.points + EXCLUDED.points;

-- name: unscoped_unstage_numbers
-- A flush may stage once for each tier it touches; the readings in it carry their account_id.
DROP TABLE staged_number;

-- name: unscoped_unstage_texts
-- The same for text values.
DROP TABLE staged_text;
