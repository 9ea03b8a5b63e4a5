-- name: unscoped_due_alerts
-- Accounts, not those that are closing, in which a pending alert has become due by the clock.
SELECT DISTINCT account_id FROM alert JOIN account ON account.id = account_id
WHERE state = 'pending' AND timer_at <= %(now)s AND account.closing_at IS NULL ORDER BY account_id;

-- name: fire_due_alerts
-- The account's pending alerts whose time has come.
UPDATE alert SET state = 'firing', fired_at = due_at, due = 1
WHERE account_id = %(account)s AND state = 'pending' AND timer_at <= %(now)s
RETURNING id;

-- name: unscoped_look_alert_timer
-- Since when silence counts: a gap in the timers' own looking, or without any ingest, may be ours.
INSERT INTO alert_timer AS t (seen_at, counting_from, ingest_at)
SELECT %(now)s::timestamptz, %(now)s::timestamptz, CASE WHEN i.active THEN %(now)s::timestamptz END
FROM (SELECT EXISTS (
    SELECT FROM pg_locks WHERE locktype = 'advisory' AND classid = 7061 AND objid = 2 AND granted
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
) AS active) AS i
ON CONFLICT (singleton) DO UPDATE SET
    seen_at = greatest(t.seen_at, %(now)s),
    counting_from = CASE WHEN t.seen_at < %(since)s
                           OR EXCLUDED.ingest_at IS NULL AND t.ingest_at < %(since)s
                         THEN greatest(t.counting_from, %(now)s) ELSE t.counting_from END,
    ingest_at = coalesce(EXCLUDED.ingest_at, t.ingest_at)
RETURNING counting_from;

-- name: unscoped_silent_devices
-- Rules of silence that hold on a device as a whole, of one account or of all.
SELECT r.account_id, r.id AS rule_id, d.id AS device_id, silent.since
FROM alert_rule AS r
JOIN device AS d ON d.account_id = r.account_id AND (r.device_id IS NULL OR d.id = r.device_id)
    AND d.paused_at IS NULL
CROSS JOIN LATERAL (
    SELECT last_fresh_at FROM (SELECT 1) AS one LEFT JOIN LATERAL (
        SELECT last_fresh_at FROM usage_hour
        WHERE account_id = r.account_id AND device_id = d.id AND last_fresh_at IS NOT NULL
        ORDER BY hour DESC LIMIT 1
    ) AS u ON true
) AS fresh
CROSS JOIN LATERAL (
    SELECT max(received_at) AS received_at FROM alert_mark
    WHERE account_id = r.account_id AND device_id = d.id
) AS mark
CROSS JOIN LATERAL (
    SELECT greatest(fresh.last_fresh_at, mark.received_at, r.changed_at, d.created_at, d.resumed_at) AS since
) AS silent
WHERE r.kind = 'no_data' AND r.enabled AND r.paused_at IS NULL AND r.metric IS NULL
  AND NOT EXISTS (SELECT FROM account WHERE account.id = r.account_id AND account.closing_at IS NOT NULL)
  AND (%(account)s::int IS NULL OR r.account_id = %(account)s)
  AND %(now)s::timestamptz - greatest(silent.since, %(counting_from)s::timestamptz) >= make_interval(secs => r.for_s)
  AND NOT EXISTS (SELECT FROM alert
                  WHERE alert.rule_id = r.id AND alert.device_id = d.id AND alert.state <> 'resolved');

-- name: unscoped_silent_tiers
-- Where the readings of accounts stand that have rules about a metric's silence.
SELECT DISTINCT a.tier, a.moving_from FROM account AS a JOIN alert_rule AS r ON r.account_id = a.id
WHERE r.kind = 'no_data' AND r.enabled AND r.paused_at IS NULL AND r.metric IS NOT NULL
  AND (%(account)s::int IS NULL OR a.id = %(account)s);

-- name: unscoped_silent_metrics
-- Rules of silence that hold on a metric, in the accounts of one tier, or one of them. A metric is
-- never fresher than its device, so that what comes late does not count.
SELECT r.account_id, r.id AS rule_id, d.id AS device_id, silent.since
FROM alert_rule AS r
JOIN account AS a ON a.id = r.account_id
JOIN device AS d ON d.account_id = r.account_id AND (r.device_id IS NULL OR d.id = r.device_id)
    AND d.paused_at IS NULL
