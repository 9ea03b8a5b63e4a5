-- name: unscoped_job_counts
-- The queue as a whole, for the metric and the doctor.
SELECT status::text AS status, count(*) AS jobs FROM procrastinate_jobs GROUP BY status;

-- name: unscoped_unfinished_jobs
-- What an operator looks at: names, ids and our own words, never what a job is about.
SELECT job.id, job.task_name AS task, job.status::text AS status, job.attempts, job.args,
       job_error.error, job_error.at
FROM procrastinate_jobs AS job LEFT JOIN job_error ON job_error.job_id = job.id
WHERE job.status NOT IN ('todo', 'succeeded') OR job.attempts > 0
ORDER BY job.status <> 'failed', job.id LIMIT 1000;

-- name: unscoped_failed_jobs
-- Failed after a moment, whosesoever they are, for the operator's mail.
SELECT job.id, job.task_name AS task, job.status::text AS status, job.attempts, job.args,
       job_error.error, event.at
FROM procrastinate_jobs AS job
JOIN LATERAL (
    SELECT max(at) AS at FROM procrastinate_events WHERE job_id = job.id AND type = 'failed'
) AS event ON event.at > %(since)s
LEFT JOIN job_error ON job_error.job_id = job.id
WHERE job.status = 'failed'
ORDER BY event.at, job.id;

-- name: unscoped_retry_job
-- An operator's second chance: from the first attempt, at once.
UPDATE procrastinate_jobs SET status = 'todo', attempts = 0, scheduled_at = NULL
WHERE id = %(job)s AND status = 'failed'
RETURNING id;

-- name: unscoped_note_job_error
-- Why a job failed the last time.
INSERT INTO job_error (job_id, error, at) VALUES (%(job)s, %(error)s, %(now)s)
ON CONFLICT (job_id) DO UPDATE SET error = EXCLUDED.error, at = EXCLUDED.at;

-- name: unscoped_forget_job_errors
-- Of jobs that succeeded in the end and are gone.
DELETE FROM job_error
WHERE NOT EXISTS (SELECT FROM procrastinate_jobs WHERE procrastinate_jobs.id = job_error.job_id);

-- name: unscoped_claim_operator_report
-- One row, locked until the report is sent, so that two workers send one report.
SELECT covered_until FROM operator_report WHERE mailed_at <= %(before)s FOR UPDATE SKIP LOCKED;

-- name: unscoped_note_operator_report
-- What failed until then has been reported; no account's data.
UPDATE operator_report SET mailed_at = %(now)s, covered_until = %(until)s;
