-- SQL logins of accounts, and what they must not reach. Run by `paqett migrate` where it is a
-- superuser, after everything else; where it never was one, such logins are refused.
DO $$
DECLARE
    db text := current_database();
    logins text := db || '_logins';
    tenants text := db || '_grafana';
BEGIN
    -- <db>_logins owns the functions below and nothing else; <db>_grafana is what every login is in
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = logins) THEN
        EXECUTE format('CREATE ROLE %I NOLOGIN CREATEROLE', logins);
    END IF;
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = tenants) THEN
        EXECUTE format('CREATE ROLE %I NOLOGIN', tenants);
    END IF;
    EXECUTE format('GRANT %I TO %I WITH ADMIN OPTION', tenants, logins);
    EXECUTE format('GRANT pg_signal_backend, pg_read_all_stats TO %I', logins);
    EXECUTE format('GRANT SET ON PARAMETER temp_file_limit TO %I', logins);
    EXECUTE format('GRANT USAGE ON SCHEMA public TO %I', logins);
    EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON sql_login TO %I', logins);
    EXECUTE format('GRANT SELECT, INSERT, UPDATE ON sql_watch TO %I', logins);
    EXECUTE format('GRANT CONNECT ON DATABASE %I TO %I', db, tenants);
    EXECUTE format('GRANT USAGE ON SCHEMA public, grafana TO %I', tenants);
    EXECUTE format('GRANT SELECT ON ALL TABLES IN SCHEMA grafana TO %I', tenants);
    EXECUTE format('GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA grafana_inside TO %I', tenants);
END $$;

-- A role for the account, or a new password for the one it has; either way nobody who was signed in
-- stays. `verifier` is SCRAM-SHA-256's, made by the caller: the password never comes here.
CREATE OR REPLACE FUNCTION create_sql_login(account int, verifier text, limit_s int) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    prefix text := regexp_replace(current_user, '_logins$', '_grafana');
    login text;
    fresh boolean;
BEGIN
    IF length(prefix) > 50 THEN
        RAISE EXCEPTION 'the name of this database is too long for SQL logins: at most 42 bytes';
    END IF;
    IF verifier !~ '^SCRAM-SHA-256\$[0-9]+:[A-Za-z0-9+/=]{20,}\$[A-Za-z0-9+/=]{40,}:[A-Za-z0-9+/=]{40,}$'
    THEN
        RAISE EXCEPTION 'not a SCRAM-SHA-256 verifier' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    -- the name says nothing: other logins may guess it, and must learn no account's number
    INSERT INTO sql_login (account_id, role)
    VALUES (account, prefix || '_' || left(replace(gen_random_uuid()::text, '-', ''), 12))
    ON CONFLICT (account_id) DO UPDATE SET created_at = now(), strikes = 0
    RETURNING role, xmax = 0 INTO login, fresh;
    IF fresh THEN
        EXECUTE format('CREATE ROLE %I LOGIN CONNECTION LIMIT 3 NOSUPERUSER NOCREATEDB NOCREATEROLE'
            ' NOREPLICATION NOBYPASSRLS INHERIT IN ROLE %I PASSWORD %L', login, prefix, verifier);
    ELSE
        EXECUTE format('ALTER ROLE %I LOGIN CONNECTION LIMIT 3 PASSWORD %L', login, verifier);
        -- a role may change its own settings for good
        EXECUTE format('ALTER ROLE %I RESET ALL', login);
        EXECUTE format('ALTER ROLE %I IN DATABASE %I RESET ALL', login, current_database());
        PERFORM pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = login;
    END IF;
    -- all but the last a login may set otherwise: the watch is what holds
    EXECUTE format('ALTER ROLE %I SET statement_timeout = %L', login, limit_s || 's');
    EXECUTE format('ALTER ROLE %I SET idle_in_transaction_session_timeout = %L', login, limit_s || 's');
    EXECUTE format('ALTER ROLE %I SET default_transaction_read_only = on', login);
    EXECUTE format('ALTER ROLE %I SET search_path = grafana, public', login);
    EXECUTE format('ALTER ROLE %I SET timezone = ''UTC''', login);
    EXECUTE format('ALTER ROLE %I SET max_parallel_workers_per_gather = 0', login);
    EXECUTE format('ALTER ROLE %I SET temp_file_limit = ''1GB''', login);
    RETURN login;
END $$;

