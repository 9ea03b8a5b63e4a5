-- name: unscoped_oldest_kept
-- Of everything that has a period, whosesoever: since when the oldest of it ages. Nothing else of it.
-- period names the register's; retention is the tier's where what is kept may hold readings. Of what
-- is counted by the day, its end.
SELECT 'account' AS table_name, 'registrations nobody confirmed' AS part, 'unconfirmed' AS period,
       NULL::interval AS retention, min(created_at) AS oldest
FROM account WHERE email_verified_at IS NULL
  AND NOT EXISTS (SELECT FROM device WHERE device.account_id = account.id)
UNION ALL
SELECT 'session', 'that ended', 'security', NULL, min(coalesce(ended_at, expires_at)) FROM session
UNION ALL
SELECT 'session', 'ip and agent', 'security', NULL, min(created_at) FROM session
WHERE ip IS NOT NULL OR agent IS NOT NULL
UNION ALL
SELECT 'api_key', 'last_used_ip', 'security', NULL, min(last_used_at) FROM api_key
WHERE last_used_ip IS NOT NULL
UNION ALL
SELECT 'device', 'connection_ip', 'security', NULL, min(connection_since) FROM device
WHERE connection_ip IS NOT NULL AND connection <> 'online'
UNION ALL
SELECT 'device', 'secret_used_ip', 'security', NULL, min(secret_used_at) FROM device
WHERE secret_used_ip IS NOT NULL
UNION ALL
SELECT 'device_event', '', 'security', NULL, min(time) FROM device_event
UNION ALL
SELECT 'notice', 'about security', 'security', NULL, min(created_at) FROM notice
WHERE kind = 'security'
UNION ALL
SELECT 'notice', 'others', 'notices', NULL, min(created_at) FROM notice
WHERE kind NOT IN ('security', 'device')
UNION ALL
SELECT 'notice', 'about devices, tier ' || tier.name, 'notices', tier.retention, min(kept.created_at)
FROM tier LEFT JOIN account ON account.tier = tier.name
LEFT JOIN notice AS kept ON kept.account_id = account.id AND kept.kind = 'device'
GROUP BY tier.name
UNION ALL
SELECT 'alert', 'that ended, tier ' || tier.name, 'alerts', tier.retention, min(kept.resolved_at)
FROM tier LEFT JOIN account ON account.tier = tier.name
LEFT JOIN alert AS kept ON kept.account_id = account.id AND kept.state = 'resolved'
GROUP BY tier.name
UNION ALL
SELECT 'alert', 'values of those that last, tier ' || tier.name, NULL, tier.retention,
       min(kept.fired_at)
FROM tier LEFT JOIN account ON account.tier = tier.name
LEFT JOIN alert AS kept ON kept.account_id = account.id AND kept.state = 'firing'
                       AND kept.value IS NOT NULL
