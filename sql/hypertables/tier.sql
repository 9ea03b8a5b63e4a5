-- A tier: two hypertables of the same shape for every tier, and the policy that ends their chunks.
--
-- telemetry_<tier>        numbers and booleans (1 and 0)
-- telemetry_<tier>_text   text values, few and wide
--
-- account_id fills the four bytes that alignment would leave empty beside series_id.
-- UNIQUE (series_id, time) is the identity of a reading and the only index; no foreign key.
-- create_tier(name, retention, columnstore_after) makes all of it; without the third nothing becomes
-- columnstore.

CREATE OR REPLACE FUNCTION create_tier_table(table_name text, value_type regtype) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    IF to_regclass(table_name) IS NOT NULL THEN
        RETURN;
    END IF;
    EXECUTE format(
        'CREATE TABLE %I (time timestamptz NOT NULL, account_id int NOT NULL,'
        ' series_id int NOT NULL, value %s NOT NULL)', table_name, value_type);
    PERFORM create_hypertable(table_name::regclass, 'time',
        chunk_time_interval => interval '1 day', create_default_indexes => false);
    EXECUTE format('CREATE UNIQUE INDEX %I ON %I (series_id, time)',
        table_name || '_identity', table_name);
END $$;

-- Says who ends the chunks: 'timescaledb', or 'worker' on the Apache edition (SQLSTATE 0A000).
CREATE OR REPLACE FUNCTION set_retention_policy(table_name text, retention interval) RETURNS text
LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (
        SELECT FROM timescaledb_information.jobs
        WHERE proc_name = 'policy_retention' AND hypertable_name = table_name
          AND (config ->> 'drop_after')::interval = retention
          AND schedule_interval = interval '1 hour'
    ) THEN
        RETURN 'timescaledb';
    END IF;
    PERFORM remove_retention_policy(table_name::regclass, if_exists => true);
    PERFORM add_retention_policy(table_name::regclass, retention,
        schedule_interval => interval '1 hour');
    RETURN 'timescaledb';
EXCEPTION WHEN feature_not_supported THEN
    RETURN 'worker';
END $$;

-- Chunks older than `after` become columnstore, looked after every hour, so that one that late
-- readings have made rows of again becomes columnstore once more. Null ends that, and leaves what is.
-- Nothing happens on the Apache edition.
CREATE OR REPLACE FUNCTION set_columnstore_policy(table_name text, after interval) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (
        SELECT FROM timescaledb_information.jobs
        WHERE proc_name = 'policy_compression' AND hypertable_name = table_name
          AND (config ->> 'compress_after')::interval = after
          AND schedule_interval = interval '1 hour'
    ) THEN
        RETURN;
    END IF;
    PERFORM remove_compression_policy(table_name::regclass, if_exists => true);
    IF after IS NULL THEN
        RETURN;
    END IF;
    IF NOT EXISTS (SELECT FROM timescaledb_information.hypertables
                   WHERE hypertable_name = table_name AND compression_enabled) THEN
        EXECUTE format('ALTER TABLE %I SET (timescaledb.compress,'
            ' timescaledb.compress_segmentby = ''account_id, series_id'','
            ' timescaledb.compress_orderby = ''time'')', table_name);
    END IF;
    PERFORM add_compression_policy(table_name::regclass, compress_after => after,
        schedule_interval => interval '1 hour');
EXCEPTION WHEN feature_not_supported THEN
    RETURN;
END $$;

DROP FUNCTION IF EXISTS create_tier(text, interval);
CREATE OR REPLACE FUNCTION create_tier(
    tier_name text, tier_retention interval, columnstore_after interval DEFAULT NULL
) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    keeper text;
    part text;
BEGIN
    PERFORM create_tier_table('telemetry_' || tier_name, 'float8'::regtype);
    PERFORM create_tier_table('telemetry_' || tier_name || '_text', 'text'::regtype);
    FOREACH part IN ARRAY ARRAY['telemetry_' || tier_name, 'telemetry_' || tier_name || '_text'] LOOP
        keeper := set_retention_policy(part, tier_retention);
        PERFORM set_columnstore_policy(part, columnstore_after);
    END LOOP;
    INSERT INTO tier (name, retention, retention_by, columnstore_after)
    VALUES (tier_name, tier_retention, keeper, create_tier.columnstore_after)
    ON CONFLICT (name) DO UPDATE
        SET retention = EXCLUDED.retention, retention_by = EXCLUDED.retention_by,
            columnstore_after = EXCLUDED.columnstore_after;
    PERFORM settle_retention(tier_name);
END $$;

-- A policy cannot be told to wait, and must not drop what a move has still to carry to a tier that
-- keeps it longer. So a tier's policies rest exactly while such a move is open, and the worker applies
-- retention meanwhile. Called by whoever opens and closes moves, in the same transaction, one at a
-- time; returns whether they rest. There is nothing to do on the Apache edition.
CREATE OR REPLACE FUNCTION settle_retention(tier_name text) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    rests boolean := EXISTS (
        SELECT FROM account JOIN tier AS target ON target.name = account.tier
        JOIN tier AS source ON source.name = account.moving_from
        WHERE account.moving_from = tier_name AND target.retention > source.retention);
    policy int;
BEGIN
    FOR policy IN
        SELECT job_id FROM timescaledb_information.jobs
        WHERE proc_name = 'policy_retention' AND scheduled = rests
          AND hypertable_name IN ('telemetry_' || tier_name, 'telemetry_' || tier_name || '_text')
    LOOP
        PERFORM alter_job(policy, scheduled => NOT rests);
    END LOOP;
    RETURN rests;
END $$;
REVOKE EXECUTE ON FUNCTION settle_retention(text) FROM PUBLIC;

-- What the policy does, for the edition that has none and while the policy rests; also the worker's
-- watch on the other. What open moves out of the tier still owe stays. It runs as the owner, since
-- only an owner may drop chunks, and takes its period from the tier.
CREATE OR REPLACE FUNCTION apply_retention(tier_name text) RETURNS int
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    period interval := (SELECT retention FROM tier WHERE name = tier_name);
    boundary timestamptz;
    dropped int := 0;
    part text;
BEGIN
    IF period IS NULL THEN
        RAISE EXCEPTION 'no tier named %', tier_name;
    END IF;
    boundary := least(now() - period, (
        SELECT min(greatest(account.readable_from, now() - target.retention))
        FROM account JOIN tier AS target ON target.name = account.tier
        WHERE account.moving_from = tier_name));
    FOREACH part IN ARRAY ARRAY['telemetry_' || tier_name, 'telemetry_' || tier_name || '_text'] LOOP
        dropped := dropped + (SELECT count(*) FROM drop_chunks(part::regclass, older_than => boundary));
    END LOOP;
    RETURN dropped;
END $$;
REVOKE EXECUTE ON FUNCTION apply_retention(text) FROM PUBLIC;
