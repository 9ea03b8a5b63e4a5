-- name: sql_login_of
-- The account's SQL login, where it has one.
SELECT role, current_database() AS database, created_at FROM sql_login WHERE account_id = %(account)s;

-- name: create_sql_login
-- A role for the account, or a new password for the one it has; the password itself stays with us.
SELECT create_sql_login(%(account)s, %(verifier)s, %(limit_s)s) AS role,
       current_database() AS database;

-- name: drop_sql_login
-- The account's row is the login: a trigger ends the role and its sessions.
DELETE FROM sql_login WHERE account_id = %(account)s RETURNING role;

-- name: unscoped_sql_logins_made_here
-- Whether the functions for logins were made, which takes a superuser; no tenant's data.
SELECT to_regprocedure('watch_sql_logins(float8)') IS NOT NULL AS made;

-- name: unscoped_watch_sql_logins
-- The watch over every account's login.
SELECT login, action, seconds FROM watch_sql_logins(%(limit_s)s);

-- name: unscoped_sql_login_state
-- Whether this server keeps SQL logins of accounts apart, and whether each is as it was made; no
-- tenant's data.
SELECT EXISTS (
           SELECT FROM pg_proc AS p JOIN pg_roles AS r ON r.oid = p.proowner
           WHERE p.oid = to_regprocedure('create_sql_login(int, text, int)')
             AND p.prosecdef AND r.rolcreaterole AND NOT r.rolcanlogin
       ) AS can_create,
       (SELECT count(*) FROM pg_proc AS p
        CROSS JOIN LATERAL aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) AS acl
        WHERE acl.grantee = 0 AND (
            p.pronamespace IN (SELECT oid FROM pg_namespace WHERE nspname IN (
                'public', '_timescaledb_functions', '_timescaledb_internal', '_timescaledb_debug',
                'timescaledb_experimental', 'grafana_inside', 'admin'))
            OR p.pronamespace = 'pg_catalog'::regnamespace AND p.proname ~ '^(pg_(try_)?advisory_|lo_|pg_stat_get_)')
       ) AS open_routines,
       (SELECT count(*) FROM pg_class AS c
        CROSS JOIN LATERAL aclexplode(c.relacl) AS acl
        WHERE acl.grantee = 0 AND (
            c.relnamespace IN (SELECT oid FROM pg_namespace WHERE nspname IN (
                'public', 'grafana', 'admin', '_timescaledb_catalog', '_timescaledb_config',
                '_timescaledb_internal', 'timescaledb_information'))
            OR c.relnamespace = 'pg_catalog'::regnamespace
               AND c.relname IN ('pg_stat_activity', 'pg_stats', 'pg_locks', 'pg_roles', 'pg_class'))
       ) AS open_tables,
       has_database_privilege('public', current_database(), 'TEMPORARY') AS open_temporary,
       current_setting('max_prepared_transactions')::int AS prepared_transactions,
       (SELECT count(*) FROM sql_login) AS logins,
       (SELECT count(*) FROM sql_login AS l LEFT JOIN pg_roles AS r ON r.rolname = l.role
        WHERE r.oid IS NULL OR r.rolsuper OR r.rolcreatedb OR r.rolcreaterole OR r.rolreplication
           OR r.rolbypassrls OR NOT r.rolcanlogin OR r.rolconnlimit NOT BETWEEN 1 AND 3
           OR (SELECT count(*) FROM pg_auth_members AS m WHERE m.member = r.oid) <> 1
       ) AS odd_logins,
       (SELECT count(*) FROM pg_roles AS r
        WHERE r.rolcanlogin AND starts_with(r.rolname, current_database() || '_grafana_')
          AND NOT EXISTS (SELECT FROM sql_login WHERE role = r.rolname)) AS stray_roles,
       (SELECT seen_at FROM sql_watch) AS watched_at;

-- name: unscoped_forget_missing_logins
-- After a restore on another server, whose roles are none of any account's.
DELETE FROM sql_login WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = role);
