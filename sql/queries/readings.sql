-- name: reading_state
-- Where the account's readings stand at this moment, and how far back they may be read.
SELECT account.tier, account.moving_from, account.readable_from, tier.retention
FROM account JOIN tier ON tier.name = account.tier
WHERE account.id = %(account)s;

-- name: read_series
-- Some of the account's devices with their series; a device without any has one row of nulls. The
-- first row says besides where the account's readings stand, which spares a statement.
SELECT found.device_id, found.id, found.metric, found.kind, found.unit, found.mixed,
       account.tier, account.moving_from, account.readable_from, tier.retention
FROM (
    SELECT device.id AS device_id, series.id, metric, kind, unit, mixed,
           row_number() OVER (ORDER BY device.id, metric) AS place
    FROM device LEFT JOIN series
      ON series.device_id = device.id AND series.account_id = device.account_id
     AND (%(metrics)s::text[] IS NULL OR metric = ANY (%(metrics)s))
    WHERE device.account_id = %(account)s AND device.id = ANY (%(devices)s)
) AS found
LEFT JOIN (account JOIN tier ON tier.name = account.tier)
  ON found.place = 1 AND account.id = %(account)s
ORDER BY found.place;

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
-- Aggregates of the account's numbers and booleans: buckets of one length, or those that begin at
-- `starts`. What is not asked for is not computed.
SELECT * FROM (
    SELECT CASE WHEN %(starts)s::timestamptz[] IS NULL THEN time_bucket(%(width)s::interval, time, %(origin)s::timestamptz)
            ELSE (%(starts)s::timestamptz[])[width_bucket(time, %(starts)s::timestamptz[])] END AS bucket,
           series_id, count(*),
           sum(value) FILTER (WHERE %(sums)s),
           min(value) FILTER (WHERE %(extremes)s), max(value) FILTER (WHERE %(extremes)s),
           first(value, time) FILTER (WHERE %(ends)s), last(value, time) FILTER (WHERE %(ends)s)
    FROM (
        SELECT time, series_id, value FROM {tier}
        WHERE account_id = %(account)s AND series_id = ANY (%(series)s::int[])
          AND time >= %(from)s AND time < %(to)s
        UNION ALL
        SELECT time, series_id, value FROM {other}
        WHERE %(moving)s AND account_id = %(account)s AND series_id = ANY (%(series)s::int[])
          AND time >= %(from)s AND time < %(to)s
    ) AS reading
    GROUP BY 1, 2
) AS bucket
WHERE %(after_time)s::timestamptz IS NULL
   OR CASE WHEN %(descending)s THEN (bucket, series_id) < (%(after_time)s, %(after_series)s)
           ELSE (bucket, series_id) > (%(after_time)s, %(after_series)s) END
ORDER BY CASE WHEN %(descending)s THEN bucket END DESC,
         CASE WHEN %(descending)s THEN series_id END DESC, bucket, series_id
LIMIT %(limit)s;

-- name: read_sorted_buckets
-- The same of the account's readings with percentiles, for which each bucket must be sorted.
SELECT * FROM (
    SELECT CASE WHEN %(starts)s::timestamptz[] IS NULL THEN time_bucket(%(width)s::interval, time, %(origin)s::timestamptz)
            ELSE (%(starts)s::timestamptz[])[width_bucket(time, %(starts)s::timestamptz[])] END AS bucket,
           series_id, count(*),
           sum(value) FILTER (WHERE %(sums)s),
           min(value) FILTER (WHERE %(extremes)s), max(value) FILTER (WHERE %(extremes)s),
           first(value, time) FILTER (WHERE %(ends)s), last(value, time) FILTER (WHERE %(ends)s),
           percentile_cont(0.5) WITHIN GROUP (ORDER BY value),
           percentile_cont(0.95) WITHIN GROUP (ORDER BY value)
    FROM (
        SELECT time, series_id, value FROM {tier}
        WHERE account_id = %(account)s AND series_id = ANY (%(series)s::int[])
          AND time >= %(from)s AND time < %(to)s
        UNION ALL
        SELECT time, series_id, value FROM {other}
        WHERE %(moving)s AND account_id = %(account)s AND series_id = ANY (%(series)s::int[])
          AND time >= %(from)s AND time < %(to)s
    ) AS reading
    GROUP BY 1, 2
) AS bucket
WHERE %(after_time)s::timestamptz IS NULL
   OR CASE WHEN %(descending)s THEN (bucket, series_id) < (%(after_time)s, %(after_series)s)
           ELSE (bucket, series_id) > (%(after_time)s, %(after_series)s) END
