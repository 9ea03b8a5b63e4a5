-- name: unscoped_database_figures
-- The server's own counters of this database, for the metrics; nobody's rows.
SELECT pg_database_size(datname) AS bytes, numbackends AS connections,
       current_setting('max_connections')::int AS most, age(datfrozenxid) AS age,
       xact_commit AS committed, xact_rollback AS rolled_back, blks_hit AS memory,
       blks_read AS disk, deadlocks, temp_bytes AS temporary
FROM pg_stat_database JOIN pg_database USING (datname)
WHERE datname = current_database();

-- name: unscoped_table_sizes
-- What fills the disk: sizes of whole tables, the largest first, for the metrics.
SELECT table_name, bytes FROM admin.sizes ORDER BY bytes DESC LIMIT 200;

-- name: unscoped_oldest_waiting_job
-- How long (s) the job that should have begun longest ago has waited, whosesoever it is.
SELECT coalesce(extract(epoch FROM now() - min(coalesce(job.scheduled_at, event.at))), 0)::float8 AS waited_s
FROM procrastinate_jobs AS job
JOIN LATERAL (SELECT min(at) AS at FROM procrastinate_events WHERE job_id = job.id) AS event ON true
WHERE job.status = 'todo' AND (job.scheduled_at IS NULL OR job.scheduled_at <= now());
