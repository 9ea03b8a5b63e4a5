-- name: unscoped_usage_by_account
-- The operator's view of what every account used since a day.
SELECT account_id, email, plan, sum(messages)::bigint AS messages, sum(points)::bigint AS points,
       sum(late)::bigint AS late, sum(duplicates)::bigint AS duplicates, sum(bytes)::bigint AS bytes,
       sum(rejected)::bigint AS rejected
FROM admin.usage WHERE day >= %(since)s
GROUP BY account_id, email, plan ORDER BY points DESC, account_id;

-- name: unscoped_retention
-- Every tier's policy and its oldest reading; no tenant's data.
SELECT tier, extract(epoch FROM retention)::bigint / 86400 AS retention_days, retention_by,
       oldest_reading, round(extract(epoch FROM age) / 86400, 2)::float8 AS age_days, overdue,
       policies, last_success, failures
FROM admin.retention ORDER BY tier;

-- name: unscoped_largest_devices
-- The devices of any account that sent the most.
SELECT device_id, thing_name, account_id, email, points, messages, bytes, series
FROM admin.largest_devices(make_interval(days => %(days)s), %(limit)s);

-- name: unscoped_largest_tables
-- What fills the disk; no tenant's data.
SELECT table_name, chunks, table_bytes, index_bytes, bytes FROM admin.sizes
ORDER BY bytes DESC, table_name LIMIT %(limit)s;

-- name: unscoped_ingest_hours
-- The operator's view of what all accounts sent by hour, from the counters.
SELECT hour, sum(messages)::bigint AS messages, sum(points)::bigint AS points
FROM usage_hour WHERE hour >= %(since)s GROUP BY hour ORDER BY hour DESC;

-- name: unscoped_job_failures
-- Jobs of any account that failed or are tried again, without what they carry.
SELECT queue, id, job, status, failures, at FROM admin.job_failures
ORDER BY at DESC NULLS LAST, id LIMIT %(limit)s;

-- name: unscoped_silence
-- When each account's newest fresh reading was received; not the reading.
SELECT account_id, received_at, devices FROM admin.ingest_lag;