LEFT JOIN series AS s ON s.device_id = d.id AND s.metric = r.metric
CROSS JOIN LATERAL (
    SELECT max(time) AS time FROM (
        (SELECT time FROM {tier} WHERE account_id = r.account_id AND series_id = s.id
         ORDER BY time DESC LIMIT 1)
        UNION ALL
        (SELECT time FROM {tier_text} WHERE account_id = r.account_id AND series_id = s.id
         ORDER BY time DESC LIMIT 1)
        UNION ALL
        (SELECT time FROM {other} WHERE %(moving)s AND account_id = r.account_id AND series_id = s.id
         ORDER BY time DESC LIMIT 1)
        UNION ALL
        (SELECT time FROM {other_text} WHERE %(moving)s AND account_id = r.account_id AND series_id = s.id
         ORDER BY time DESC LIMIT 1)
    ) AS newest
) AS reading
CROSS JOIN LATERAL (
    SELECT max(last_fresh_at) AS last_fresh_at FROM (
        SELECT last_fresh_at FROM usage_hour
        WHERE account_id = r.account_id AND device_id = d.id AND last_fresh_at IS NOT NULL
        ORDER BY hour DESC LIMIT 1
    ) AS u
) AS fresh
LEFT JOIN alert_mark AS m ON m.series_id = s.id
CROSS JOIN LATERAL (
    SELECT greatest(CASE WHEN reading.time IS NOT NULL AND fresh.last_fresh_at IS NOT NULL
                         THEN least(reading.time, fresh.last_fresh_at, %(now)s::timestamptz) END,
                    m.received_at, r.changed_at, d.resumed_at, coalesce(s.created_at, d.created_at)) AS since
) AS silent
WHERE r.kind = 'no_data' AND r.enabled AND r.paused_at IS NULL AND r.metric IS NOT NULL AND a.closing_at IS NULL
  AND a.tier = %(tier)s AND a.moving_from IS NOT DISTINCT FROM %(moving_from)s
  AND (%(account)s::int IS NULL OR r.account_id = %(account)s)
  AND (s.id IS NOT NULL OR r.device_id IS NOT NULL)
  AND %(now)s::timestamptz - greatest(silent.since, %(counting_from)s::timestamptz) >= make_interval(secs => r.for_s)
  AND NOT EXISTS (SELECT FROM alert
                  WHERE alert.rule_id = r.id AND alert.device_id = d.id AND alert.state <> 'resolved');

-- name: unscoped_offline_devices
-- Rules about connections that hold, of one account or of all; none while the broker's record is
-- missing.
SELECT r.account_id, r.id AS rule_id, d.id AS device_id, d.connection_since AS since
FROM alert_rule AS r
JOIN device AS d ON d.account_id = r.account_id AND (r.device_id IS NULL OR d.id = r.device_id)
    AND d.paused_at IS NULL
WHERE r.kind = 'offline' AND r.enabled AND r.paused_at IS NULL AND d.connection = 'offline'
  AND NOT EXISTS (SELECT FROM account WHERE account.id = r.account_id AND account.closing_at IS NOT NULL)
  AND (%(account)s::int IS NULL OR r.account_id = %(account)s)
  AND %(now)s::timestamptz - greatest(d.connection_since, r.changed_at, d.resumed_at, %(counting_from)s::timestamptz)
      >= make_interval(secs => r.for_s)
  AND EXISTS (SELECT FROM broker_record WHERE seen_at >= %(now)s::timestamptz - interval '60 seconds')
  AND NOT EXISTS (SELECT FROM alert
                  WHERE alert.rule_id = r.id AND alert.device_id = d.id AND alert.state <> 'resolved');

-- name: unscoped_settled_alerts
-- Open alerts with nothing left to hold on: the device is connected again or was paused, or the metric
-- is gone or has become text; of one account or of all.
SELECT alert.account_id, alert.id, alert.state, 'online' AS reason,
       greatest(alert.fired_at, d.connection_since) AS resolved_at
FROM alert JOIN device AS d ON d.id = alert.device_id
WHERE alert.kind = 'offline' AND alert.state <> 'resolved' AND d.connection = 'online'
  AND (%(account)s::int IS NULL OR alert.account_id = %(account)s)
  AND EXISTS (SELECT FROM broker_record WHERE seen_at >= %(now)s::timestamptz - interval '60 seconds')
