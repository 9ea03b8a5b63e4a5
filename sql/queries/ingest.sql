-- name: lock_directory_shared
-- A flush holds this until it commits, so that nothing it relies on changes meanwhile.
SELECT pg_advisory_xact_lock_shared(7061, 1);

-- name: unscoped_directory_version
-- One number tells whether the directory in memory is still true, for every account at once; and
-- who is watching: accounts with a stream of everything, and single devices.
SELECT coalesce(max(version), 0) AS version,
       (SELECT array_agg(account_id) FROM stream WHERE device_id IS NULL AND until > now()) AS accounts,
       (SELECT array_agg(device_id) FROM stream WHERE until > now()) AS devices
FROM directory_change;

-- name: unscoped_directory_changes
-- What to forget since a version: a flush carries readings of many accounts.
SELECT version, account_id, device_id FROM directory_change
WHERE version > %(version)s ORDER BY version;

-- name: unscoped_directory_devices
-- Devices by id with what a flush needs of their accounts: the broker has vouched for the ids.
SELECT device.id AS device_id, device.account_id, device.clock, account.plan, account.tier,
       account.moving_from, account.closing_at IS NOT NULL AS closing,
       (extract(epoch FROM tier.retention) * 1000000)::bigint AS retention_us
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
ON CONFLICT (series_id, time) DO NOTHING
RETURNING series_id, (extract(epoch FROM time) * 1000000)::bigint AS time_us, account_id;

-- name: insert_staged_texts
-- Keeps the first reading of each (series, time); the rows carry their account_id.
INSERT INTO {tier_text} (time, account_id, series_id, value)
SELECT time, account_id, series_id, value FROM staged_text
ON CONFLICT (series_id, time) DO NOTHING
RETURNING series_id, (extract(epoch FROM time) * 1000000)::bigint AS time_us, account_id;

-- name: drop_moved_numbers
-- While a move is open: what the tier moved from already holds is a duplicate, account by account,
-- unless it has expired there.
DELETE FROM staged_number AS s USING {tier} AS t, account AS a
WHERE t.series_id = s.series_id AND t.time = s.time AND t.account_id = s.account_id
  AND a.id = s.account_id AND t.time >= a.readable_from;

-- name: drop_moved_texts
-- While a move is open: what the tier moved from already holds is a duplicate, account by account,
-- unless it has expired there.
DELETE FROM staged_text AS s USING {tier_text} AS t, account AS a
WHERE t.series_id = s.series_id AND t.time = s.time AND t.account_id = s.account_id
  AND a.id = s.account_id AND t.time >= a.readable_from;

-- name: count_usage
-- Usage equals what is stored: counted in the transaction of the readings, by account and device.
INSERT INTO usage_hour AS u (account_id, device_id, hour, messages, points, bytes, duplicates, late,
                             arrivals, first_fresh_at, last_fresh_at, tokens, tokens_at)
SELECT account_id, device_id, %(hour)s, messages, points, bytes, duplicates, late,
       (last_fresh IS NOT NULL)::int,
       'epoch'::timestamptz + first_fresh * interval '1 microsecond',
       'epoch'::timestamptz + last_fresh * interval '1 microsecond',
       tokens, 'epoch'::timestamptz + tokens_at * interval '1 microsecond'
FROM unnest(%(accounts)s::int[], %(devices)s::text[], %(messages)s::int[], %(points)s::int[],
            %(bytes)s::bigint[], %(duplicates)s::int[], %(late)s::int[],
            %(first_fresh)s::bigint[], %(last_fresh)s::bigint[],
            %(tokens)s::float8[], %(tokens_at)s::bigint[])
    AS t (account_id, device_id, messages, points, bytes, duplicates, late,
          first_fresh, last_fresh, tokens, tokens_at)
ORDER BY account_id, device_id
ON CONFLICT (account_id, device_id, hour) DO UPDATE SET
    messages = u.messages + EXCLUDED.messages, points = u.points + EXCLUDED.points,
    bytes = u.bytes + EXCLUDED.bytes, duplicates = u.duplicates + EXCLUDED.duplicates,
    late = u.late + EXCLUDED.late, arrivals = u.arrivals + EXCLUDED.arrivals,
    first_fresh_at = least(u.first_fresh_at, EXCLUDED.first_fresh_at),
    last_fresh_at = greatest(u.last_fresh_at, EXCLUDED.last_fresh_at),
    tokens = coalesce(EXCLUDED.tokens, u.tokens),
    tokens_at = coalesce(EXCLUDED.tokens_at, u.tokens_at);

