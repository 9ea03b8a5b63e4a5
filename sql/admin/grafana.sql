-- What an account's SQL login sees: views keyed by session_user. Re-run at every migrate, since a
-- new tier is a new branch of grafana.telemetry.
--
-- Whatever can come out of a function does: EXPLAIN then shows neither other accounts' rows nor
-- what the planner knows of them. Readings cannot, because a range of time must reach the chunks;
-- there the account's series drive a lateral join whose branches the planner may not flatten, so
-- it can never scan a chunk without the series' number, whatever the login sets.
-- grafana_inside grants nobody USAGE: its functions are reached through the views alone.
CREATE SCHEMA IF NOT EXISTS grafana;
CREATE SCHEMA IF NOT EXISTS grafana_inside;
DROP VIEW IF EXISTS grafana.telemetry, grafana.latest, grafana.devices, grafana.series;
DROP FUNCTION IF EXISTS grafana_inside.my_series(), grafana_inside.my_devices(),
    grafana_inside.my_latest(), grafana_inside.has_number(int, timestamptz);

-- Logins are ended, watched and erased at the primary, and a replica may be behind: it shows nothing.
CREATE OR REPLACE FUNCTION grafana_inside.at_primary() RETURNS boolean
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF pg_is_in_recovery() THEN
        RAISE EXCEPTION 'SQL logins of accounts read from the primary alone'
            USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;
    RETURN true;
END $$;

-- The login's series, each with where its readings stand and how far back they may be read, in its
-- own tier and in the one they move from.
CREATE FUNCTION grafana_inside.my_series() RETURNS TABLE (
    id int, account_id int, device text, thing_name text, metric text, kind text, label text,
    unit text, mixed boolean, created_at timestamptz, tier text, moving_from text, oldest timestamptz,
    moving_oldest timestamptz
) LANGUAGE sql STABLE SECURITY DEFINER ROWS 100 SET search_path = public, pg_temp AS $$
    SELECT s.id, s.account_id, s.device_id, d.thing_name, s.metric, s.kind, s.label, s.unit, s.mixed,
           s.created_at, a.tier, a.moving_from,
           CASE WHEN a.moving_from IS NULL THEN greatest(now() - t.retention, a.readable_from)
                ELSE now() - t.retention END,
           greatest(now() - t.retention, a.readable_from)
    FROM sql_login AS l
    JOIN account AS a ON a.id = l.account_id
    JOIN tier AS t ON t.name = a.tier
    JOIN series AS s ON s.account_id = a.id
    JOIN device AS d ON d.id = s.device_id
    WHERE l.role = session_user::text AND grafana_inside.at_primary()
$$;

CREATE FUNCTION grafana_inside.my_devices() RETURNS TABLE (
    device text, thing_name text, friendly_name text, tags text[], mac_address text,
    firmware_version text, attributes jsonb, connection text, connection_since timestamptz,
    connection_reason text, data text, last_at timestamptz, report_interval float8,
    created_at timestamptz
) LANGUAGE sql STABLE SECURITY DEFINER ROWS 50 SET search_path = public, pg_temp AS $$
    SELECT d.id, d.thing_name, d.friendly_name, d.tags, d.mac_address::text, d.firmware_version,
           d.attributes, s.shown_connection, s.shown_since, s.shown_reason, s.data_status,
           s.data_last_at, s.data_interval, d.created_at
    FROM sql_login AS l
    JOIN device AS d ON d.account_id = l.account_id
    CROSS JOIN LATERAL device_status(d, now()) AS s
    WHERE l.role = session_user::text AND grafana_inside.at_primary()
$$;

-- The newest reading of each of the login's series: one look into the index each, in the tables of
-- its own tier alone.
CREATE FUNCTION grafana_inside.my_latest() RETURNS TABLE (
    "time" timestamptz, device text, thing_name text, metric text, kind text, unit text,
    value float8, text text
) LANGUAGE plpgsql STABLE SECURITY DEFINER ROWS 100 SET search_path = public, pg_temp AS $$
DECLARE
    looks text;
