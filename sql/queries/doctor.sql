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