-- name: count_rejections
-- Every refused point is counted with its code, by account, device and hour of receipt.
INSERT INTO rejection_hour AS r (account_id, device_id, hour, code, points)
SELECT account_id, device_id, %(hour)s, code, points
FROM unnest(%(accounts)s::int[], %(devices)s::text[], %(codes)s::text[], %(points)s::bigint[])
    AS t (account_id, device_id, code, points)
ORDER BY account_id, device_id, code
ON CONFLICT (account_id, device_id, hour, code) DO UPDATE SET points = r.points + EXCLUDED.points;

-- name: unscoped_unstage_numbers
-- A flush may stage once for each tier it touches; the readings in it carry their account_id.
DROP TABLE staged_number;

-- name: unscoped_unstage_texts
-- The same for text values.
DROP TABLE staged_text;

-- name: lock_allowances
-- What is left of the accounts' day; held until the flush commits. A day before the row's own is
-- counted anew: it comes out of a spool, after younger readings came another way.
SELECT a.account_id, a.writer = %(writer)s AS mine, a.late_left, a.day > %(day)s::date AS past,
       (extract(epoch FROM a.late_at) * 1000000)::bigint AS late_at_us,
       CASE WHEN a.day = %(day)s::date THEN a.points
            WHEN a.day < %(day)s::date THEN 0
            ELSE (SELECT coalesce(sum(u.points - u.late), 0)::bigint FROM usage_hour AS u
                  WHERE u.account_id = a.account_id
                    AND u.hour >= %(day)s AND u.hour < %(day)s::timestamptz + interval '24 hours')
       END AS used
FROM allowance AS a
WHERE a.account_id = ANY (%(accounts)s) ORDER BY a.account_id FOR NO KEY UPDATE;

-- name: make_allowances
-- An account's first flush under a plan with limits; the day so far stands in the counters.
INSERT INTO allowance (account_id, day, points, writer)
SELECT t.id, %(day)s::date,
       (SELECT coalesce(sum(u.points - u.late), 0) FROM usage_hour AS u
        WHERE u.account_id = t.id
          AND u.hour >= %(day)s AND u.hour < %(day)s::timestamptz + interval '24 hours'), ''
FROM unnest(%(accounts)s::int[]) AS t (id) ORDER BY t.id
ON CONFLICT (account_id) DO NOTHING;

-- name: save_allowances
-- What the flush has used of them.
UPDATE allowance AS a SET
    day = CASE WHEN t.used IS NULL THEN a.day ELSE %(day)s::date END,
    points = coalesce(t.used, a.points),
    late_left = t.late_left, late_at = t.late_at, writer = %(writer)s
FROM (
    SELECT account_id, used, late_left, 'epoch'::timestamptz + late_at * interval '1 microsecond'
    FROM unnest(%(accounts)s::int[], %(used)s::bigint[], %(late_left)s::float8[],
                %(late_at)s::bigint[]) AS u (account_id, used, late_left, late_at)
) AS t (account_id, used, late_left, late_at)
WHERE a.account_id = t.account_id;

-- name: message_tokens
-- How many messages each of these devices may still send, as the last flush that counted left it.
SELECT t.device_id, u.tokens, (extract(epoch FROM u.tokens_at) * 1000000)::bigint AS tokens_at_us
FROM unnest(%(accounts)s::int[], %(devices)s::text[]) AS t (account_id, device_id)
CROSS JOIN LATERAL (
    SELECT tokens, tokens_at FROM usage_hour
    WHERE account_id = t.account_id AND device_id = t.device_id AND tokens IS NOT NULL
      AND hour > %(now)s::timestamptz - interval '3 hours'
    ORDER BY hour DESC LIMIT 1
) AS u;

