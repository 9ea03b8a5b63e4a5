-- name: unscoped_forget_sessions
-- The record of a sign-in has its time, whosesoever it is; a session that lives is kept.
DELETE FROM session WHERE coalesce(ended_at, expires_at) < %(before)s;

-- name: unscoped_unconfirmed_accounts
-- Registrations nobody confirmed. Looked for first, since a DELETE takes the directory's lock.
SELECT id FROM account
WHERE email_verified_at IS NULL AND created_at < %(before)s
  AND NOT EXISTS (SELECT FROM device WHERE device.account_id = account.id);

-- name: erase_unconfirmed_account
-- Unless it was confirmed this very moment.
DELETE FROM account WHERE id = %(account)s AND email_verified_at IS NULL AND created_at < %(before)s
  AND NOT EXISTS (SELECT FROM device WHERE device.account_id = account.id);

-- name: unscoped_forget_addresses
-- Where sessions that live were begun, whosesoever they are: known for the time of a record.
UPDATE session SET ip = NULL, agent = NULL
WHERE created_at < %(before)s AND (ip IS NOT NULL OR agent IS NOT NULL);

-- name: unscoped_forget_device_events
-- The connection log has its time, whosesoever devices it tells of.
DELETE FROM device_event WHERE time < %(before)s;

-- name: unscoped_forget_device_addresses
-- Where devices of anybody were seen, but for a connection that still stands.
UPDATE device SET
    connection_ip = CASE WHEN connection <> 'online' AND connection_since < %(before)s
                         THEN NULL ELSE connection_ip END,
    secret_used_ip = CASE WHEN secret_used_at < %(before)s THEN NULL ELSE secret_used_ip END
WHERE connection <> 'online' AND connection_since < %(before)s AND connection_ip IS NOT NULL
   OR secret_used_at < %(before)s AND secret_used_ip IS NOT NULL;

-- name: unscoped_forget_key_addresses
-- Where keys of anybody were last used.
UPDATE api_key SET last_used_ip = NULL
WHERE last_used_at < %(before)s AND last_used_ip IS NOT NULL;

-- name: unscoped_forget_windows
-- Windows of requests that are over, whosesoever they are.
DELETE FROM request_window WHERE ends_at < %(now)s;

-- name: unscoped_forget_jobs
-- Jobs that failed or were given up long ago, whosesoever they are, with what became of them.
DELETE FROM procrastinate_jobs AS job
WHERE job.status IN ('failed', 'aborted', 'cancelled', 'succeeded') AND NOT EXISTS (
    SELECT FROM procrastinate_events WHERE job_id = job.id AND at >= %(before)s
);

-- name: unscoped_forget_usage
-- Counters of hours long past, whosesoever they are.
DELETE FROM usage_hour WHERE hour < %(before)s;

-- name: unscoped_forget_rejected
-- What was refused in hours long past, whosesoever it was.
DELETE FROM rejection_hour WHERE hour < %(before)s;

-- name: unscoped_forget_api_usage
-- Counters of days long past, whosesoever they are.
DELETE FROM api_usage_day WHERE day < %(before)s;

-- name: unscoped_forget_privacy_checks
-- Reports of checks long past; nothing of anybody's is in them.
DELETE FROM privacy_check WHERE at < %(before)s;
