-- What an archive of Export All My Data holds. `archive_<file>` gives a file's rows: of one account, and
-- without what the register withholds. A test holds each to the register's columns.

-- name: archive_state
-- Whose archive it is, where the account's readings stand, and how far back they may be read.
SELECT account.email, account.tier, account.moving_from, account.readable_from,
       %(now)s - tier.retention AS expired
FROM account JOIN tier ON tier.name = account.tier WHERE account.id = %(account)s;

-- name: archive_series
-- The account's metrics, in the order their readings are written.
SELECT id, device_id AS device, metric, kind, mixed FROM series
WHERE account_id = %(account)s ORDER BY id;

-- name: archive_readings
-- A piece of the account's numbers and booleans, or of its text values, of a stretch of time, series
-- by series as given, in each by time, as arrays. The first series goes on behind a moment. LIMIT
-- ends the loop over the series early; that their order is kept is checked by whoever reads them.
SELECT array_agg(time), array_agg(series_id), array_agg(value) FROM (
    SELECT r.time, s.id AS series_id, r.value
    FROM unnest(%(series)s::int[]) WITH ORDINALITY AS s (id, place) CROSS JOIN LATERAL (
        SELECT time, value FROM {readings}
        WHERE account_id = %(account)s AND series_id = s.id AND time < %(to)s
          AND time >= CASE s.place WHEN 1 THEN %(first)s::timestamptz ELSE %(from)s::timestamptz END
        ORDER BY time
    ) AS r
    LIMIT %(limit)s
) AS piece;

-- name: archive_account
-- Your account: the account's rows of account.
SELECT id, email, plan, tier, moving_from, readable_from, tier_due_at, tier_told_days, created_at,
       first_name, surname, time_zone, email_verified_at, age_confirmed_at, policy_version, policy_accepted_at,
       policy_told, operator, disabled_at, pending_email, closing_at, erasing
FROM account WHERE id = %(account)s;

-- name: archive_identities
-- Who else vouches for you: the account's rows of identity.
SELECT provider, subject, account_id, email, created_at, last_used_at
FROM identity WHERE account_id = %(account)s ORDER BY created_at;

-- name: archive_sessions
-- Sessions: the account's rows of session.
SELECT id, account_id, method, created_at, seen_at, authenticated_at, expires_at, ended_at, ip,
       agent
FROM session WHERE account_id = %(account)s ORDER BY id;

-- name: archive_mailed_links
-- Links and codes mailed to you: the account's rows of account_token.
SELECT account_id, purpose, email, created_at, expires_at
FROM account_token WHERE account_id = %(account)s ORDER BY created_at;

-- name: archive_notification_preferences
-- Notification settings: the account's rows of notification_preference.
SELECT account_id, kind, mail, webhook
FROM notification_preference WHERE account_id = %(account)s ORDER BY kind;

-- name: archive_notices
-- Notices: the account's rows of notice.
SELECT id, account_id, kind, event, data, created_at, read_at, mail_to, mailed_at, admitted_on,
       held_on
FROM notice WHERE account_id = %(account)s ORDER BY id;

-- name: archive_mails_by_day
-- How many mails you had: the account's rows of mail_day.
SELECT account_id, day, mails, summed_up
FROM mail_day WHERE account_id = %(account)s ORDER BY day;

-- name: archive_api_keys
-- API keys: the account's rows of api_key.
SELECT id, account_id, name, hint, scopes, device_ids, created_at, expires_at, last_used_at,
       last_used_ip
FROM api_key WHERE account_id = %(account)s ORDER BY id;

-- name: archive_api_usage
-- API usage: the account's rows of api_usage_day.
SELECT account_id, day, key_id, requests, bytes_in, bytes_out
FROM api_usage_day WHERE account_id = %(account)s ORDER BY day, key_id;

-- name: archive_sql_login
-- Your SQL login for Grafana: the account's rows of sql_login.
SELECT account_id, role, created_at, strikes, struck_at
FROM sql_login WHERE account_id = %(account)s;