ORDER BY CASE WHEN %(descending)s THEN bucket END DESC,
         CASE WHEN %(descending)s THEN series_id END DESC, bucket, series_id
LIMIT %(limit)s;

-- name: read_text_buckets
-- What there is of the account's texts: neither order nor sums.
SELECT * FROM (
    SELECT CASE WHEN %(starts)s::timestamptz[] IS NULL THEN time_bucket(%(width)s::interval, time, %(origin)s::timestamptz)
            ELSE (%(starts)s::timestamptz[])[width_bucket(time, %(starts)s::timestamptz[])] END AS bucket,
           series_id, count(*), NULL::float8, NULL::float8, NULL::float8,
           first(value, time) FILTER (WHERE %(ends)s), last(value, time) FILTER (WHERE %(ends)s)
    FROM (
        SELECT time, series_id, value FROM {tier_text}
        WHERE account_id = %(account)s AND series_id = ANY (%(series)s::int[])
          AND time >= %(from)s AND time < %(to)s
        UNION ALL
        SELECT time, series_id, value FROM {other_text}
        WHERE %(moving)s AND account_id = %(account)s AND series_id = ANY (%(series)s::int[])
          AND time >= %(from)s AND time < %(to)s
    ) AS reading
    GROUP BY 1, 2
) AS bucket
WHERE %(after_time)s::timestamptz IS NULL
   OR CASE WHEN %(descending)s THEN (bucket, series_id) < (%(after_time)s, %(after_series)s)
           ELSE (bucket, series_id) > (%(after_time)s, %(after_series)s) END
ORDER BY CASE WHEN %(descending)s THEN bucket END DESC,
         CASE WHEN %(descending)s THEN series_id END DESC, bucket, series_id
LIMIT %(limit)s;

-- name: read_latest
-- The newest reading of each of the account's series, one look into the index each.
SELECT s.id, l.time, l.value AS number, NULL AS text
FROM unnest(%(series)s::int[]) AS s (id) CROSS JOIN LATERAL (
    (SELECT time, value FROM {tier} WHERE account_id = %(account)s AND series_id = s.id
     AND time >= %(from)s AND time < %(to)s ORDER BY time DESC LIMIT 1)
    UNION ALL
    (SELECT time, value FROM {other} WHERE %(moving)s AND account_id = %(account)s AND series_id = s.id
     AND time >= %(from)s AND time < %(to)s ORDER BY time DESC LIMIT 1)
    ORDER BY time DESC LIMIT 1
) AS l
UNION ALL
SELECT s.id, l.time, NULL, l.value
FROM unnest(%(texts)s::int[]) AS s (id) CROSS JOIN LATERAL (
    (SELECT time, value FROM {tier_text} WHERE account_id = %(account)s AND series_id = s.id
     AND time >= %(from)s AND time < %(to)s ORDER BY time DESC LIMIT 1)
    UNION ALL
    (SELECT time, value FROM {other_text} WHERE %(moving)s AND account_id = %(account)s AND series_id = s.id
     AND time >= %(from)s AND time < %(to)s ORDER BY time DESC LIMIT 1)
    ORDER BY time DESC LIMIT 1
) AS l;