UNION ALL
SELECT alert.account_id, alert.id, alert.state, 'device_paused', greatest(alert.fired_at, d.paused_at)
FROM alert JOIN device AS d ON d.id = alert.device_id
WHERE d.paused_at IS NOT NULL AND alert.state <> 'resolved'
  AND (%(account)s::int IS NULL OR alert.account_id = %(account)s)
UNION ALL
SELECT alert.account_id, alert.id, alert.state, 'metric_gone', %(now)s::timestamptz
FROM alert JOIN alert_rule AS r ON r.id = alert.rule_id
WHERE alert.state <> 'resolved' AND alert.metric IS NOT NULL
  AND (%(account)s::int IS NULL OR alert.account_id = %(account)s)
  AND (alert.kind = 'threshold' OR alert.kind = 'no_data' AND r.device_id IS NULL)
  AND NOT EXISTS (SELECT FROM series AS s
                  WHERE s.device_id = alert.device_id AND s.metric = alert.metric
                    AND (alert.kind = 'no_data' OR s.kind <> 'text'));

-- name: begin_absences
-- What was found silent or offline in the account, once.
INSERT INTO alert (account_id, rule_id, rule_name, kind, device_id, metric, state, since, fired_at, reason, due)
SELECT r.account_id, r.id, r.name, r.kind, t.device_id, r.metric, 'firing', t.since, %(now)s, r.kind, 1
FROM unnest(%(rules)s::int[], %(devices)s::text[], %(since)s::timestamptz[]) AS t (rule_id, device_id, since)
JOIN alert_rule AS r ON r.account_id = %(account)s AND r.id = t.rule_id
ON CONFLICT (rule_id, device_id) WHERE state <> 'resolved' DO NOTHING
RETURNING id;

-- name: settle_alerts
-- The account's open alerts that have nothing left to hold on.
UPDATE alert SET state = 'resolved', resolved_at = t.resolved_at, reason = t.reason, due = 2
FROM unnest(%(ids)s::bigint[], %(reasons)s::text[], %(resolved)s::timestamptz[])
    AS t (id, reason, resolved_at)
WHERE alert.account_id = %(account)s AND alert.id = t.id AND alert.state = 'firing'
RETURNING alert.id;

-- name: unscoped_untold_alerts
-- Transitions that have not become notices, oldest first, of whichever accounts; two workers share
-- them out.
SELECT alert.id, alert.account_id, alert.rule_id, alert.rule_name, alert.kind, alert.device_id,
       alert.metric, alert.since, alert.fired_at, alert.resolved_at, alert.value,
       alert.resolved_value, alert.reason, alert.due, alert.told,
       coalesce(d.friendly_name, d.thing_name) AS device_name, s.unit,
       r.operator, r.threshold, r.is_flag
FROM alert
JOIN device AS d ON d.id = alert.device_id
LEFT JOIN series AS s ON s.device_id = alert.device_id AND s.metric = alert.metric
LEFT JOIN alert_rule AS r ON r.id = alert.rule_id
WHERE alert.told < alert.due
ORDER BY alert.id LIMIT %(limit)s
FOR UPDATE OF alert SKIP LOCKED;

-- name: note_alerts_told
-- These have become notices of their accounts.
UPDATE alert SET told = due WHERE id = ANY (%(ids)s) AND account_id = ANY (%(accounts)s);

-- name: unscoped_forget_alerts
-- Alerts that ended have their time, whosesoever they are; they hold readings, so no longer than
-- their account's tier.
DELETE FROM alert USING account, tier
WHERE account.id = alert.account_id AND tier.name = account.tier
  AND alert.state = 'resolved' AND alert.told >= alert.due
  AND alert.resolved_at < %(now)s::timestamptz - least(%(kept)s::interval, tier.retention);

-- name: unscoped_forget_alert_values
-- Of alerts that last, whosesoever they are: what was measured has gone by now.
UPDATE alert SET value = NULL FROM account, tier
WHERE account.id = alert.account_id AND tier.name = account.tier
  AND alert.state = 'firing' AND alert.value IS NOT NULL
  AND alert.fired_at < %(now)s::timestamptz - tier.retention;
