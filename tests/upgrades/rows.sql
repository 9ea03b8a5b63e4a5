-- What stood in a database of each schema: rows for every table, put in right after the migration
-- that made it. Whoever adds a table adds rows here, under its migration's name.

-- after: 0001_foundation
INSERT INTO account (email, plan, tier, moving_from, readable_from, tier_due_at)
SELECT name || '@example.org', plan, tier, moving_from, readable_from, due
FROM (VALUES ('own', 'own', 'own', NULL, 'epoch'::timestamptz, NULL::timestamptz),
             ('free', 'free', 'free', NULL, 'epoch', NULL),
             ('paid', 'free', 'paid', NULL, now() - interval '20 days', now() + interval '9 days'),
             ('moving', 'paid', 'paid', 'free', now() - interval '7 days', NULL))
    AS a (name, plan, tier, moving_from, readable_from, due);
INSERT INTO api_key (account_id, name, hint, hash, scopes)
SELECT id, 'upgrade', 'pqt_upgr', sha256(current_setting('upgrade.' || split_part(email, '@', 1))::bytea),
       '{telemetry:read,telemetry:write,devices:read,devices:write,alerts,export,account:read}'
FROM account;
INSERT INTO device (id, account_id, thing_name, friendly_name, mac_address, tags, verifier,
                    connection, connection_since)
SELECT split_part(email, '@', 1), id, 'boiler', 'The boiler', '02:00:00:00:00:01', '{cellar,warm}',
       '$7$1$c2FsdA==$dmVyaWZpZXI=', 'online', now()
FROM account;
INSERT INTO device_event (account_id, device_id, time, kind, reason, ip)
SELECT account_id, id, now() - interval '1 hour', 'connected', 'signed in', '192.0.2.7' FROM device;
INSERT INTO series (account_id, device_id, metric, kind, label, unit)
SELECT account_id, id, metric, kind, label, unit
FROM device, (VALUES ('temperature', 'number', 'Outside', '°C'), ('state', 'text', NULL, NULL),
                     ('open', 'boolean', NULL, NULL)) AS m (metric, kind, label, unit);
INSERT INTO usage_hour (account_id, device_id, hour, messages, points, bytes, duplicates)
SELECT account_id, id, date_trunc('hour', now()), 7, 21, 700, 1 FROM device;
INSERT INTO rejection_hour SELECT account_id, id, date_trunc('hour', now()), 'bad_json', 3 FROM device;
INSERT INTO directory_change (account_id, device_id) SELECT account_id, id FROM device;
INSERT INTO procrastinate_jobs (queue_name, task_name, lock, args, status, attempts)
VALUES ('default', 'send_mail', 'upgrade', '{"account_id": 1}', 'failed', 9),
       ('default', 'send_mail', 'upgrade', '{"account_id": 1}', 'todo', 0);
INSERT INTO procrastinate_periodic_defers (task_name, defer_timestamp, job_id)
SELECT 'send_mail', 1, min(id) FROM procrastinate_jobs;
INSERT INTO procrastinate_workers DEFAULT VALUES;
-- two days of readings in each tier, and of the account that moves in both of its own
INSERT INTO telemetry_own SELECT now() - n * interval '8 hours', account_id, id, n
FROM series, generate_series(1, 6) AS n WHERE device_id = 'own' AND kind <> 'text';
INSERT INTO telemetry_own_text SELECT now() - interval '1 hour', account_id, id, 'warm'
FROM series WHERE device_id = 'own' AND kind = 'text';
INSERT INTO telemetry_free SELECT now() - n * interval '8 hours', account_id, id, n
FROM series, generate_series(1, 6) AS n WHERE device_id = 'free' AND kind <> 'text';
INSERT INTO telemetry_free_text SELECT now() - interval '1 hour', account_id, id, 'warm'
FROM series WHERE device_id IN ('free', 'moving') AND kind = 'text';
INSERT INTO telemetry_free SELECT now() - n * interval '8 hours', account_id, id, n
FROM series, generate_series(4, 6) AS n WHERE device_id = 'moving' AND kind <> 'text';
INSERT INTO telemetry_paid SELECT now() - n * interval '8 hours', account_id, id, n
FROM series, generate_series(1, 3) AS n WHERE device_id = 'moving' AND kind <> 'text';
INSERT INTO telemetry_paid SELECT now() - n * interval '8 hours', account_id, id, n
FROM series, generate_series(1, 6) AS n WHERE device_id = 'paid' AND kind <> 'text';
INSERT INTO telemetry_paid_text SELECT now() - interval '1 hour', account_id, id, 'warm'
FROM series WHERE device_id = 'paid' AND kind = 'text';

-- after: 0002_ingest
UPDATE usage_hour SET late = 2, arrivals = 5, first_fresh_at = now() - interval '50 minutes',
    last_fresh_at = now(), tokens = 3, tokens_at = now();
INSERT INTO allowance SELECT id, current_date, 21, 100, now(), 'ingest' FROM account WHERE plan <> 'own';
INSERT INTO rejection (account_id, device_id, hour, code, time, topic, detail, payload, payload_bytes)
SELECT account_id, id, date_trunc('hour', now()), 'bad_json', now(), 'telemetry', 'not JSON', '\x7b', 1
FROM device;
INSERT INTO spool_place VALUES ('spool', 3, 4096);

-- after: 0003_devices
UPDATE device SET attributes = '{"room": "cellar"}';
INSERT INTO broker_record (seen_at) VALUES (now());

-- after: 0004_sign_in
UPDATE account SET first_name = 'Ada', surname = 'Lovelace', time_zone = 'Europe/London',
    password_hash = '$argon2id$v=19$m=8,t=1,p=1$c2FsdHNhbHQ$aGFzaA', policy_version = '1',
    policy_accepted_at = now(), age_confirmed_at = now();