-- The row is the login: whatever deletes it, an account's erasure too, ends the role.
CREATE OR REPLACE FUNCTION drop_sql_login() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    IF NOT starts_with(OLD.role, regexp_replace(current_user, '_logins$', '_grafana_')) THEN
        RAISE EXCEPTION '% is no SQL login of an account', OLD.role;
    END IF;
    PERFORM pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = OLD.role;
    BEGIN
        EXECUTE format('DROP ROLE IF EXISTS %I', OLD.role);
    EXCEPTION WHEN dependent_objects_still_exist THEN
        -- somebody gave it more than we do: erasing an account must not fail for that
        EXECUTE format('ALTER ROLE %I NOLOGIN PASSWORD NULL', OLD.role);
    END;
    RETURN NULL;
END $$;

-- The watch: ends what a login keeps open longer than `limit_s`. A running query is cancelled; an
-- idle transaction, the third strike within 10 minutes, and a session whose login is gone are
-- closed. Says what it did.
CREATE OR REPLACE FUNCTION watch_sql_logins(limit_s float8)
RETURNS TABLE (login text, action text, seconds float8)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    prefix text := regexp_replace(current_user, '_logins$', '_grafana_');
    one record;
    struck int;
BEGIN
    INSERT INTO sql_watch (seen_at) VALUES (now())
    ON CONFLICT (singleton) DO UPDATE SET seen_at = EXCLUDED.seen_at;
    FOR one IN
        SELECT a.pid, a.state, l.account_id, coalesce(a.usename::text, '') AS role,
               extract(epoch FROM clock_timestamp() - coalesce(a.xact_start, a.backend_start))::float8 AS age
        FROM pg_stat_activity AS a LEFT JOIN sql_login AS l ON l.role = a.usename
        WHERE a.datname = current_database() AND a.backend_type = 'client backend'
          AND CASE WHEN l.role IS NOT NULL
                   THEN a.xact_start < clock_timestamp() - make_interval(secs => limit_s)
                   ELSE a.usesysid IS NOT NULL
                        AND (a.usename IS NULL OR starts_with(a.usename, prefix)) END
    LOOP
        struck := 0;
        UPDATE sql_login SET struck_at = now(),
            strikes = CASE WHEN struck_at > now() - interval '10 minutes' THEN strikes ELSE 0 END + 1
        WHERE account_id = one.account_id RETURNING strikes INTO struck;
        login := one.role;
        seconds := one.age;
        IF one.account_id IS NOT NULL AND one.state = 'active' AND struck < 3 THEN
            action := 'canceled';
            PERFORM pg_cancel_backend(one.pid);
        ELSE
            action := 'terminated';
            PERFORM pg_terminate_backend(one.pid);
        END IF;
        RETURN NEXT;
    END LOOP;
END $$;

DO $$
DECLARE
    db text := current_database();
    ours text := format('%I, %I, %I, %I', db || '_owner', db || '_api', db || '_ingest', db || '_worker');
    name text;
    part record;