BEGIN
    SELECT string_agg(format(
        '(SELECT time, %s FROM %I WHERE account_id = s.account_id AND series_id = s.id'
        ' AND time >= s.%I ORDER BY time DESC LIMIT 1)',
        form.columns, 'telemetry_' || place.tier || form.suffix, place.oldest), ' UNION ALL ')
    INTO looks
    FROM sql_login AS l
    JOIN account AS a ON a.id = l.account_id
    CROSS JOIN LATERAL (VALUES (a.tier, 'oldest'), (a.moving_from, 'moving_oldest'))
        AS place (tier, oldest)
    CROSS JOIN (VALUES ('', 'value, NULL::text AS text'), ('_text', 'NULL::float8, value'))
        AS form (suffix, columns)
    WHERE l.role = session_user::text AND place.tier IS NOT NULL AND grafana_inside.at_primary();
    IF looks IS NOT NULL THEN
        RETURN QUERY EXECUTE
            'SELECT r.time, s.device, s.thing_name, s.metric, s.kind, s.unit, r.value, r.text'
            ' FROM grafana_inside.my_series() AS s CROSS JOIN LATERAL (' || looks ||
            ' ORDER BY time DESC, value LIMIT 1) AS r';
    END IF;
END $$;

-- Whether one of the login's series holds a number at this time: a series whose kind changed may
-- hold both, and the number is the reading.
CREATE FUNCTION grafana_inside.has_number(series int, at timestamptz) RETURNS boolean
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    place text;
    found_one boolean;
BEGIN
    FOR place IN
        SELECT unnest(ARRAY[a.tier, a.moving_from])
        FROM sql_login AS l
        JOIN account AS a ON a.id = l.account_id
        JOIN series AS s ON s.account_id = a.id AND s.id = has_number.series
        WHERE l.role = session_user::text
    LOOP
        CONTINUE WHEN place IS NULL;
        EXECUTE format('SELECT EXISTS (SELECT FROM %I WHERE series_id = $1 AND time = $2)',
            'telemetry_' || place) INTO found_one USING series, at;
        IF found_one THEN
            RETURN true;
        END IF;
    END LOOP;
    RETURN false;
END $$;

DO $$
DECLARE
    branches text;
BEGIN
    SELECT string_agg(format(
        'SELECT time, %s FROM %I WHERE %L IN (s.tier, s.moving_from) AND account_id = s.account_id'
        ' AND series_id = s.id AND time >= CASE WHEN s.tier = %L THEN s.oldest ELSE s.moving_oldest END %s',
        form.columns, 'telemetry_' || tier.name || form.suffix, tier.name, tier.name, form.more),
        ' UNION ALL ')
    INTO branches
    FROM tier CROSS JOIN (VALUES
        ('', 'value, NULL::text AS text', ''),
        ('_text', 'NULL::float8, value',
         'AND NOT (s.mixed AND grafana_inside.has_number(s.id, time))')
    ) AS form (suffix, columns, more);
    -- value and text are computed beside the join: what the planner knows of all accounts' values
    -- then plays no part in the estimates that EXPLAIN shows
    EXECUTE
        'CREATE VIEW grafana.telemetry WITH (security_barrier) AS'
        ' SELECT r.time, s.device, s.thing_name, s.metric, s.kind, s.unit,'
        '        CASE WHEN s.id IS NOT NULL THEN r.value END AS value,'
        '        CASE WHEN s.id IS NOT NULL THEN r.text END AS text,'
        '        CASE WHEN s.kind = ''boolean'' THEN r.value <> 0 END AS boolean'
        ' FROM grafana_inside.my_series() AS s CROSS JOIN LATERAL ('
        || coalesce(branches, 'SELECT now() AS time, 0::float8 AS value, NULL::text AS text LIMIT 0')
        || ') AS r';
END $$;

CREATE VIEW grafana.latest WITH (security_barrier) AS
    SELECT time, device, thing_name, metric, kind, unit, value, text,
           CASE WHEN kind = 'boolean' THEN value <> 0 END AS boolean
    FROM grafana_inside.my_latest();
CREATE VIEW grafana.devices WITH (security_barrier) AS
    SELECT * FROM grafana_inside.my_devices();
CREATE VIEW grafana.series WITH (security_barrier) AS
    SELECT device, thing_name, metric, kind, label, unit, created_at FROM grafana_inside.my_series();

COMMENT ON VIEW grafana.telemetry IS
    'The account''s readings; put a range of time into WHERE. value: numbers, and booleans as 1 and 0.';
COMMENT ON VIEW grafana.latest IS 'The newest reading of each series.';
COMMENT ON VIEW grafana.devices IS 'The account''s devices with their connection and the freshness of their data.';
COMMENT ON VIEW grafana.series IS 'The metrics of each device.';
REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA grafana_inside FROM PUBLIC;
