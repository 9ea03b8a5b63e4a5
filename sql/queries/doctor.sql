-- name: unscoped_edition
-- The extension's version and licence; no tenant's data.
SELECT extversion AS version, current_setting('timescaledb.license', true) AS license,
       current_setting('server_version') AS postgres
FROM pg_extension WHERE extname = 'timescaledb';

-- name: unscoped_open_routines
-- How many internal routines PUBLIC may execute: on TimescaleDB before 2.29.1 one of them drops
-- any tenant's chunk; no tenant's data.
SELECT count(*) AS open
FROM pg_proc AS p
JOIN pg_namespace AS n ON n.oid = p.pronamespace
CROSS JOIN LATERAL aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) AS acl
WHERE n.nspname IN ('_timescaledb_functions', '_timescaledb_internal')
  AND acl.grantee = 0 AND acl.privilege_type = 'EXECUTE';

-- name: unscoped_wait_no_longer
-- For the rest of a transaction: how long a statement may take, and wait for a table; no tenant's data.
SELECT set_config('statement_timeout', %(statement)s::text, true), set_config('lock_timeout', %(lock)s::text, true);

-- name: unscoped_server_clock
-- The database's own time; no tenant's data.
SELECT clock_timestamp() AS now;

-- name: unscoped_server_settings
-- What decides whether a commit is kept and how much memory there is; no tenant's data.
SELECT name, setting FROM pg_settings
WHERE name IN ('fsync', 'full_page_writes', 'synchronous_commit', 'shared_buffers', 'block_size',
               'max_locks_per_transaction');

-- name: unscoped_roles_in_use
-- The processes' roles: which there are, which may do too much or too little, and which processes
-- run as superusers at this moment; no tenant's data.
WITH wanted AS (
    SELECT current_database() || part AS name, place, privilege
    FROM (VALUES ('_api', 'account', 'SELECT'), ('_ingest', 'usage_hour', 'INSERT'),
                 ('_worker', 'device_event', 'INSERT')) AS of (part, place, privilege)
), had AS (
    SELECT r.rolname, r.rolcanlogin,
           r.rolsuper OR r.rolcreatedb OR r.rolcreaterole OR r.rolreplication OR r.rolbypassrls
               AS mighty,
           has_table_privilege(r.oid, w.place, w.privilege) AS able
    FROM wanted AS w JOIN pg_roles AS r ON r.rolname = w.name
), running AS (
    SELECT DISTINCT split_part(a.application_name, ' ', 2) AS process
    FROM pg_stat_activity AS a JOIN pg_roles AS r ON r.oid = a.usesysid
    WHERE a.datname = current_database() AND r.rolsuper
      AND split_part(a.application_name, ' ', 1) = 'paqett'
      AND split_part(a.application_name, ' ', 2) IN ('api', 'ingest', 'worker', 'broker')
)
SELECT (SELECT count(*) FROM wanted)::int AS wanted, (SELECT count(*) FROM had)::int AS roles,
       coalesce((SELECT string_agg(rolname, ', ' ORDER BY rolname) FROM had WHERE mighty), '') AS mighty,
       coalesce((SELECT string_agg(rolname, ', ' ORDER BY rolname) FROM had
                 WHERE NOT (able AND rolcanlogin)), '') AS lacking,
       coalesce((SELECT string_agg(process, ', ' ORDER BY process) FROM running), '') AS superusers;
