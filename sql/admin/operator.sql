-- What an operator looks at: counts, times and sizes, never readings. Re-run at every migrate.
-- docs/admin-sql.md has worked examples; <db>_admin may read this schema and nothing else.
CREATE SCHEMA IF NOT EXISTS admin;
DROP VIEW IF EXISTS admin.usage, admin.accounts, admin.ingest_lag, admin.rejections,
    admin.retention, admin.job_failures, admin.chunks, admin.sizes, admin.sql_logins;
DROP FUNCTION IF EXISTS admin.largest_devices(interval, int), admin.oldest_reading(text),
    admin.every_chunk();

CREATE VIEW admin.accounts AS
    SELECT a.id AS account_id, a.email, a.plan, a.tier, a.moving_from, a.tier_due_at, a.created_at,
           (SELECT count(*) FROM device WHERE account_id = a.id) AS devices,
           (SELECT count(*) FROM series WHERE account_id = a.id) AS series
    FROM account AS a;
COMMENT ON VIEW admin.accounts IS 'moving_from: a move between tiers is open; tier_due_at: when one will begin.';

CREATE VIEW admin.usage AS
    SELECT u.day, u.account_id, a.email, a.plan, u.messages, u.points, u.late, u.duplicates, u.bytes,
           u.rejected
    FROM (
        SELECT account_id, (hour AT TIME ZONE 'UTC')::date AS day, sum(messages)::bigint AS messages,
               sum(points)::bigint AS points, sum(late)::bigint AS late,
               sum(duplicates)::bigint AS duplicates, sum(bytes)::bigint AS bytes,
               sum(rejected)::bigint AS rejected
        FROM (
            SELECT account_id, hour, messages, points, late, duplicates, bytes, 0 AS rejected
            FROM usage_hour
            UNION ALL
            SELECT account_id, hour, 0, 0, 0, 0, 0, points FROM rejection_hour
        ) AS counted
        GROUP BY account_id, (hour AT TIME ZONE 'UTC')::date
    ) AS u JOIN account AS a ON a.id = u.account_id;
COMMENT ON VIEW admin.usage IS
    'One row for each account and UTC day of receipt. A point is one metric value; late ones are among points.';

CREATE VIEW admin.ingest_lag AS
    SELECT a.id AS account_id, a.email, u.received_at, now() - u.received_at AS lag, u.devices
    FROM account AS a
    JOIN (
        SELECT account_id, max(last_fresh_at) AS received_at,
               count(DISTINCT device_id) FILTER (WHERE last_fresh_at > now() - interval '1 hour') AS devices
        FROM usage_hour WHERE hour > now() - interval '7 days' GROUP BY account_id
    ) AS u ON u.account_id = a.id;
COMMENT ON VIEW admin.ingest_lag IS
    'When each account''s newest fresh reading of 7 days was received, and how many devices sent one within the hour.';

CREATE VIEW admin.rejections AS
    SELECT r.hour, r.account_id, a.email, r.device_id, r.code, r.points
    FROM rejection_hour AS r JOIN account AS a ON a.id = r.account_id;
COMMENT ON VIEW admin.rejections IS 'Refused points by hour of receipt, device and code.';

CREATE FUNCTION admin.largest_devices(past interval DEFAULT '7 days', how_many int DEFAULT 20)
RETURNS TABLE (device_id text, thing_name text, account_id int, email text, points bigint,
               messages bigint, bytes bigint, series bigint)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT u.device_id, d.thing_name, u.account_id, a.email, u.points, u.messages, u.bytes,
           (SELECT count(*) FROM series AS s WHERE s.device_id = u.device_id)
    FROM (
        SELECT device_id, account_id, sum(points)::bigint AS points, sum(messages)::bigint AS messages,
               sum(bytes)::bigint AS bytes
        FROM usage_hour WHERE hour > now() - past
        GROUP BY device_id, account_id
        ORDER BY sum(points) DESC, device_id LIMIT how_many
    ) AS u
    JOIN account AS a ON a.id = u.account_id
    LEFT JOIN device AS d ON d.id = u.device_id
    ORDER BY u.points DESC, u.device_id
$$;

-- Definer: the time of a reading is a count's worth of knowledge, the reading itself is not given.
CREATE FUNCTION admin.oldest_reading(tier_name text) RETURNS timestamptz
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    oldest timestamptz;
BEGIN
    IF NOT EXISTS (SELECT FROM tier WHERE name = tier_name) THEN
        RAISE EXCEPTION 'no tier named %', tier_name;
    END IF;
    EXECUTE format('SELECT least((SELECT time FROM %I ORDER BY time LIMIT 1),'
        ' (SELECT time FROM %I ORDER BY time LIMIT 1))',
        'telemetry_' || tier_name, 'telemetry_' || tier_name || '_text') INTO oldest;
    RETURN oldest;
END $$;

-- Definer: the extension's view calls functions that are closed to other roles.
CREATE FUNCTION admin.every_chunk() RETURNS TABLE (
    hypertable text, chunk text, range_start timestamptz, range_end timestamptz, bytes bigint)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT hypertable_name::text, chunk_name::text, range_start, range_end,
           pg_total_relation_size(format('%I.%I', chunk_schema, chunk_name)::regclass)
    FROM timescaledb_information.chunks