-- name: archive_devices
-- Devices: the account's rows of device.
SELECT id, account_id, thing_name, friendly_name, mac_address, firmware_version, tags,
       report_interval_s, clock, created_at, connection, connection_since, connection_reason,
       connection_ip, attributes, secret_used_at, secret_used_ip, paused_at, resumed_at, enabled
FROM device WHERE account_id = %(account)s ORDER BY created_at, id;

-- name: archive_device_events
-- Connections of your devices: the account's rows of device_event.
SELECT id, account_id, device_id, time, kind, reason, ip
FROM device_event WHERE account_id = %(account)s ORDER BY id;

-- name: archive_metrics
-- Metrics: the account's rows of series.
SELECT id, account_id, device_id, metric, kind, label, unit, created_at, mixed
FROM series WHERE account_id = %(account)s ORDER BY id;

-- name: archive_usage
-- Usage: the account's rows of usage_hour.
SELECT account_id, device_id, hour, messages, points, bytes, duplicates, late, arrivals,
       first_fresh_at, last_fresh_at, tokens, tokens_at
FROM usage_hour WHERE account_id = %(account)s ORDER BY device_id, hour;

-- name: archive_allowance
-- What is left of the day: the account's rows of allowance.
SELECT account_id, day, points, late_left, late_at, writer
FROM allowance WHERE account_id = %(account)s;

-- name: archive_move
-- Readings on their way to another tier: the account's row of move.
SELECT account_id, begun_at, carried_to, until, span, prepared_at, reported_at
FROM move WHERE account_id = %(account)s;

-- name: archive_usage_warnings
-- Warnings of the daily quota: the account's rows of usage_warning.
SELECT account_id, day, level
FROM usage_warning WHERE account_id = %(account)s ORDER BY day, level;

-- name: archive_rejections
-- Points that were refused: the account's rows of rejection_hour.
SELECT account_id, device_id, hour, code, points
FROM rejection_hour WHERE account_id = %(account)s ORDER BY device_id, hour, code;

-- name: archive_rejection_examples
-- Examples of refused messages: the account's rows of rejection.
SELECT id, account_id, device_id, hour, code, time, topic, metric, detail, payload, payload_bytes
FROM rejection WHERE account_id = %(account)s ORDER BY id;

-- name: archive_views
-- Views: the account's rows of view.
SELECT id, account_id, name, shown, pinned, created_at, changed_at
FROM view WHERE account_id = %(account)s ORDER BY id;

-- name: archive_alert_rules
-- Alert rules: the account's rows of alert_rule.
SELECT id, account_id, name, kind, device_id, metric, operator, threshold, clear, is_flag, for_s,
       enabled, created_at, changed_at, paused_at
FROM alert_rule WHERE account_id = %(account)s ORDER BY id;

-- name: archive_alerts
-- Alerts: the account's rows of alert.
SELECT id, account_id, rule_id, rule_name, kind, device_id, metric, state, since, due_at, timer_at,
       fired_at, resolved_at, value, resolved_value, reason, due, told
FROM alert WHERE account_id = %(account)s ORDER BY id;

-- name: archive_webhooks
-- Webhooks: the account's rows of channel.
SELECT id, account_id, name, url, old_secret_until, failures, paused_at, created_at
FROM channel WHERE account_id = %(account)s ORDER BY id;

-- name: archive_webhook_deliveries
-- Deliveries to your webhooks: the account's rows of delivery.
SELECT id, account_id, channel_id, notice_id, event, state, attempts, created_at
FROM delivery WHERE account_id = %(account)s ORDER BY created_at, id;

-- name: archive_exports
-- Your exports: the account's rows of export.
SELECT id, account_id, format, status, created_at, started_at, finished_at, expires_at, progress,
       rows, bytes, sha256
FROM export WHERE account_id = %(account)s ORDER BY id;

-- name: archive_subscription
-- Your subscription: the account's rows of subscription.
SELECT account_id, customer_id, subscription_id, status, plan, period_end, ends_at, granted,
       checkout_at, synced_at, stale_since, ended_for_deletion
FROM subscription WHERE account_id = %(account)s;