GROUP BY tier.name
UNION ALL
SELECT 'rejection', 'tier ' || tier.name, 'rejections', tier.retention, min(kept.time)
FROM tier LEFT JOIN account ON account.tier = tier.name
LEFT JOIN rejection AS kept ON kept.account_id = account.id
GROUP BY tier.name
UNION ALL
SELECT 'rejection_hour', '', 'usage', NULL, min(hour) FROM rejection_hour
UNION ALL
SELECT 'usage_hour', '', 'usage', NULL, min(hour) FROM usage_hour
UNION ALL
SELECT 'api_usage_day', '', 'usage', NULL, (min(day) + 1)::timestamptz FROM api_usage_day
UNION ALL
SELECT 'usage_warning', '', 'quota_warnings', NULL, (min(day) + 1)::timestamptz FROM usage_warning
UNION ALL
SELECT 'mail_day', '', 'deliveries', NULL, (min(day) + 1)::timestamptz FROM mail_day
UNION ALL
SELECT 'delivery', '', 'deliveries', NULL, min(created_at) FROM delivery
UNION ALL
SELECT 'stripe_event', '', 'stripe_events', NULL, min(received_at) FROM stripe_event
UNION ALL
SELECT 'export', 'records', 'export_records', NULL, min(created_at) FROM export
WHERE status IN ('failed', 'expired')
UNION ALL
SELECT 'export', 'archives', 'expires', NULL, min(expires_at) FROM export WHERE status = 'ready'
UNION ALL
SELECT 'erasure', 'mail_to', 'receipt_addresses', NULL, min(finished_at) FROM erasure
WHERE mail_to IS NOT NULL
UNION ALL
SELECT over.name, '', 'failed_jobs', NULL, min(job.newest)
FROM (VALUES ('procrastinate_jobs'), ('procrastinate_events')) AS over (name) LEFT JOIN (
    SELECT max(event.at) AS newest FROM procrastinate_jobs AS job
    JOIN procrastinate_events AS event ON event.job_id = job.id
    WHERE job.status IN ('failed', 'aborted', 'cancelled', 'succeeded') GROUP BY job.id
) AS job ON true
GROUP BY over.name
UNION ALL
SELECT 'job_error', '', 'failed_jobs', NULL, min(at) FROM job_error
UNION ALL
SELECT 'directory_change', '', 'security', NULL, min(at) FROM directory_change WHERE account_id <> 0
UNION ALL
SELECT 'privacy_check', '', 'privacy_checks', NULL, min(at) FROM privacy_check
UNION ALL
SELECT 'account_token', '', 'expires', NULL, min(expires_at) FROM account_token
UNION ALL
SELECT 'sign_in_attempt', '', 'expires', NULL, min(expires_at) FROM sign_in_attempt
UNION ALL
SELECT 'request_window', '', 'expires', NULL, min(ends_at) FROM request_window
UNION ALL
SELECT 'stream', '', 'expires', NULL, min(until) FROM stream
UNION ALL
SELECT 'throttle', '', 'expires', NULL, min(expires_at) FROM throttle;

-- name: unscoped_moves_out
-- Since when readings of anybody's leave a tier that keeps them shorter: what they still owe stays.
SELECT source.name AS tier, min(move.begun_at) AS begun_at
FROM move JOIN account ON account.id = move.account_id
JOIN tier AS source ON source.name = account.moving_from
JOIN tier AS target ON target.name = account.tier
WHERE target.retention > source.retention GROUP BY source.name;

-- name: unscoped_orphans
-- Rows that name an account or a device that is no more, whosesoever it was; counted to a limit.
-- What a deletion is still carrying away is none; the counters of usage name deleted devices on
-- purpose, until they have had their time.
SELECT 'rejection_hour' AS table_name, 'of devices that are gone' AS part, count(*) AS rows
FROM (
    SELECT FROM rejection_hour AS r
    WHERE NOT EXISTS (SELECT FROM device WHERE device.id = r.device_id)
      AND NOT EXISTS (SELECT FROM erasure WHERE erasure.device_id = r.device_id)
    LIMIT %(most)s
) AS found
UNION ALL
SELECT 'directory_change', 'of accounts or devices that are gone', count(*)
FROM (
    SELECT FROM directory_change AS c
    WHERE c.account_id <> 0 AND c.at < %(hour_ago)s
      AND (NOT EXISTS (SELECT FROM account WHERE account.id = c.account_id)
           OR c.device_id IS NOT NULL
           AND NOT EXISTS (SELECT FROM device WHERE device.id = c.device_id))
    LIMIT %(most)s
) AS found
UNION ALL
SELECT 'procrastinate_jobs', 'of accounts that are gone', count(*)
FROM (
    SELECT FROM procrastinate_jobs AS j
    WHERE j.args ? 'account_id' AND j.args ->> 'account_id' <> '0'
      AND NOT EXISTS (SELECT FROM account WHERE account.id::text = j.args ->> 'account_id')
      AND NOT EXISTS (SELECT FROM procrastinate_events AS e
                      WHERE e.job_id = j.id AND e.at >= %(day_ago)s)
    LIMIT %(most)s
) AS found
UNION ALL
SELECT 'job_error', 'of jobs that are gone', count(*)
FROM (
    SELECT FROM job_error AS e
    WHERE e.at < %(hour_ago)s
      AND NOT EXISTS (SELECT FROM procrastinate_jobs WHERE procrastinate_jobs.id = e.job_id)
    LIMIT %(most)s
) AS found
UNION ALL
SELECT 'erasure', 'of accounts that are gone, and not done', count(*)
FROM (
    SELECT FROM erasure AS e
    WHERE e.finished_at IS NULL
      AND NOT EXISTS (SELECT FROM account WHERE account.id = e.account_id)
    LIMIT %(most)s
) AS found
UNION ALL
SELECT 'account', 'that close, and nothing erases them', count(*)
FROM (
    SELECT FROM account AS a
    WHERE a.closing_at IS NOT NULL
      AND NOT EXISTS (SELECT FROM erasure AS e WHERE e.account_id = a.id AND e.device_id IS NULL)
    LIMIT %(most)s
) AS found;

