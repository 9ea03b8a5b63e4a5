-- name: lock_rule_count
-- Two requests at once must not pass the plan's limit together; the row is there from then on.
INSERT INTO alert_watch AS w (account_id, version) VALUES (%(account)s, 1)
ON CONFLICT (account_id) DO UPDATE SET version = w.version + 1;

-- name: count_rules
-- For the plan's limit.
SELECT count(*) AS rules FROM alert_rule WHERE account_id = %(account)s;

-- name: create_rule
-- A rule of the account; the directory's triggers tell every flush of it.
INSERT INTO alert_rule (account_id, name, kind, device_id, metric, operator, threshold, clear,
                        is_flag, for_s, enabled, created_at, changed_at)
VALUES (%(account)s, %(name)s, %(kind)s, %(device)s, %(metric)s, %(operator)s, %(threshold)s,
        %(clear)s, %(is_flag)s, %(for)s, %(enabled)s, %(now)s, %(now)s)
RETURNING id, account_id, name, kind, device_id, metric, operator, threshold, clear, is_flag, for_s, enabled,
          created_at, changed_at, paused_at;

-- name: list_rules
-- A page of the account's rules in the order they were made; about some devices alone where a key
-- is limited to them.
SELECT r.id, r.account_id, r.name, r.kind, r.device_id, r.metric, r.operator, r.threshold, r.clear, r.is_flag,
       r.for_s, r.enabled, r.created_at, r.changed_at, r.paused_at,
       (SELECT count(*) FROM alert WHERE alert.rule_id = r.id AND alert.state = 'firing') AS firing
FROM alert_rule AS r
WHERE r.account_id = %(account)s AND r.id > %(after)s
  AND (%(devices)s::text[] IS NULL OR r.device_id = ANY (%(devices)s))
ORDER BY r.id LIMIT %(limit)s;

-- name: units_of_rules
-- What the level of each of the account's rules is measured in, where all devices it is about agree.
SELECT r.id, min(s.unit) AS unit
FROM alert_rule AS r
JOIN series AS s ON s.account_id = r.account_id AND s.metric = r.metric
    AND (r.device_id IS NULL OR s.device_id = r.device_id)
WHERE r.account_id = %(account)s AND r.kind = 'threshold' AND NOT r.is_flag
GROUP BY r.id HAVING count(s.unit) = count(*) AND count(DISTINCT s.unit) = 1;

-- name: get_rule
-- One rule of the account.
SELECT r.id, r.account_id, r.name, r.kind, r.device_id, r.metric, r.operator, r.threshold, r.clear, r.is_flag,
       r.for_s, r.enabled, r.created_at, r.changed_at, r.paused_at,
       (SELECT count(*) FROM alert WHERE alert.rule_id = r.id AND alert.state = 'firing') AS firing
FROM alert_rule AS r
WHERE r.account_id = %(account)s AND r.id = %(rule)s
  AND (%(devices)s::text[] IS NULL OR r.device_id = ANY (%(devices)s));

-- name: update_rule
-- The whole row of the account's rule, so that null clears.
UPDATE alert_rule SET name = %(name)s, device_id = %(device)s, metric = %(metric)s,
    operator = %(operator)s, threshold = %(threshold)s, clear = %(clear)s, is_flag = %(is_flag)s,
    for_s = %(for)s, enabled = %(enabled)s, changed_at = %(changed)s
WHERE account_id = %(account)s AND id = %(rule)s;

-- name: delete_rule
-- The account's rule; its alerts stay as a record, until they are old.
DELETE FROM alert_rule WHERE account_id = %(account)s AND id = %(rule)s RETURNING paused_at;

-- name: end_alerts_of_rule
-- The rule is another or gone: what held of the account holds no longer, and nobody is told.
UPDATE alert SET state = 'resolved', resolved_at = %(now)s, reason = %(reason)s, due = told
WHERE account_id = %(account)s AND rule_id = %(rule)s AND state = 'firing';

-- name: drop_pending_of_rule
-- The same for what had not fired in the account.
DELETE FROM alert WHERE account_id = %(account)s AND rule_id = %(rule)s AND state = 'pending';

-- name: list_alerts
-- A page of the account's alerts, newest first.
SELECT id, rule_id, rule_name, kind, device_id, metric, state, since, fired_at, resolved_at, value,
       resolved_value, reason
