-- name: unscoped_directory_rules
-- What of the loaded devices is judged by rules: a threshold's series, or the device alone where
-- only silence counts; of whichever accounts.
SELECT d.id AS device_id, r.account_id, r.id AS rule_id, s.id AS series_id, r.operator, r.threshold,
       coalesce(r.clear, r.threshold) AS clear, r.for_s * 1000000::bigint AS for_us
FROM device AS d
JOIN alert_rule AS r ON r.account_id = d.account_id AND (r.device_id IS NULL OR r.device_id = d.id)
JOIN series AS s ON s.device_id = d.id AND s.metric = r.metric
WHERE d.id = ANY (%(devices)s) AND r.enabled AND r.paused_at IS NULL AND r.kind = 'threshold' AND s.kind <> 'text'
UNION ALL
SELECT d.id, r.account_id, r.id, NULL, NULL, NULL, NULL, NULL
FROM device AS d
JOIN alert_rule AS r ON r.account_id = d.account_id AND (r.device_id IS NULL OR r.device_id = d.id)
WHERE d.id = ANY (%(devices)s) AND r.enabled AND r.paused_at IS NULL AND r.kind = 'no_data';

-- name: lock_alert_accounts
-- Whoever judges holds the accounts until it commits, so that every transition happens once.
SELECT account_id, version FROM alert_watch
WHERE account_id = ANY (%(accounts)s) ORDER BY account_id FOR NO KEY UPDATE;

-- name: open_alerts
-- What holds at the moment on the devices of some accounts.
SELECT id, account_id, rule_id, device_id, kind, metric, state, value,
       (extract(epoch FROM since) * 1000000)::bigint AS since_us,
       coalesce((extract(epoch FROM fired_at) * 1000000)::bigint, 0) AS fired_us
FROM alert
WHERE account_id = ANY (%(accounts)s) AND state <> 'resolved' AND kind <> 'offline'
  AND rule_id IS NOT NULL;

-- name: newest_readings
-- The newest readings of some series of the accounts, one more than this flush brought of each,
-- and what was judged of them without being stored.
SELECT w.series_id, (extract(epoch FROM r.time) * 1000000)::bigint AS time_us, r.stored
FROM unnest(%(accounts)s::int[], %(series)s::int[], %(most)s::int[]) AS w (account_id, series_id, most)
CROSS JOIN LATERAL (
    (SELECT time, true AS stored FROM {tier}
     WHERE account_id = w.account_id AND series_id = w.series_id AND time >= %(since)s
     ORDER BY time DESC LIMIT w.most)
    UNION ALL
    (SELECT time, true FROM {other}
     WHERE %(moving)s AND account_id = w.account_id AND series_id = w.series_id AND time >= %(since)s
     ORDER BY time DESC LIMIT w.most)
    UNION ALL
    (SELECT time, false FROM alert_mark
     WHERE account_id = w.account_id AND series_id = w.series_id AND time >= %(since)s)
) AS r;

-- name: drop_pending_alerts
-- Pending ones that came to nothing, of the accounts this flush holds.
DELETE FROM alert WHERE account_id = ANY (%(accounts)s) AND id = ANY (%(ids)s) AND state = 'pending';

-- name: save_alerts
-- What became of open alerts of the accounts this flush holds.
UPDATE alert SET
    state = t.state,
    value = CASE WHEN alert.kind = 'threshold' THEN t.value ELSE alert.value END,
    fired_at = coalesce(alert.fired_at, 'epoch'::timestamptz + t.fired_us * interval '1 microsecond'),
    resolved_at = 'epoch'::timestamptz + t.resolved_us * interval '1 microsecond',
    resolved_value = t.resolved_value,
    reason = t.reason,
    due = t.due
FROM unnest(%(ids)s::bigint[], %(states)s::text[], %(values)s::float8[], %(fired)s::bigint[],
            %(resolved)s::bigint[], %(resolved_values)s::float8[], %(reasons)s::text[], %(due)s::int[])
    AS t (id, state, value, fired_us, resolved_us, resolved_value, reason, due)
WHERE alert.account_id = ANY (%(accounts)s) AND alert.id = t.id AND alert.state <> 'resolved';

-- name: begin_alerts
-- New alerts of the accounts this flush holds; by the clock a pending one fires later by as much as
-- its reading waited for the database, since those after it wait as well.
INSERT INTO alert (account_id, rule_id, rule_name, kind, device_id, metric, state, since, due_at,
                   timer_at, fired_at, resolved_at, value, resolved_value, reason, due)
SELECT r.account_id, r.id, r.name, r.kind, t.device_id, r.metric, t.state, since.at, due.at,
       greatest(due.at, now() + (due.at - ('epoch'::timestamptz + t.received_us * interval '1 microsecond'))),
       'epoch'::timestamptz + t.fired_us * interval '1 microsecond',
       'epoch'::timestamptz + t.resolved_us * interval '1 microsecond',
       t.value, t.resolved_value, t.reason, t.due
FROM unnest(%(accounts)s::int[], %(rules)s::int[], %(devices)s::text[], %(states)s::text[],
            %(since)s::bigint[], %(received)s::bigint[], %(fired)s::bigint[], %(resolved)s::bigint[],
            %(values)s::float8[], %(resolved_values)s::float8[], %(reasons)s::text[], %(due)s::int[])
    WITH ORDINALITY
    AS t (account_id, rule_id, device_id, state, since_us, received_us, fired_us, resolved_us, value,
          resolved_value, reason, due, n)
JOIN alert_rule AS r ON r.account_id = t.account_id AND r.id = t.rule_id
CROSS JOIN LATERAL (SELECT 'epoch'::timestamptz + t.since_us * interval '1 microsecond' AS at) AS since
CROSS JOIN LATERAL (SELECT since.at + make_interval(secs => r.for_s) AS at) AS due
ORDER BY t.n
ON CONFLICT (rule_id, device_id) WHERE state <> 'resolved' DO NOTHING
RETURNING id, account_id, rule_id, device_id, state;

-- name: bump_alert_versions
-- Every process that remembers the accounts' alerts reads them anew.
UPDATE alert_watch SET version = version + 1 WHERE account_id = ANY (%(accounts)s);

-- name: unscoped_wake_alerts
-- The worker tells what happened, whosesoever it is.
SELECT pg_notify('paqett_alerts', '');

-- name: mark_alert_readings
-- The newest readings of the accounts' watched devices that were judged and may not be stored.
INSERT INTO alert_mark AS m (series_id, account_id, device_id, time, received_at)
SELECT series_id, account_id, device_id,
       'epoch'::timestamptz + max(time_us) * interval '1 microsecond',
       'epoch'::timestamptz + max(received_us) * interval '1 microsecond'
FROM unnest(%(accounts)s::int[], %(devices)s::text[], %(series)s::int[], %(times)s::bigint[],
            %(received)s::bigint[]) AS t (account_id, device_id, series_id, time_us, received_us)
GROUP BY series_id, account_id, device_id ORDER BY series_id
ON CONFLICT (series_id) DO UPDATE SET
    time = greatest(m.time, EXCLUDED.time), received_at = greatest(m.received_at, EXCLUDED.received_at);
