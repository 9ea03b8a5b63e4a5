-- name: unscoped_log_position
-- How far the primary's log is on disk, and which database of which server that is: what is visible
-- there by now stands before it, unless synchronous_commit is off, which no promise of ours allows.
SELECT pg_wal_lsn_diff(pg_current_wal_flush_lsn(), '0/0')::bigint AS position,
    (SELECT system_identifier FROM pg_control_system()) AS system,
    ('x' || left(pg_walfile_name(pg_current_wal_flush_lsn()), 8))::bit(32)::int AS timeline,
    (SELECT oid::bigint FROM pg_database WHERE datname = current_database()) AS database;

-- name: unscoped_log_replayed
-- How far a replica has replayed it, and of what it is one: positions of another server's log, or of
-- a line that an earlier failover ended, say nothing. Null on a server that is none, promoted ones too.
SELECT CASE WHEN pg_is_in_recovery() THEN pg_wal_lsn_diff(pg_last_wal_replay_lsn(), '0/0')::bigint END AS position,
    (SELECT system_identifier FROM pg_control_system()) AS system,
    (SELECT min_recovery_end_timeline FROM pg_control_recovery()) AS timeline,
    (SELECT oid::bigint FROM pg_database WHERE datname = current_database()) AS database;