BEGIN
    FOREACH name IN ARRAY ARRAY[
        'create_sql_login(int, text, int)', 'drop_sql_login()', 'watch_sql_logins(float8)'
    ] LOOP
        EXECUTE format('ALTER FUNCTION %s OWNER TO %I', name, db || '_logins');
    END LOOP;

    EXECUTE format('REVOKE EXECUTE ON FUNCTION create_sql_login(int, text, int), drop_sql_login(),'
        ' watch_sql_logins(float8) FROM PUBLIC, %s', ours);
    EXECUTE format('GRANT EXECUTE ON FUNCTION create_sql_login(int, text, int) TO %I, %I', db || '_owner', db || '_api');
    EXECUTE format('GRANT EXECUTE ON FUNCTION watch_sql_logins(float8) TO %I, %I', db || '_owner', db || '_worker');

    -- Functions in public: an SQL login may call TimescaleDB's aggregates, nothing else.
    FOR part IN
        SELECT p.oid::regprocedure AS routine FROM pg_proc AS p
        CROSS JOIN LATERAL aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) AS acl
        WHERE p.pronamespace = 'public'::regnamespace AND acl.grantee = 0
    LOOP
        EXECUTE format('REVOKE EXECUTE ON ROUTINE %s FROM PUBLIC', part.routine);
        EXECUTE format('GRANT EXECUTE ON ROUTINE %s TO %s', part.routine, ours);
    END LOOP;
    FOR part IN
        SELECT p.oid::regprocedure AS routine FROM pg_proc AS p
        JOIN pg_depend AS d ON d.objid = p.oid AND d.classid = 'pg_proc'::regclass AND d.deptype = 'e'
        JOIN pg_extension AS e ON e.oid = d.refobjid AND e.extname = 'timescaledb'
        WHERE p.pronamespace = 'public'::regnamespace AND p.proname IN (
            'time_bucket', 'time_bucket_gapfill', 'locf', 'interpolate', 'first', 'last', 'histogram')
    LOOP
        EXECUTE format('GRANT EXECUTE ON ROUTINE %s TO %I', part.routine, db || '_grafana');
    END LOOP;

    -- TimescaleDB's own schemas, beyond what bootstrap.sql closes; chunks stay their owner's. USAGE
    -- on _timescaledb_internal stays too: without it no query over a hypertable is planned.
    FOR part IN
        SELECT c.oid::regclass AS relation FROM pg_class AS c
        JOIN pg_namespace AS n ON n.oid = c.relnamespace
        JOIN pg_depend AS d ON d.objid = c.oid AND d.classid = 'pg_class'::regclass AND d.deptype = 'e'
        WHERE c.relkind IN ('r', 'v', 'S') AND n.nspname IN ('_timescaledb_catalog',
            '_timescaledb_config', '_timescaledb_cache', '_timescaledb_internal', '_timescaledb_debug', 'timescaledb_experimental')
    LOOP
        EXECUTE format('REVOKE ALL ON %s FROM PUBLIC', part.relation);
        EXECUTE format('GRANT SELECT ON %s TO %s', part.relation, ours);
    END LOOP;
    FOR part IN
        SELECT nspname FROM pg_namespace WHERE nspname IN ('timescaledb_experimental', '_timescaledb_debug')
    LOOP
        EXECUTE format('REVOKE EXECUTE ON ALL ROUTINES IN SCHEMA %I FROM PUBLIC', part.nspname);
        EXECUTE format('GRANT EXECUTE ON ALL ROUTINES IN SCHEMA %I TO %s', part.nspname, ours);
    END LOOP;

    -- PostgreSQL's own. Advisory locks: one of them stops every flush. Large objects: rows that
    -- outlive the login and fill the disk. Statistics and sizes: other accounts' volumes and
    -- sessions. Messages into the log of changes: it fills the disk. Who monitors keeps them.
    FOR part IN
        SELECT p.oid::regprocedure AS routine FROM pg_proc AS p
        WHERE p.pronamespace = 'pg_catalog'::regnamespace AND p.proname ~
            ('^(pg_(try_)?advisory_|lo_|loread$|lowrite$|pg_stat_get_|pg_lock_status$|pg_prepared_xact$'
             '|pg_logical_emit_message$|pg_notify$|pg_export_snapshot$|pg_blocking_pids$'
             '|pg_(database|relation|total_relation|table|indexes|tablespace|column)_size$)')
    LOOP
        EXECUTE format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC', part.routine);
        EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO pg_read_all_stats, %I, %s', part.routine, db || '_admin', ours);
    END LOOP;
    FOR part IN
        SELECT c.oid::regclass AS relation FROM pg_class AS c
        WHERE c.relnamespace = 'pg_catalog'::regnamespace AND c.relkind IN ('r', 'v') AND c.relname ~
            ('^(pg_stat_|pg_statio_|pg_stats|pg_locks$|pg_roles$|pg_user$|pg_group$|pg_auth_members$'
             '|pg_db_role_setting$|pg_prepared_xacts$|pg_shdepend$|pg_largeobject_metadata$|pg_class$)')
          AND EXISTS (SELECT FROM aclexplode(c.relacl) AS acl WHERE acl.grantee = 0)
    LOOP
        EXECUTE format('REVOKE SELECT ON %s FROM PUBLIC', part.relation);
        EXECUTE format('GRANT SELECT ON %s TO pg_read_all_stats, %I, %s', part.relation, db || '_admin', ours);
    END LOOP;
    -- of pg_class everything but how large each table and chunk is
    SELECT string_agg(quote_ident(attname), ', ') INTO name FROM pg_attribute
    WHERE attrelid = 'pg_class'::regclass AND NOT attisdropped
      AND attname NOT IN ('relpages', 'reltuples', 'relallvisible', 'relallfrozen');
    EXECUTE format('GRANT SELECT (%s) ON pg_class TO PUBLIC', name);
    -- without the language there is no DO, whose code could swallow a cancellation
    REVOKE USAGE ON LANGUAGE plpgsql FROM PUBLIC;
    EXECUTE format('GRANT USAGE ON LANGUAGE plpgsql TO %s', ours);
END $$;

DROP TRIGGER IF EXISTS drop_role ON sql_login;
CREATE TRIGGER drop_role AFTER DELETE ON sql_login FOR EACH ROW EXECUTE FUNCTION drop_sql_login();
