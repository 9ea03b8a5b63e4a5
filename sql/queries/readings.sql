-- Each query that reads readings takes its series only while the account's tiers are those the query
-- was made for: they and the readings are of one snapshot then, however the query is run. No row
-- means that there is none, or that a move began or ended: `source.py` looks which.

-- name: reading_state
-- Where the account's readings stand at this moment, and how far back they may be read.
SELECT account.tier, account.moving_from, account.readable_from, tier.retention
FROM account JOIN tier ON tier.name = account.tier
WHERE account.id = %(account)s;

-- name: read_series
-- Which of the named devices are the account's own, and their series, as arrays: many series cost far
-- less than as rows.
SELECT (SELECT array_agg(id) FROM device WHERE account_id = %(account)s AND id = ANY (%(devices)s)),
       array_agg(id), array_agg(device_id), array_agg(metric), array_agg(kind), array_agg(unit),
       array_agg(mixed)
FROM (
    SELECT id, device_id, metric, kind, unit, mixed FROM series
    WHERE account_id = %(account)s AND device_id = ANY (%(devices)s)
      AND (%(metrics)s::text[] IS NULL OR metric = ANY (%(metrics)s))
    ORDER BY device_id, metric
) AS found;

-- name: read_metric_asc
-- A page of one metric of one of the account's devices, oldest first, where it holds nothing but
-- numbers or booleans and stands in one tier; its series is looked up on the way.
SELECT r.time, s.id, r.value, s.kind
FROM series AS s CROSS JOIN LATERAL (
    SELECT time, value FROM {tier}
    WHERE account_id = %(account)s AND series_id = s.id
      AND time >= greatest(%(from)s, %(after_time)s::timestamptz) AND time < %(to)s
      AND (%(after_time)s::timestamptz IS NULL OR (time, s.id) > (%(after_time)s, %(after_series)s))
    ORDER BY time LIMIT %(limit)s
) AS r
WHERE s.account_id = %(account)s AND s.device_id = %(device)s AND s.metric = %(metric)s
  AND s.kind <> 'text' AND NOT s.mixed
  AND (SELECT true FROM account WHERE id = %(account)s AND tier = %(tier)s AND moving_from IS NULL)
ORDER BY r.time;

-- name: read_metric_desc
-- The same of the account's device, newest first.
SELECT r.time, s.id, r.value, s.kind
FROM series AS s CROSS JOIN LATERAL (
    SELECT time, value FROM {tier}
    WHERE account_id = %(account)s AND series_id = s.id
      AND time >= %(from)s AND time < %(to)s
      AND time <= coalesce(%(after_time)s::timestamptz, 'infinity')
      AND (%(after_time)s::timestamptz IS NULL OR (time, s.id) < (%(after_time)s, %(after_series)s))
    ORDER BY time DESC LIMIT %(limit)s
) AS r
WHERE s.account_id = %(account)s AND s.device_id = %(device)s AND s.metric = %(metric)s
  AND s.kind <> 'text' AND NOT s.mixed
  AND (SELECT true FROM account WHERE id = %(account)s AND tier = %(tier)s AND moving_from IS NULL)
ORDER BY r.time DESC;

-- name: read_numbers_asc
-- A page of the account's numbers and booleans, oldest first, where they stand in one tier.
SELECT r.time, s.id AS series_id, r.value, NULL
FROM unnest((SELECT %(series)s::int[] FROM account WHERE id = %(account)s AND tier = %(tier)s
            AND moving_from IS NOT DISTINCT FROM %(moving_from)s)) AS s (id) CROSS JOIN LATERAL (
    SELECT time, value FROM {tier}
    WHERE account_id = %(account)s AND series_id = s.id
      AND time >= greatest(%(from)s, %(after_time)s::timestamptz) AND time < %(to)s
      AND (%(after_time)s::timestamptz IS NULL OR (time, s.id) > (%(after_time)s, %(after_series)s))
    ORDER BY time LIMIT %(limit)s
) AS r
ORDER BY r.time, s.id
LIMIT %(limit)s;

-- name: read_numbers_desc
-- The same of the account's readings, newest first.
SELECT r.time, s.id AS series_id, r.value, NULL
FROM unnest((SELECT %(series)s::int[] FROM account WHERE id = %(account)s AND tier = %(tier)s
            AND moving_from IS NOT DISTINCT FROM %(moving_from)s)) AS s (id) CROSS JOIN LATERAL (
    SELECT time, value FROM {tier}
    WHERE account_id = %(account)s AND series_id = s.id
      AND time >= %(from)s AND time < %(to)s
      AND time <= coalesce(%(after_time)s::timestamptz, 'infinity')
      AND (%(after_time)s::timestamptz IS NULL OR (time, s.id) < (%(after_time)s, %(after_series)s))
    ORDER BY time DESC LIMIT %(limit)s
) AS r
ORDER BY r.time DESC, s.id DESC
LIMIT %(limit)s;

