-- name: reading_state
-- Where the account's readings stand at this moment, and how far back they may be read.
SELECT account.tier, account.moving_from, account.readable_from, tier.retention
FROM account JOIN tier ON tier.name = account.tier
WHERE account.id = %(account)s;

-- name: read_series
-- The series of some of the account's devices, by device and metric.
SELECT id, device_id, metric, kind, unit, mixed FROM series
WHERE account_id = %(account)s AND device_id = ANY (%(devices)s)
  AND (%(metrics)s::text[] IS NULL OR metric = ANY (%(metrics)s))
ORDER BY device_id, metric;

-- name: read_raw_asc
-- A page of the account's readings, oldest first; {other} holds some of them while a move is open.
-- A page's worth of each series is taken from the index, so a long range costs no more than a short.
-- Where a mixed series has one time in both tables, the number comes first.
SELECT time, series_id, number, text FROM (
    SELECT r.time, s.id AS series_id, r.value AS number, NULL AS text
    FROM unnest(%(series)s::int[]) AS s (id) CROSS JOIN LATERAL (
        SELECT time, value FROM {tier}
        WHERE account_id = %(account)s AND series_id = s.id
          AND time >= greatest(%(from)s, %(after_time)s::timestamptz) AND time < %(to)s
          AND (%(after_time)s::timestamptz IS NULL OR (time, s.id) > (%(after_time)s, %(after_series)s))
        ORDER BY time LIMIT %(limit)s
    ) AS r
    UNION ALL
    SELECT r.time, s.id AS series_id, NULL, r.value
    FROM unnest(%(texts)s::int[]) AS s (id) CROSS JOIN LATERAL (
        SELECT time, value FROM {tier_text}
        WHERE account_id = %(account)s AND series_id = s.id
          AND time >= greatest(%(from)s, %(after_time)s::timestamptz) AND time < %(to)s
          AND (%(after_time)s::timestamptz IS NULL OR (time, s.id) > (%(after_time)s, %(after_series)s))
        ORDER BY time LIMIT %(limit)s
    ) AS r
    UNION ALL
    SELECT r.time, s.id AS series_id, r.value, NULL
    FROM unnest(%(series)s::int[]) AS s (id) CROSS JOIN LATERAL (
        SELECT time, value FROM {other}
        WHERE %(moving)s AND account_id = %(account)s AND series_id = s.id
          AND time >= greatest(%(from)s, %(after_time)s::timestamptz) AND time < %(to)s
          AND (%(after_time)s::timestamptz IS NULL OR (time, s.id) > (%(after_time)s, %(after_series)s))
        ORDER BY time LIMIT %(limit)s
    ) AS r
    UNION ALL
    SELECT r.time, s.id AS series_id, NULL, r.value
    FROM unnest(%(texts)s::int[]) AS s (id) CROSS JOIN LATERAL (
        SELECT time, value FROM {other_text}
        WHERE %(moving)s AND account_id = %(account)s AND series_id = s.id
          AND time >= greatest(%(from)s, %(after_time)s::timestamptz) AND time < %(to)s
          AND (%(after_time)s::timestamptz IS NULL OR (time, s.id) > (%(after_time)s, %(after_series)s))
        ORDER BY time LIMIT %(limit)s
    ) AS r
) AS reading
ORDER BY time, series_id, number
LIMIT %(limit)s;