FROM alert
WHERE account_id = %(account)s
  AND (%(devices)s::text[] IS NULL OR device_id = ANY (%(devices)s))
  AND (%(state)s::text IS NULL OR state = %(state)s)
  AND (%(rule)s::int IS NULL OR rule_id = %(rule)s)
  AND (%(before)s::bigint IS NULL OR id < %(before)s)
ORDER BY id DESC LIMIT %(limit)s;

-- name: rule_series
-- What a rule of the account judges: its device's series of the metric, or every device's.
SELECT s.id, s.device_id FROM series AS s
WHERE s.account_id = %(account)s AND (%(device)s::text IS NULL OR s.device_id = %(device)s)
  AND (%(metric)s::text IS NULL OR s.metric = %(metric)s)
  AND (%(texts)s OR s.kind <> 'text')
ORDER BY s.device_id, s.id;

-- name: rule_devices
-- The devices a rule of the account is about, with what was last heard of their connection before.
SELECT d.id, e.kind FROM device AS d
LEFT JOIN LATERAL (
    SELECT kind FROM device_event
    WHERE device_id = d.id AND time < %(from)s AND kind IN ('connected', 'disconnected')
    ORDER BY time DESC, id DESC LIMIT 1
) AS e ON true
WHERE d.account_id = %(account)s AND (%(device)s::text IS NULL OR d.id = %(device)s)
ORDER BY d.id;

-- name: replay_connections
-- When the account's devices came and went.
SELECT device_id, time, kind FROM device_event
WHERE account_id = %(account)s AND (%(device)s::text IS NULL OR device_id = %(device)s)
  AND time >= %(from)s AND time < %(to)s AND kind IN ('connected', 'disconnected')
ORDER BY device_id, time, id;

-- name: replay_threshold
-- A series of the account as a threshold sees it: the readings at which it goes from good to
-- between to beyond and back, which are all that a rule can tell apart.
SELECT (extract(epoch FROM time) * 1000000)::bigint AS time_us, value FROM (
    SELECT time, value, side, lag(side) OVER (ORDER BY time) AS before FROM (
        SELECT time, value,
               CASE WHEN %(below)s AND value < %(threshold)s OR %(at)s AND value = %(threshold)s
                      OR %(above)s AND value > %(threshold)s THEN 2
                    WHEN %(below)s AND value < %(clear)s OR %(at)s AND value = %(clear)s
                      OR %(above)s AND value > %(clear)s THEN 1
                    ELSE 0 END AS side
        FROM (
            SELECT time, value FROM {tier}
            WHERE account_id = %(account)s AND series_id = %(series)s
              AND time >= %(from)s AND time < %(to)s
            UNION ALL
            SELECT time, value FROM {other}
            WHERE %(moving)s AND account_id = %(account)s AND series_id = %(series)s
              AND time >= %(from)s AND time < %(to)s
        ) AS reading
    ) AS seen
) AS change
WHERE side IS DISTINCT FROM before ORDER BY time;

-- name: replay_silence
-- Where no reading of some series of the account came for so long, up to the end of the time.
SELECT time AS since, next FROM (
    SELECT time, lead(time, 1, %(to)s) OVER (ORDER BY time) AS next FROM (
        SELECT %(from)s::timestamptz AS time
        UNION ALL
        SELECT time FROM {tier}
        WHERE account_id = %(account)s AND series_id = ANY (%(series)s)
          AND time >= %(from)s AND time < %(to)s
        UNION ALL
        SELECT time FROM {tier_text}
        WHERE account_id = %(account)s AND series_id = ANY (%(series)s)
          AND time >= %(from)s AND time < %(to)s
        UNION ALL
        SELECT time FROM {other}
        WHERE %(moving)s AND account_id = %(account)s AND series_id = ANY (%(series)s)
          AND time >= %(from)s AND time < %(to)s
        UNION ALL
        SELECT time FROM {other_text}
        WHERE %(moving)s AND account_id = %(account)s AND series_id = ANY (%(series)s)
          AND time >= %(from)s AND time < %(to)s
    ) AS reading
) AS gap
WHERE next - time >= make_interval(secs => %(for)s) ORDER BY time;