-- name: unknown_readings
-- Whether a chunk holds readings of series that no account has: one look into the index for each gap
-- between the series there are, the newest first. Those a deletion is carrying away are no gap.
WITH known AS (
    SELECT id FROM series
    UNION SELECT unnest(series_ids) FROM erasure
    UNION SELECT jsonb_array_elements_text(args -> 'series_ids')::int FROM procrastinate_jobs
    WHERE task_name = 'erase_series' AND status IN ('todo', 'doing')
    UNION SELECT 0
), gap AS (
    SELECT after, before FROM (
        SELECT id AS after, coalesce(lead(id) OVER (ORDER BY id), 2147483647) AS before FROM known
    ) AS pair
    WHERE before > after + 1 ORDER BY after DESC LIMIT %(most)s
)
SELECT count(*) AS gaps
FROM gap CROSS JOIN LATERAL (
    SELECT series_id FROM {readings} WHERE series_id > gap.after AND series_id < gap.before
      AND time >= %(from)s AND time < %(to)s
    ORDER BY series_id LIMIT 1
) AS found;

-- name: unscoped_erasure_state
-- How deletions of anybody stand: those that should have begun, those that take long, those done.
SELECT count(*) FILTER (WHERE begun_at IS NULL AND due_at < %(due_before)s) AS late,
       count(*) FILTER (WHERE finished_at IS NULL AND begun_at < %(begun_before)s) AS long,
       count(*) FILTER (WHERE finished_at IS NULL) AS open,
       count(*) FILTER (WHERE finished_at IS NOT NULL) AS done
FROM erasure;

-- name: unscoped_archives_ending
-- Archives whose files may be there for a moment still, whosesoever: their time has just ended.
SELECT account_id, id, status FROM export WHERE expires_at >= %(after)s;

-- name: unscoped_accounts_erasing
-- Whose files are being removed at this moment.
SELECT id FROM account WHERE erasing;

-- name: lock_privacy_check
-- Of several workers one orders the next check.
SELECT pg_advisory_xact_lock(7061, 4);

-- name: unscoped_privacy_check_due
-- Whether the last check is long past and the next is not ordered yet; nothing of anybody's.
SELECT NOT EXISTS (SELECT FROM privacy_check WHERE at > %(before)s)
   AND NOT EXISTS (SELECT FROM procrastinate_jobs
                   WHERE task_name = 'check_privacy' AND status IN ('todo', 'doing')) AS due;

-- name: unscoped_keep_privacy_check
-- The report, which names nobody.
INSERT INTO privacy_check (at, passed, report) VALUES (%(at)s, %(passed)s, %(report)s);

-- name: unscoped_newest_privacy_check
-- The last report, for operators; it names nobody.
SELECT report FROM privacy_check ORDER BY id DESC LIMIT 1;
