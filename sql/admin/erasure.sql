-- Erasing an account: every table with an account_id is found in the catalog, so that no table
-- anybody adds can be forgotten. Readings are erased by sql/queries/sweep.sql.
-- The functions run as the owner, since no process may delete from all of these.

-- Tables with rows of accounts. Those that fewer others refer to come first, so that what a
-- deletion takes with it is gone by then.
CREATE OR REPLACE FUNCTION account_tables() RETURNS SETOF name
LANGUAGE sql STABLE AS $$
    SELECT c.relname FROM pg_class AS c
    JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attname = 'account_id' AND NOT a.attisdropped
    WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p')
      AND c.relname NOT IN ('erasure', 'directory_change')
      AND NOT EXISTS (SELECT FROM timescaledb_information.hypertables AS h
                      WHERE h.hypertable_schema = 'public' AND h.hypertable_name = c.relname)
    ORDER BY (SELECT count(*) FROM pg_constraint AS f WHERE f.confrelid = c.oid AND f.contype = 'f'),
             c.relname
$$;

-- At most `most` rows of the first table that has any: a table a transaction, since a deletion of
-- devices, series or rules takes the directory's lock, and that must come before every row's.
CREATE OR REPLACE FUNCTION erase_account_rows(account int, most int)
RETURNS TABLE (table_name name, rows bigint)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    found boolean;
BEGIN
    FOR table_name IN SELECT * FROM account_tables() LOOP
        EXECUTE format('SELECT EXISTS (SELECT FROM %I WHERE account_id = $1)', table_name)
            INTO found USING account;
        CONTINUE WHEN NOT found;
        EXECUTE format('DELETE FROM %1$I WHERE ctid = ANY (ARRAY('
            'SELECT ctid FROM %1$I WHERE account_id = $1 LIMIT $2))', table_name) USING account, most;
        GET DIAGNOSTICS rows = ROW_COUNT;
        RETURN NEXT;
        RETURN;
    END LOOP;
END $$;

-- What is left of an account, but for its own row and its readings; tables without any are left out.
CREATE OR REPLACE FUNCTION count_account_rows(account int)
RETURNS TABLE (table_name name, rows bigint)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    FOR table_name IN SELECT * FROM account_tables() LOOP
        EXECUTE format('SELECT count(*) FROM %I WHERE account_id = $1', table_name)
            INTO rows USING account;
        CONTINUE WHEN rows = 0;
        RETURN NEXT;
    END LOOP;
END $$;

-- PostgreSQL keeps common values of each column for its planner: addresses, names and texts among
-- them. Tables of numbers are left out: nothing in their samples is anybody's.
CREATE OR REPLACE FUNCTION analyze_account_tables() RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    part name;
    chunk regclass;
    forgets boolean := to_regproc('forget_samples') IS NOT NULL;
BEGIN
    FOR part IN
        SELECT unnest('{account, job_error, procrastinate_jobs}'::name[])
        UNION ALL SELECT * FROM account_tables()
        UNION ALL SELECT 'telemetry_' || name || '_text' FROM tier
    LOOP
        EXECUTE format('ANALYZE %I', part);
        CONTINUE WHEN NOT forgets;
        PERFORM forget_samples(quote_ident(part)::regclass);
        IF part LIKE 'telemetry\_%' THEN
            FOR chunk IN SELECT show_chunks(quote_ident(part)::regclass) LOOP
                PERFORM forget_samples(chunk);
            END LOOP;
        END IF;
    END LOOP;
END $$;

DO $$
DECLARE
    worker text := current_database() || '_worker';
BEGIN
    REVOKE EXECUTE ON FUNCTION erase_account_rows(int, int), count_account_rows(int),
        analyze_account_tables() FROM PUBLIC;
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = worker) THEN
        EXECUTE format('GRANT EXECUTE ON FUNCTION erase_account_rows(int, int),'
            ' count_account_rows(int), analyze_account_tables() TO %I', worker);
    END IF;
END $$;