-- name: read_raw_desc
-- The same of the account's readings, newest first.
SELECT time, series_id, number, text FROM (
    SELECT r.time, s.id AS series_id, r.value AS number, NULL AS text
    FROM unnest(%(series)s::int[]) AS s (id) CROSS JOIN LATERAL (
        SELECT time, value FROM {tier}
        WHERE account_id = %(account)s AND series_id = s.id
          AND time >= %(from)s AND time < %(to)s
          AND time <= coalesce(%(after_time)s::timestamptz, 'infinity')
          AND (%(after_time)s::timestamptz IS NULL OR (time, s.id) < (%(after_time)s, %(after_series)s))
        ORDER BY time DESC LIMIT %(limit)s
    ) AS r
    UNION ALL
    SELECT r.time, s.id AS series_id, NULL, r.value
    FROM unnest(%(texts)s::int[]) AS s (id) CROSS JOIN LATERAL (
        SELECT time, value FROM {tier_text}
        WHERE account_id = %(account)s AND series_id = s.id
          AND time >= %(from)s AND time < %(to)s
          AND time <= coalesce(%(after_time)s::timestamptz, 'infinity')
          AND (%(after_time)s::timestamptz IS NULL OR (time, s.id) < (%(after_time)s, %(after_series)s))
        ORDER BY time DESC LIMIT %(limit)s
    ) AS r
    UNION ALL
    SELECT r.time, s.id AS series_id, r.value, NULL
    FROM unnest(%(series)s::int[]) AS s (id) CROSS JOIN LATERAL (
        SELECT time, value FROM {other}
        WHERE %(moving)s AND account_id = %(account)s AND series_id = s.id
          AND time >= %(from)s AND time < %(to)s
          AND time <= coalesce(%(after_time)s::timestamptz, 'infinity')
          AND (%(after_time)s::timestamptz IS NULL OR (time, s.id) < (%(after_time)s, %(after_series)s))
        ORDER BY time DESC LIMIT %(limit)s
    ) AS r
    UNION ALL
    SELECT r.time, s.id AS series_id, NULL, r.value
    FROM unnest(%(texts)s::int[]) AS s (id) CROSS JOIN LATERAL (
        SELECT time, value FROM {other_text}
        WHERE %(moving)s AND account_id = %(account)s AND series_id = s.id
          AND time >= %(from)s AND time < %(to)s
          AND time <= coalesce(%(after_time)s::timestamptz, 'infinity')
          AND (%(after_time)s::timestamptz IS NULL OR (time, s.id) < (%(after_time)s, %(after_series)s))
        ORDER BY time DESC LIMIT %(limit)s
    ) AS r
) AS reading
ORDER BY time DESC, series_id DESC, number
LIMIT %(limit)s;

-- name: read_buckets
-- Aggregates of the account's numbers and booleans over buckets of one length, oldest first.
SELECT * FROM (
    SELECT time_bucket(make_interval(secs => %(bucket)s), time) AS time, series_id,
           avg(value) AS avg, min(value) AS min, max(value) AS max, count(*) AS count
    FROM (
        SELECT time, series_id, value FROM {tier}
        WHERE account_id = %(account)s AND series_id = ANY (%(series)s) AND time >= greatest(%(from)s, %(after_time)s::timestamptz) AND time < %(to)s
        UNION ALL
        SELECT time, series_id, value FROM {other}
        WHERE %(moving)s AND account_id = %(account)s AND series_id = ANY (%(series)s) AND time >= greatest(%(from)s, %(after_time)s::timestamptz) AND time < %(to)s
    ) AS reading
    GROUP BY 1, 2
) AS bucket
WHERE %(after_time)s::timestamptz IS NULL OR (time, series_id) > (%(after_time)s, %(after_series)s)
ORDER BY time, series_id
LIMIT %(limit)s;

-- name: read_latest
-- The newest reading of each of the account's series, one look into the index each.
SELECT s.id AS series_id, l.time, l.number, l.text
FROM unnest(%(series)s::int[]) AS s (id)
CROSS JOIN LATERAL (
    (SELECT time, value AS number, NULL AS text FROM {tier}
     WHERE account_id = %(account)s AND series_id = s.id AND time >= %(from)s ORDER BY time DESC LIMIT 1)
    UNION ALL
    (SELECT time, NULL, value FROM {tier_text}
     WHERE account_id = %(account)s AND series_id = s.id AND time >= %(from)s ORDER BY time DESC LIMIT 1)
    UNION ALL
    (SELECT time, value, NULL FROM {other}
     WHERE %(moving)s AND account_id = %(account)s AND series_id = s.id AND time >= %(from)s ORDER BY time DESC LIMIT 1)
    UNION ALL
    (SELECT time, NULL, value FROM {other_text}
     WHERE %(moving)s AND account_id = %(account)s AND series_id = s.id AND time >= %(from)s ORDER BY time DESC LIMIT 1)
    ORDER BY time DESC, number LIMIT 1
) AS l;
