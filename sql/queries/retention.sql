-- name: unscoped_oldest_reading
-- A tier's oldest reading, whosesoever: what retention is judged by.
-- Only the oldest chunk that is not empty is looked into.
SELECT least((SELECT time FROM {tier} ORDER BY time LIMIT 1),
             (SELECT time FROM {tier_text} ORDER BY time LIMIT 1)) AS time;

-- name: unscoped_policy_jobs
-- The state of a tier's policies on the Community edition; no rows on Apache. TimescaleDB writes
-- -infinity where a job has not finished yet.
SELECT j.hypertable_name::text AS hypertable, j.job_id, j.scheduled, s.last_run_status::text,
       nullif(s.last_successful_finish, '-infinity') AS last_successful_finish, s.total_failures
FROM timescaledb_information.jobs AS j
LEFT JOIN timescaledb_information.job_stats AS s USING (job_id)
WHERE j.proc_name = 'policy_retention' AND j.hypertable_name::text = ANY (%(tables)s)
ORDER BY j.hypertable_name;

-- name: unscoped_apply_retention
-- Whole chunks belong to many accounts; the function reads the period from table tier.
SELECT apply_retention(%(tier)s) AS dropped;

-- name: unscoped_chunks
-- The stretches of time of which a tier's table has a chunk; they belong to nobody.
SELECT range_start AS "from", range_end AS "to" FROM timescaledb_information.chunks
WHERE hypertable_schema = 'public' AND hypertable_name = %(table)s ORDER BY range_start;
