-- name: erase_readings
-- A deleted device's or metric's readings, or a range of them; one stretch of time at a time, of
-- the account alone.
DELETE FROM {readings} WHERE account_id = %(account)s AND series_id = ANY (%(series)s)
AND time >= %(from)s AND time < %(to)s;

-- name: oldest_of_series
-- Where an erasure has got to: one look into the index for each of the series.
SELECT min(first.time) AS time
FROM unnest(%(series)s::int[]) AS s (id) CROSS JOIN LATERAL (
    SELECT time FROM {readings} WHERE account_id = %(account)s AND series_id = s.id
      AND time >= coalesce(%(from)s::timestamptz, '-infinity')
      AND time < coalesce(%(to)s::timestamptz, 'infinity')
    ORDER BY time LIMIT 1
) AS first;

-- name: count_of_series
-- How many readings a stretch of time holds of the account's series; counting ends at the limit.
SELECT count(*) AS rows FROM (
    SELECT FROM {readings} WHERE account_id = %(account)s AND series_id = ANY (%(series)s)
    AND time >= %(from)s AND time < %(to)s LIMIT %(limit)s
) AS counted;