-- name: read_number_columns
-- The same page of the account's readings as three arrays: rows would cost their reader more.
SELECT array_agg(time), array_agg(series_id), array_agg(value) FROM (
    SELECT r.time, s.id AS series_id, r.value
    FROM unnest((SELECT %(series)s::int[] FROM account WHERE id = %(account)s AND tier = %(tier)s
            AND moving_from IS NOT DISTINCT FROM %(moving_from)s)) AS s (id) CROSS JOIN LATERAL (
        SELECT time, value FROM {tier}
        WHERE account_id = %(account)s AND series_id = s.id
          AND time >= greatest(%(from)s, %(after_time)s::timestamptz) AND time < %(to)s
          AND (%(after_time)s::timestamptz IS NULL OR (time, s.id) > (%(after_time)s, %(after_series)s))
        ORDER BY time LIMIT %(limit)s
    ) AS r
    ORDER BY r.time, s.id
    LIMIT %(limit)s
) AS page;

-- name: read_raw_asc
-- A page of the account's readings, oldest first; {other} holds some of them while a move is open.
-- A page's worth of each series is taken from the index, so a long range costs no more than a short.
-- Where a mixed series has one time in both tables, the number comes first.
SELECT time, series_id, number, text FROM (
    SELECT r.time, s.id AS series_id, r.value AS number, NULL AS text
    FROM unnest((SELECT %(series)s::int[] FROM account WHERE id = %(account)s AND tier = %(tier)s
            AND moving_from IS NOT DISTINCT FROM %(moving_from)s)) AS s (id) CROSS JOIN LATERAL (
        SELECT time, value FROM {tier}
        WHERE account_id = %(account)s AND series_id = s.id
          AND time >= greatest(%(from)s, %(after_time)s::timestamptz) AND time < %(to)s
          AND (%(after_time)s::timestamptz IS NULL OR (time, s.id) > (%(after_time)s, %(after_series)s))
        ORDER BY time LIMIT %(limit)s
    ) AS r
    UNION ALL
    SELECT r.time, s.id AS series_id, NULL, r.value
    FROM unnest((SELECT %(texts)s::int[] FROM account WHERE id = %(account)s AND tier = %(tier)s
            AND moving_from IS NOT DISTINCT FROM %(moving_from)s)) AS s (id) CROSS JOIN LATERAL (
        SELECT time, value FROM {tier_text}
        WHERE account_id = %(account)s AND series_id = s.id
          AND time >= greatest(%(from)s, %(after_time)s::timestamptz) AND time < %(to)s
          AND (%(after_time)s::timestamptz IS NULL OR (time, s.id) > (%(after_time)s, %(after_series)s))
        ORDER BY time LIMIT %(limit)s
    ) AS r
    UNION ALL
    SELECT r.time, s.id AS series_id, r.value, NULL
    FROM unnest((SELECT %(series)s::int[] FROM account WHERE id = %(account)s AND tier = %(tier)s
            AND moving_from IS NOT DISTINCT FROM %(moving_from)s)) AS s (id) CROSS JOIN LATERAL (
        SELECT time, value FROM {other}
        WHERE %(moving)s AND time >= %(readable_from)s AND account_id = %(account)s AND series_id = s.id
          AND time >= greatest(%(from)s, %(after_time)s::timestamptz) AND time < %(to)s
          AND (%(after_time)s::timestamptz IS NULL OR (time, s.id) > (%(after_time)s, %(after_series)s))
        ORDER BY time LIMIT %(limit)s
    ) AS r
    UNION ALL
    SELECT r.time, s.id AS series_id, NULL, r.value
    FROM unnest((SELECT %(texts)s::int[] FROM account WHERE id = %(account)s AND tier = %(tier)s
            AND moving_from IS NOT DISTINCT FROM %(moving_from)s)) AS s (id) CROSS JOIN LATERAL (
        SELECT time, value FROM {other_text}
        WHERE %(moving)s AND time >= %(readable_from)s AND account_id = %(account)s AND series_id = s.id
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
    FROM unnest((SELECT %(series)s::int[] FROM account WHERE id = %(account)s AND tier = %(tier)s
            AND moving_from IS NOT DISTINCT FROM %(moving_from)s)) AS s (id) CROSS JOIN LATERAL (
        SELECT time, value FROM {tier}
        WHERE account_id = %(account)s AND series_id = s.id
          AND time >= %(from)s AND time < %(to)s
          AND time <= coalesce(%(after_time)s::timestamptz, 'infinity')
          AND (%(after_time)s::timestamptz IS NULL OR (time, s.id) < (%(after_time)s, %(after_series)s))
        ORDER BY time DESC LIMIT %(limit)s
    ) AS r
    UNION ALL
    SELECT r.time, s.id AS series_id, NULL, r.value
    FROM unnest((SELECT %(texts)s::int[] FROM account WHERE id = %(account)s AND tier = %(tier)s
            AND moving_from IS NOT DISTINCT FROM %(moving_from)s)) AS s (id) CROSS JOIN LATERAL (
        SELECT time, value FROM {tier_text}
        WHERE account_id = %(account)s AND series_id = s.id
          AND time >= %(from)s AND time < %(to)s
          AND time <= coalesce(%(after_time)s::timestamptz, 'infinity')
          AND (%(after_time)s::timestamptz IS NULL OR (time, s.id) < (%(after_time)s, %(after_series)s))
        ORDER BY time DESC LIMIT %(limit)s
    ) AS r
    UNION ALL
    SELECT r.time, s.id AS series_id, r.value, NULL
    FROM unnest((SELECT %(series)s::int[] FROM account WHERE id = %(account)s AND tier = %(tier)s
            AND moving_from IS NOT DISTINCT FROM %(moving_from)s)) AS s (id) CROSS JOIN LATERAL (
        SELECT time, value FROM {other}
        WHERE %(moving)s AND time >= %(readable_from)s AND account_id = %(account)s AND series_id = s.id
          AND time >= %(from)s AND time < %(to)s
          AND time <= coalesce(%(after_time)s::timestamptz, 'infinity')
          AND (%(after_time)s::timestamptz IS NULL OR (time, s.id) < (%(after_time)s, %(after_series)s))
        ORDER BY time DESC LIMIT %(limit)s
    ) AS r
    UNION ALL
    SELECT r.time, s.id AS series_id, NULL, r.value
    FROM unnest((SELECT %(texts)s::int[] FROM account WHERE id = %(account)s AND tier = %(tier)s
            AND moving_from IS NOT DISTINCT FROM %(moving_from)s)) AS s (id) CROSS JOIN LATERAL (
        SELECT time, value FROM {other_text}
        WHERE %(moving)s AND time >= %(readable_from)s AND account_id = %(account)s AND series_id = s.id
          AND time >= %(from)s AND time < %(to)s
          AND time <= coalesce(%(after_time)s::timestamptz, 'infinity')
          AND (%(after_time)s::timestamptz IS NULL OR (time, s.id) < (%(after_time)s, %(after_series)s))
        ORDER BY time DESC LIMIT %(limit)s
    ) AS r
) AS reading
ORDER BY time DESC, series_id DESC, number
LIMIT %(limit)s;

-- name: read_buckets
-- Aggregates of the account's numbers and booleans, where they stand in one tier: buckets of one
-- length, or those that begin at `starts`. What is not asked for is not computed. Each series is
-- read in the order of its index, so buckets are complete one after the other: nothing is sorted or
-- hashed. The inner ORDER BY is what makes the planner do so.
SELECT b.bucket, s.id, b.count, b.sum, b.min, b.max, b.first, b.last
FROM unnest((SELECT %(series)s::int[] FROM account WHERE id = %(account)s AND tier = %(tier)s
            AND moving_from IS NOT DISTINCT FROM %(moving_from)s)) AS s (id) CROSS JOIN LATERAL (
    SELECT CASE WHEN %(starts)s::timestamptz[] IS NULL THEN time_bucket(%(width)s::interval, time, %(origin)s::timestamptz)
            ELSE (%(starts)s::timestamptz[])[width_bucket(time, %(starts)s::timestamptz[])] END AS bucket,
           count(*) AS count, sum(value) FILTER (WHERE %(sums)s) AS sum,
           min(value) FILTER (WHERE %(extremes)s) AS min, max(value) FILTER (WHERE %(extremes)s) AS max,
           first(value, time) FILTER (WHERE %(ends)s) AS first, last(value, time) FILTER (WHERE %(ends)s) AS last
    FROM {tier}
    WHERE account_id = %(account)s AND series_id = s.id AND time >= %(from)s AND time < %(to)s
    GROUP BY 1 ORDER BY 1
) AS b
WHERE %(after_time)s::timestamptz IS NULL
   OR CASE WHEN %(descending)s THEN (b.bucket, s.id) < (%(after_time)s, %(after_series)s)
           ELSE (b.bucket, s.id) > (%(after_time)s, %(after_series)s) END
ORDER BY CASE WHEN %(descending)s THEN b.bucket END DESC,
         CASE WHEN %(descending)s THEN s.id END DESC, b.bucket, s.id
LIMIT %(limit)s;

-- name: read_bucket_sums
-- The same of the account's readings where counts, sums and averages are all that is asked for.
SELECT b.bucket, s.id, b.count, b.sum
FROM unnest((SELECT %(series)s::int[] FROM account WHERE id = %(account)s AND tier = %(tier)s
            AND moving_from IS NOT DISTINCT FROM %(moving_from)s)) AS s (id) CROSS JOIN LATERAL (
    SELECT CASE WHEN %(starts)s::timestamptz[] IS NULL THEN time_bucket(%(width)s::interval, time, %(origin)s::timestamptz)
            ELSE (%(starts)s::timestamptz[])[width_bucket(time, %(starts)s::timestamptz[])] END AS bucket,
           count(*) AS count, sum(value) AS sum
    FROM {tier}
    WHERE account_id = %(account)s AND series_id = s.id AND time >= %(from)s AND time < %(to)s
    GROUP BY 1 ORDER BY 1
) AS b
WHERE %(after_time)s::timestamptz IS NULL
   OR CASE WHEN %(descending)s THEN (b.bucket, s.id) < (%(after_time)s, %(after_series)s)
           ELSE (b.bucket, s.id) > (%(after_time)s, %(after_series)s) END
ORDER BY CASE WHEN %(descending)s THEN b.bucket END DESC,
         CASE WHEN %(descending)s THEN s.id END DESC, b.bucket, s.id
LIMIT %(limit)s;

-- name: read_sorted_buckets
-- The same of the account's readings with percentiles, for which each bucket must be sorted.
SELECT b.bucket, s.id, b.count, b.sum, b.min, b.max, b.first, b.last, b.p50, b.p95
FROM unnest((SELECT %(series)s::int[] FROM account WHERE id = %(account)s AND tier = %(tier)s
            AND moving_from IS NOT DISTINCT FROM %(moving_from)s)) AS s (id) CROSS JOIN LATERAL (
    SELECT CASE WHEN %(starts)s::timestamptz[] IS NULL THEN time_bucket(%(width)s::interval, time, %(origin)s::timestamptz)
            ELSE (%(starts)s::timestamptz[])[width_bucket(time, %(starts)s::timestamptz[])] END AS bucket,
           count(*) AS count, sum(value) FILTER (WHERE %(sums)s) AS sum,
           min(value) FILTER (WHERE %(extremes)s) AS min, max(value) FILTER (WHERE %(extremes)s) AS max,
           first(value, time) FILTER (WHERE %(ends)s) AS first, last(value, time) FILTER (WHERE %(ends)s) AS last,
           percentile_cont(0.5) WITHIN GROUP (ORDER BY value) AS p50,
           percentile_cont(0.95) WITHIN GROUP (ORDER BY value) AS p95
    FROM {tier}
    WHERE account_id = %(account)s AND series_id = s.id AND time >= %(from)s AND time < %(to)s
    GROUP BY 1 ORDER BY 1
) AS b
WHERE %(after_time)s::timestamptz IS NULL
   OR CASE WHEN %(descending)s THEN (b.bucket, s.id) < (%(after_time)s, %(after_series)s)
           ELSE (b.bucket, s.id) > (%(after_time)s, %(after_series)s) END
ORDER BY CASE WHEN %(descending)s THEN b.bucket END DESC,
         CASE WHEN %(descending)s THEN s.id END DESC, b.bucket, s.id
LIMIT %(limit)s;

-- name: read_buckets_moving
-- The same of the account's readings while {other} holds some of them.
SELECT * FROM (
    SELECT CASE WHEN %(starts)s::timestamptz[] IS NULL THEN time_bucket(%(width)s::interval, time, %(origin)s::timestamptz)
            ELSE (%(starts)s::timestamptz[])[width_bucket(time, %(starts)s::timestamptz[])] END AS bucket,
           series_id, count(*),
           sum(value) FILTER (WHERE %(sums)s),
           min(value) FILTER (WHERE %(extremes)s), max(value) FILTER (WHERE %(extremes)s),
           first(value, time) FILTER (WHERE %(ends)s), last(value, time) FILTER (WHERE %(ends)s)
    FROM (
        SELECT time, series_id, value FROM {tier}
        WHERE account_id = %(account)s AND series_id = ANY ((SELECT %(series)s::int[] FROM account WHERE id = %(account)s AND tier = %(tier)s
            AND moving_from IS NOT DISTINCT FROM %(moving_from)s)::int[])
          AND time >= %(from)s AND time < %(to)s
        UNION ALL
        SELECT time, series_id, value FROM {other}
        WHERE %(moving)s AND time >= %(readable_from)s AND account_id = %(account)s AND series_id = ANY ((SELECT %(series)s::int[] FROM account WHERE id = %(account)s AND tier = %(tier)s
            AND moving_from IS NOT DISTINCT FROM %(moving_from)s)::int[])
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

-- name: read_sorted_buckets_moving
-- The same of the account's readings with percentiles.
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
        WHERE account_id = %(account)s AND series_id = ANY ((SELECT %(series)s::int[] FROM account WHERE id = %(account)s AND tier = %(tier)s
            AND moving_from IS NOT DISTINCT FROM %(moving_from)s)::int[])
          AND time >= %(from)s AND time < %(to)s
        UNION ALL
        SELECT time, series_id, value FROM {other}
        WHERE %(moving)s AND time >= %(readable_from)s AND account_id = %(account)s AND series_id = ANY ((SELECT %(series)s::int[] FROM account WHERE id = %(account)s AND tier = %(tier)s
            AND moving_from IS NOT DISTINCT FROM %(moving_from)s)::int[])
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
        WHERE account_id = %(account)s AND series_id = ANY ((SELECT %(series)s::int[] FROM account WHERE id = %(account)s AND tier = %(tier)s
            AND moving_from IS NOT DISTINCT FROM %(moving_from)s)::int[])
          AND time >= %(from)s AND time < %(to)s
        UNION ALL
        SELECT time, series_id, value FROM {other_text}
        WHERE %(moving)s AND time >= %(readable_from)s AND account_id = %(account)s AND series_id = ANY ((SELECT %(series)s::int[] FROM account WHERE id = %(account)s AND tier = %(tier)s
            AND moving_from IS NOT DISTINCT FROM %(moving_from)s)::int[])
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

-- name: read_latest_numbers
-- The newest reading of each of the account's series of numbers, where they stand in one tier.
SELECT s.id, l.time, l.value, NULL
FROM unnest((SELECT %(series)s::int[] FROM account WHERE id = %(account)s AND tier = %(tier)s
            AND moving_from IS NOT DISTINCT FROM %(moving_from)s)) AS s (id) CROSS JOIN LATERAL (
    SELECT time, value FROM {tier} WHERE account_id = %(account)s AND series_id = s.id
      AND time >= %(from)s AND time < %(to)s ORDER BY time DESC LIMIT 1
) AS l;

-- name: read_latest
-- The newest reading of each of the account's series, one look into the index each.
SELECT s.id, l.time, l.value AS number, NULL AS text
FROM unnest((SELECT %(series)s::int[] FROM account WHERE id = %(account)s AND tier = %(tier)s
            AND moving_from IS NOT DISTINCT FROM %(moving_from)s)) AS s (id) CROSS JOIN LATERAL (
    (SELECT time, value FROM {tier} WHERE account_id = %(account)s AND series_id = s.id
     AND time >= %(from)s AND time < %(to)s ORDER BY time DESC LIMIT 1)
    UNION ALL
    (SELECT time, value FROM {other} WHERE %(moving)s AND time >= %(readable_from)s AND account_id = %(account)s AND series_id = s.id
     AND time >= %(from)s AND time < %(to)s ORDER BY time DESC LIMIT 1)
    ORDER BY time DESC LIMIT 1
) AS l
UNION ALL
SELECT s.id, l.time, NULL, l.value
FROM unnest((SELECT %(texts)s::int[] FROM account WHERE id = %(account)s AND tier = %(tier)s
            AND moving_from IS NOT DISTINCT FROM %(moving_from)s)) AS s (id) CROSS JOIN LATERAL (
    (SELECT time, value FROM {tier_text} WHERE account_id = %(account)s AND series_id = s.id
     AND time >= %(from)s AND time < %(to)s ORDER BY time DESC LIMIT 1)
    UNION ALL
    (SELECT time, value FROM {other_text} WHERE %(moving)s AND time >= %(readable_from)s AND account_id = %(account)s AND series_id = s.id
     AND time >= %(from)s AND time < %(to)s ORDER BY time DESC LIMIT 1)
    ORDER BY time DESC LIMIT 1
) AS l;