-- name: present_readings
-- Which of the points that an account has no room for stand there already. The bounds leave out
-- chunks.
WITH wanted AS MATERIALIZED (
    SELECT account_id, series_id, 'epoch'::timestamptz + time_us * interval '1 microsecond' AS time
    FROM unnest(%(accounts)s::int[], %(series)s::int[], %(times)s::bigint[])
        AS t (account_id, series_id, time_us)
)
SELECT r.series_id, (extract(epoch FROM r.time) * 1000000)::bigint AS time_us
FROM {tier} AS r JOIN wanted AS w ON r.series_id = w.series_id AND r.time = w.time
WHERE r.account_id = w.account_id AND r.time >= %(since)s AND r.time < %(until)s
UNION ALL
SELECT r.series_id, (extract(epoch FROM r.time) * 1000000)::bigint AS time_us
FROM {tier_text} AS r JOIN wanted AS w ON r.series_id = w.series_id AND r.time = w.time
WHERE r.account_id = w.account_id AND r.time >= %(since)s AND r.time < %(until)s
UNION ALL
SELECT r.series_id, (extract(epoch FROM r.time) * 1000000)::bigint AS time_us
FROM {other} AS r JOIN wanted AS w ON r.series_id = w.series_id AND r.time = w.time
WHERE %(moving)s AND r.account_id = w.account_id AND r.time >= %(since)s AND r.time < %(until)s
UNION ALL
SELECT r.series_id, (extract(epoch FROM r.time) * 1000000)::bigint AS time_us
FROM {other_text} AS r JOIN wanted AS w ON r.series_id = w.series_id AND r.time = w.time
WHERE %(moving)s AND r.account_id = w.account_id AND r.time >= %(since)s AND r.time < %(until)s;

-- name: filled_slots
-- Which aligned 5 minutes of these series of the accounts hold a reading.
SELECT w.series_id, w.slot_us
FROM (
    SELECT account_id, series_id, slot_us,
           'epoch'::timestamptz + slot_us * interval '1 microsecond' AS slot
    FROM unnest(%(accounts)s::int[], %(series)s::int[], %(slots)s::bigint[])
        AS t (account_id, series_id, slot_us)
) AS w
WHERE EXISTS (SELECT FROM {tier} AS r WHERE r.series_id = w.series_id
              AND r.account_id = w.account_id AND r.time >= %(since)s AND r.time < %(until)s
              AND r.time >= w.slot AND r.time < w.slot + interval '5 minutes')
   OR EXISTS (SELECT FROM {tier_text} AS r WHERE r.series_id = w.series_id
              AND r.account_id = w.account_id AND r.time >= %(since)s AND r.time < %(until)s
              AND r.time >= w.slot AND r.time < w.slot + interval '5 minutes')
   OR %(moving)s AND EXISTS (SELECT FROM {other} AS r WHERE r.series_id = w.series_id
              AND r.account_id = w.account_id AND r.time >= %(since)s AND r.time < %(until)s
              AND r.time >= w.slot AND r.time < w.slot + interval '5 minutes')
   OR %(moving)s AND EXISTS (SELECT FROM {other_text} AS r WHERE r.series_id = w.series_id
              AND r.account_id = w.account_id AND r.time >= %(since)s AND r.time < %(until)s
              AND r.time >= w.slot AND r.time < w.slot + interval '5 minutes');

-- name: keep_examples
-- At most so many payloads for each device, code and hour of an account.
INSERT INTO rejection (account_id, device_id, hour, code, time, topic, metric, detail, payload, payload_bytes)
SELECT account_id, device_id, %(hour)s, code, time, topic, metric, detail, payload, size
FROM (
    SELECT *, row_number() OVER (PARTITION BY device_id, code ORDER BY n) AS place
    FROM unnest(%(accounts)s::int[], %(devices)s::text[], %(codes)s::text[],
                %(times)s::timestamptz[], %(topics)s::text[], %(metrics)s::text[],
                %(details)s::text[], %(payloads)s::bytea[], %(sizes)s::int[])
        WITH ORDINALITY
        AS t (account_id, device_id, code, time, topic, metric, detail, payload, size, n)
) AS e
WHERE place + (SELECT count(*) FROM rejection AS r
               WHERE r.account_id = e.account_id AND r.device_id = e.device_id
                 AND r.hour = %(hour)s AND r.code = e.code) <= %(most)s
ORDER BY n;

-- name: unscoped_note_spool_place
-- How far this process's spool is stored: of whichever accounts its messages are.
INSERT INTO spool_place (spool, segment, position) VALUES (%(spool)s, %(segment)s, %(position)s)
ON CONFLICT (spool) DO UPDATE SET segment = EXCLUDED.segment, position = EXCLUDED.position, at = now();

-- name: unscoped_spool_place
-- Where the replay of a spool goes on.
SELECT segment, position FROM spool_place WHERE spool = %(spool)s;
