-- name: usage_by_device
-- Each of the account's devices over a stretch of hours.
SELECT device_id AS device, sum(messages)::bigint AS messages, sum(points)::bigint AS points,
       sum(bytes)::bigint AS bytes, sum(late)::bigint AS late, sum(duplicates)::bigint AS duplicates
FROM usage_hour
WHERE account_id = %(account)s AND hour >= %(from)s AND hour < %(to)s
  AND (%(devices)s::text[] IS NULL OR device_id = ANY (%(devices)s))
GROUP BY device_id ORDER BY device_id;

-- name: usage_by_span
-- The account's UTC days or months of receipt, newest first.
SELECT to_char(span, %(form)s) AS span, sum(messages)::bigint AS messages,
       sum(points)::bigint AS points, sum(bytes)::bigint AS bytes, sum(late)::bigint AS late,
       sum(duplicates)::bigint AS duplicates, sum(rejected)::bigint AS rejected
FROM (
    SELECT date_trunc(%(unit)s, hour AT TIME ZONE 'UTC') AS span,
           messages, points, bytes, late, duplicates, 0 AS rejected
    FROM usage_hour WHERE account_id = %(account)s AND hour >= %(from)s AND hour < %(to)s
      AND (%(devices)s::text[] IS NULL OR device_id = ANY (%(devices)s))
    UNION ALL
    SELECT date_trunc(%(unit)s, hour AT TIME ZONE 'UTC'), 0, 0, 0, 0, 0, points
    FROM rejection_hour WHERE account_id = %(account)s AND hour >= %(from)s AND hour < %(to)s
      AND (%(devices)s::text[] IS NULL OR device_id = ANY (%(devices)s))
) AS counted
GROUP BY counted.span ORDER BY counted.span DESC;

-- name: rejections_by_code
-- How many of the account's points were refused, for each code.
SELECT code, sum(points)::bigint AS points FROM rejection_hour
WHERE account_id = %(account)s AND hour >= %(from)s AND hour < %(to)s
  AND (%(devices)s::text[] IS NULL OR device_id = ANY (%(devices)s))
GROUP BY code ORDER BY code;

-- name: quota_used
-- What of the account's day counts against its plan, by all of its devices.
SELECT coalesce(sum(points - late), 0)::bigint AS used FROM usage_hour
WHERE account_id = %(account)s AND hour >= %(from)s AND hour < %(to)s;

-- name: late_left
-- The account's late bucket as the last flush left it.
SELECT late_left, late_at FROM allowance WHERE account_id = %(account)s;

-- name: rejection_hours
-- A page of the account's refusals, newest hour first.
SELECT device_id AS device, hour, code, points FROM rejection_hour
WHERE account_id = %(account)s
  AND (%(devices)s::text[] IS NULL OR device_id = ANY (%(devices)s))
  AND (%(code)s::text IS NULL OR code = %(code)s)
  AND (%(after_hour)s::timestamptz IS NULL OR hour < %(after_hour)s
       OR hour = %(after_hour)s AND (device_id, code) > (%(after_device)s, %(after_code)s))
ORDER BY hour DESC, device_id, code LIMIT %(limit)s;

-- name: rejection_examples
-- The examples of a page of the account's refusals.
SELECT r.device_id, r.hour, r.code, r.time, r.topic, r.metric, r.detail, r.payload, r.payload_bytes
FROM unnest(%(devices)s::text[], %(hours)s::timestamptz[], %(codes)s::text[])
    AS t (device_id, hour, code)
JOIN rejection AS r ON r.account_id = %(account)s AND r.device_id = t.device_id
    AND r.hour = t.hour AND r.code = t.code
ORDER BY r.id;

-- name: unscoped_forget_rejections
-- Examples have their time, whosesoever they are, and no longer than their account's tier.
DELETE FROM rejection USING account, tier
WHERE account.id = rejection.account_id AND tier.name = account.tier
  AND rejection.hour < %(now)s::timestamptz - least(%(kept)s::interval, tier.retention);

-- name: unscoped_quota_levels
-- Accounts of limited plans that passed a level of the day's points and were not warned of it yet.
SELECT allowance.account_id, passed.level, allowance.points AS used, quota.points AS quota
FROM allowance
JOIN account ON account.id = allowance.account_id
JOIN unnest(%(plans)s::text[], %(quotas)s::bigint[]) AS quota (plan, points)
    ON quota.plan = account.plan
CROSS JOIN unnest(%(levels)s::int[]) AS passed (level)
WHERE allowance.day = %(day)s AND allowance.points * 100 >= quota.points * passed.level
  AND NOT EXISTS (SELECT FROM usage_warning AS warned WHERE warned.account_id = allowance.account_id
                  AND warned.day = %(day)s AND warned.level = passed.level)
ORDER BY allowance.account_id, passed.level;

-- name: note_quota_warning
-- Nothing comes back where the account was warned of this level of the day already.
INSERT INTO usage_warning (account_id, day, level) VALUES (%(account)s, %(day)s, %(level)s)
ON CONFLICT DO NOTHING RETURNING level;

-- name: unscoped_forget_warnings
-- Whom was warned on days long past.
DELETE FROM usage_warning WHERE day < %(before)s;

-- name: add_requests
-- What a process counted in the last seconds; in one order, so that processes do not deadlock. An
-- account_id that is gone is left out.
INSERT INTO api_usage_day AS u (account_id, day, key_id, requests, bytes_in, bytes_out)
SELECT c.account_id, c.day, c.key_id, c.requests, c.bytes_in, c.bytes_out
FROM unnest(%(accounts)s::int[], %(days)s::date[], %(keys)s::int[], %(requests)s::bigint[],
            %(bytes_in)s::bigint[], %(bytes_out)s::bigint[])
    AS c (account_id, day, key_id, requests, bytes_in, bytes_out)
JOIN account ON account.id = c.account_id
ORDER BY c.account_id, c.day, c.key_id
ON CONFLICT (account_id, day, key_id) DO UPDATE SET
    requests = u.requests + excluded.requests,
    bytes_in = u.bytes_in + excluded.bytes_in,
    bytes_out = u.bytes_out + excluded.bytes_out;

-- name: requests_by_key
-- The account's API usage of one UTC day; a deleted key has no name any more.
SELECT nullif(u.key_id, 0) AS key, k.name, u.requests, u.bytes_in, u.bytes_out
FROM api_usage_day AS u
LEFT JOIN api_key AS k ON k.id = u.key_id AND k.account_id = u.account_id
WHERE u.account_id = %(account)s AND u.day = %(today)s
  AND (%(key)s::int IS NULL OR u.key_id = %(key)s)
ORDER BY u.key_id;

-- name: requests_by_day
-- The account's API usage of the UTC days before, newest first.
SELECT to_char(day, 'YYYY-MM-DD') AS day, sum(requests)::bigint AS requests,
       sum(bytes_in)::bigint AS bytes_in, sum(bytes_out)::bigint AS bytes_out
FROM api_usage_day
WHERE account_id = %(account)s AND day >= %(since)s AND day < %(today)s
  AND (%(key)s::int IS NULL OR key_id = %(key)s)
GROUP BY api_usage_day.day ORDER BY api_usage_day.day DESC;