$$;
CREATE VIEW admin.chunks AS SELECT * FROM admin.every_chunk();

CREATE VIEW admin.sizes AS
    SELECT coalesce(c.hypertable_name::text, t.relname::text) AS table_name, count(c.chunk_name) AS chunks,
           sum(pg_table_size(t.oid))::bigint AS table_bytes,
           sum(pg_indexes_size(t.oid))::bigint AS index_bytes,
           sum(pg_total_relation_size(t.oid))::bigint AS bytes
    FROM pg_class AS t
    JOIN pg_namespace AS n ON n.oid = t.relnamespace
    LEFT JOIN timescaledb_information.chunks AS c
        ON c.chunk_schema = n.nspname AND c.chunk_name = t.relname
    WHERE t.relkind = 'r' AND (n.nspname = 'public' OR c.chunk_name IS NOT NULL)
    GROUP BY 1;
COMMENT ON VIEW admin.sizes IS 'Every table, a hypertable with all of its chunks.';

CREATE VIEW admin.retention AS
    SELECT t.name AS tier, t.retention, t.retention_by, o.oldest AS oldest_reading,
           now() - o.oldest AS age,
           -- whole chunks are dropped: at worst a reading lives a chunk and two rounds longer
           coalesce(now() - o.oldest > t.retention + interval '26 hours', false) AS overdue,
           p.policies, p.last_success, p.failures
    FROM tier AS t
    CROSS JOIN LATERAL (SELECT admin.oldest_reading(t.name) AS oldest) AS o
    CROSS JOIN LATERAL (
        SELECT count(*) AS policies, 
               nullif(min(s.last_successful_finish), '-infinity') AS last_success,
               coalesce(sum(s.total_failures), 0)::bigint AS failures
        FROM timescaledb_information.jobs AS j
        LEFT JOIN timescaledb_information.job_stats AS s USING (job_id)
        WHERE j.proc_name = 'policy_retention'
          AND j.hypertable_name::text IN ('telemetry_' || t.name, 'telemetry_' || t.name || '_text')
    ) AS p;
COMMENT ON VIEW admin.retention IS
    'retention_by worker: the edition has no policies, so policies is 0 and the worker drops chunks.';

-- Without arguments: a job may carry a person's address.
CREATE VIEW admin.job_failures AS
    SELECT 'paqett' AS queue, j.id, j.task_name::text AS job, j.status::text AS status,
           j.attempts::bigint AS failures, (SELECT max(e.at) FROM procrastinate_events AS e WHERE e.job_id = j.id) AS at
    FROM procrastinate_jobs AS j
    WHERE j.status::text IN ('failed', 'aborted') OR (j.attempts > 0 AND j.status::text IN ('todo', 'doing'))
    UNION ALL
    SELECT 'timescaledb', j.job_id, concat_ws(' ', j.proc_name, j.hypertable_name),
           s.last_run_status::text, s.total_failures, s.last_run_started_at
    FROM timescaledb_information.jobs AS j
    JOIN timescaledb_information.job_stats AS s USING (job_id)
    WHERE s.total_failures > 0 AND j.job_id >= 1000; -- below are the extension's own
COMMENT ON VIEW admin.job_failures IS 'Jobs that failed for good, or are being tried again.';

CREATE VIEW admin.sql_logins AS
    SELECT l.account_id, a.email, l.role, l.created_at, l.strikes, l.struck_at
    FROM sql_login AS l JOIN account AS a ON a.id = l.account_id;
COMMENT ON VIEW admin.sql_logins IS 'strikes: how often lately the watch had to end what the login kept running.';

DO $$
DECLARE
    admin text := current_database() || '_admin';
    api text := current_database() || '_api';
    worker text := current_database() || '_worker';
BEGIN
    REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA admin FROM PUBLIC;
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = admin) THEN
        EXECUTE format('GRANT USAGE ON SCHEMA public, admin TO %I', admin);
        EXECUTE format('GRANT SELECT ON ALL TABLES IN SCHEMA admin TO %I', admin);
        EXECUTE format('GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA admin TO %I', admin);
    END IF;
    -- for the page of operators
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = api) THEN
        EXECUTE format('GRANT USAGE ON SCHEMA admin TO %I', api);
        EXECUTE format('GRANT SELECT ON admin.accounts, admin.usage, admin.ingest_lag, admin.rejections,'
            ' admin.retention, admin.job_failures, admin.sizes TO %I', api);
        EXECUTE format('GRANT EXECUTE ON FUNCTION admin.oldest_reading(text),'
            ' admin.largest_devices(interval, int) TO %I', api);
    END IF;
    -- for the metrics
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = worker) THEN
        EXECUTE format('GRANT USAGE ON SCHEMA admin TO %I', worker);
        EXECUTE format('GRANT SELECT ON admin.sizes TO %I', worker);
    END IF;
END $$;