INSERT INTO account (email, plan, tier) VALUES ('unconfirmed@example.org', 'own', 'own');
INSERT INTO session (account_id, hash, method, created_at, seen_at, authenticated_at, expires_at, ip, agent)
SELECT id, sha256(email::bytea), 'password', now(), now(), now(), now() + interval '90 days', '192.0.2.7',
       'a browser'
FROM account;
INSERT INTO account_token SELECT sha256('token'), id, 'verify_email', email, now(), now() + interval '1 day'
FROM account WHERE email LIKE 'unconfirmed%';
INSERT INTO identity SELECT 'github', '4711', id, email, now(), now() FROM account WHERE email LIKE 'own%';
INSERT INTO sign_in_attempt SELECT sha256('attempt'), 'github', 'verifier', '/', true, id, now(),
    now() + interval '1 hour' FROM account WHERE email LIKE 'own%';

-- after: 0005_notices
INSERT INTO notice (account_id, kind, event, data)
SELECT id, 'security', 'key_created', '{"name": "upgrade"}' FROM account;
INSERT INTO notification_preference SELECT id, 'usage', false FROM account WHERE email LIKE 'own%';
INSERT INTO job_error SELECT id, 'the mail server said no', now() FROM procrastinate_jobs LIMIT 1;

-- after: 0006_edge
INSERT INTO throttle VALUES (sha256('door'), ARRAY[now()], false, now() + interval '1 hour');
INSERT INTO request_window SELECT id, now(), 20, 5 FROM account;
INSERT INTO api_usage_day SELECT account_id, current_date, id, 12, 100, 2000 FROM api_key;

-- after: 0011_sql_login
INSERT INTO sql_login (account_id, role)
SELECT id, current_database() || '_grafana_upgrade' FROM account WHERE email LIKE 'own%';
INSERT INTO sql_watch (seen_at) VALUES (now());

-- after: 0012_streams
INSERT INTO stream SELECT gen_random_uuid(), account_id, id, NULL, NULL, now() + interval '1 minute' FROM device;

-- after: 0020_billing
INSERT INTO subscription (account_id, customer_key, customer_id, subscription_id, status, plan, period_end, granted)
SELECT id, 'key', 'cus_1', 'sub_1', 'active', 'paid', now() + interval '20 days', 'paid'
FROM account WHERE email LIKE 'moving%';
INSERT INTO stripe_event VALUES ('evt_1', 'invoice.paid', now());
INSERT INTO usage_warning SELECT id, current_date, 80 FROM account WHERE email LIKE 'free%';
INSERT INTO device (id, account_id, thing_name, verifier, paused_at)
SELECT 'paused', id, 'pump', '$7$1$c2FsdA==$dmVyaWZpZXI=', now() FROM account WHERE email LIKE 'free%';

-- after: 0030_alerts
INSERT INTO alert_rule (account_id, name, kind, device_id, metric, operator, threshold, clear, for_s,
                        created_at, changed_at)
SELECT account_id, 'too warm', 'threshold', device_id, metric, '>', 30, 28, 60, now(), now()
FROM series WHERE metric = 'temperature';
INSERT INTO alert_rule (account_id, name, kind, for_s, created_at, changed_at)
SELECT id, 'silent', 'no_data', 600, now(), now() FROM account;
INSERT INTO alert (account_id, rule_id, rule_name, kind, device_id, metric, state, since, fired_at, value, reason, due)
SELECT account_id, id, name, kind, device_id, metric, 'firing', now(), now(), 31.5, '31.5 > 30', 1
FROM alert_rule WHERE kind = 'threshold';
INSERT INTO alert_watch SELECT id, 4 FROM account;
INSERT INTO alert_mark SELECT id, account_id, device_id, now(), now() FROM series WHERE metric = 'temperature';
INSERT INTO alert_timer (seen_at, counting_from, ingest_at) VALUES (now(), now() - interval '1 day', now());
INSERT INTO channel (account_id, name, url, secret, created_at)
SELECT id, 'hook', 'https://hooks.example.org/1', 'whsec_upgrade', now() FROM account WHERE email LIKE 'own%';
INSERT INTO delivery (account_id, channel_id, event, state, attempts)
SELECT account_id, id, 'alert_fired', 'delivered', '[{"status": 200}]' FROM channel;
INSERT INTO mail_day SELECT id, current_date, 3 FROM account;

-- after: 0040_privacy
INSERT INTO export (account_id, format, status, created_at, finished_at, expires_at, rows, bytes, sha256)
SELECT id, 'ndjson', 'ready', now(), now(), now() + interval '7 days', 100, 5000, 'ab' FROM account;
INSERT INTO privacy_check (at, passed, report) VALUES (now(), true, '{"findings": []}');

-- after: 0041_erasure
INSERT INTO account (email, plan, tier, closing_at) VALUES ('closing@example.org', 'own', 'own', now());
INSERT INTO erasure (account_id, asked_by, asked_at, due_at)
SELECT id, 'person', now(), now() + interval '7 days' FROM account WHERE email LIKE 'closing%';

-- after: 0042_moves
UPDATE account SET tier_told_days = 14 WHERE email LIKE 'paid%';
UPDATE device SET resumed_at = now() WHERE id = 'own';

-- after: 0051_views
INSERT INTO view (account_id, name, shown, created_at, changed_at)
SELECT id, 'cellar', 'devices=own&metrics=temperature', now(), now() FROM account;
UPDATE device SET enabled = false WHERE id = 'paused';
