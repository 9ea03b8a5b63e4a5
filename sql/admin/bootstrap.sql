-- What only a superuser can do, run by `paqett migrate` where it is one: extension, roles, REVOKEs.
CREATE EXTENSION IF NOT EXISTS timescaledb;

DO $$
DECLARE
    db text := current_database();
    part text;
BEGIN
    FOREACH part IN ARRAY ARRAY['_owner', '_api', '_ingest', '_worker', '_admin'] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = db || part) THEN
            EXECUTE format('CREATE ROLE %I LOGIN', db || part);
        END IF;
    END LOOP;
    EXECUTE format('ALTER DATABASE %I OWNER TO %I', db, db || '_owner');
    EXECUTE format('REVOKE ALL ON DATABASE %I FROM PUBLIC', db);
    EXECUTE format('GRANT CONNECT, TEMPORARY ON DATABASE %I TO %I, %I, %I', db, db || '_api', db || '_ingest', db || '_worker');
    EXECUTE format('GRANT CONNECT ON DATABASE %I TO %I', db, db || '_admin');
    EXECUTE format('ALTER ROLE %I SET default_transaction_read_only = on', db || '_admin');
    EXECUTE format('ALTER ROLE %I SET search_path = admin, public', db || '_admin');
    EXECUTE format('GRANT ALL ON SCHEMA public TO %I', db || '_owner');
END $$;
REVOKE CREATE ON SCHEMA public FROM PUBLIC;

-- Before 2.29.1 any login can drop any chunk through _timescaledb_functions.drop_chunk, even in a
-- read-only transaction. USAGE on the schemas stays: without it the extension does not load.
DO $$
DECLARE
    db text := current_database();
    place text;
BEGIN
    FOREACH place IN ARRAY ARRAY['_timescaledb_functions', '_timescaledb_internal'] LOOP
        IF EXISTS (SELECT FROM pg_namespace WHERE nspname = place) THEN
            EXECUTE format('REVOKE EXECUTE ON ALL ROUTINES IN SCHEMA %I FROM PUBLIC', place);
            EXECUTE format('GRANT EXECUTE ON ALL ROUTINES IN SCHEMA %I TO %I, %I, %I, %I',
                place, db || '_owner', db || '_api', db || '_ingest', db || '_worker');
        END IF;
    END LOOP;
    FOREACH place IN ARRAY ARRAY['_timescaledb_catalog', 'timescaledb_information'] LOOP
        EXECUTE format('REVOKE SELECT ON ALL TABLES IN SCHEMA %I FROM PUBLIC', place);
        EXECUTE format('GRANT SELECT ON ALL TABLES IN SCHEMA %I TO %I, %I, %I, %I',
            place, db || '_owner', db || '_api', db || '_ingest', db || '_worker');
    END LOOP;
END $$;

-- Of a table that became empty PostgreSQL keeps the samples it has, the last owner's values among
-- them, and ANALYZE does not take them away. Nobody but a superuser can; where none migrates, they
-- go with the table's next rows.
CREATE OR REPLACE FUNCTION public.forget_samples(part regclass) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    found boolean;
BEGIN
    IF NOT EXISTS (SELECT FROM pg_class WHERE oid = part AND relkind = 'r' AND relowner =
                   (SELECT relowner FROM pg_class WHERE oid = to_regclass('public.account'))) THEN
        RAISE insufficient_privilege USING MESSAGE = format('%s is no table of ours', part);
    END IF;
    EXECUTE format('SELECT EXISTS (SELECT FROM %s)', part) INTO found;
    IF NOT found THEN
        DELETE FROM pg_statistic WHERE starelid = part;
    END IF;
END $$;
REVOKE EXECUTE ON FUNCTION public.forget_samples(regclass) FROM PUBLIC;
DO $$ BEGIN
    EXECUTE format('GRANT EXECUTE ON FUNCTION public.forget_samples(regclass) TO %I',
        current_database() || '_owner');
END $$;
