-- name: unscoped_log_position
-- How far the primary's log is on disk: what is visible there by now stands before it, unless
-- synchronous_commit is off, which no promise of ours allows.
SELECT pg_wal_lsn_diff(pg_current_wal_flush_lsn(), '0/0')::bigint AS position;

-- name: unscoped_log_replayed
-- How far a replica has replayed it; null on a server that is none, which a promoted one is too.
SELECT CASE WHEN pg_is_in_recovery() THEN pg_wal_lsn_diff(pg_last_wal_replay_lsn(), '0/0')::bigint END AS position;
