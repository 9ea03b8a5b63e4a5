-- How tiers were made at the first schema, kept as it was: what an upgrade begins with.

-- A tier: two hypertables of the same shape for every tier, and the policy that ends their chunks.
--
-- telemetry_<tier>        numbers and booleans (1 and 0)
-- telemetry_<tier>_text   text values, few and wide
--
-- account_id fills the four bytes that alignment would leave empty beside series_id.
-- UNIQUE (series_id, time) is the identity of a reading and the only index; no foreign key.

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

CREATE OR REPLACE FUNCTION create_tier(tier_name text, tier_retention interval) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    keeper text;
BEGIN
    PERFORM create_tier_table('telemetry_' || tier_name, 'float8'::regtype);
    PERFORM create_tier_table('telemetry_' || tier_name || '_text', 'text'::regtype);
    keeper := set_retention_policy('telemetry_' || tier_name, tier_retention);
    PERFORM set_retention_policy('telemetry_' || tier_name || '_text', tier_retention);
    INSERT INTO tier (name, retention, retention_by)
    VALUES (tier_name, tier_retention, keeper)
    ON CONFLICT (name) DO UPDATE
        SET retention = EXCLUDED.retention, retention_by = EXCLUDED.retention_by;
END $$;

-- What the policy does, for the edition that has none; also the worker's watch on the other.
CREATE OR REPLACE FUNCTION apply_retention(tier_name text) RETURNS int
LANGUAGE plpgsql AS $$
DECLARE
    period interval := (SELECT retention FROM tier WHERE name = tier_name);
    dropped int := 0;
    part text;
BEGIN
    IF period IS NULL THEN
        RAISE EXCEPTION 'no tier named %', tier_name;
    END IF;
    FOREACH part IN ARRAY ARRAY['telemetry_' || tier_name, 'telemetry_' || tier_name || '_text'] LOOP
        dropped := dropped + (SELECT count(*) FROM drop_chunks(part::regclass, older_than => period));
    END LOOP;
    RETURN dropped;
END $$;

SELECT create_tier('free', interval '7 days');
SELECT create_tier('own', interval '365 days');
SELECT create_tier('paid', interval '90 days');
