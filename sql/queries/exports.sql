-- Export All My Data: what was asked for, and what became of it.

-- name: create_export
-- None where the account has one that is not finished.
INSERT INTO export (account_id, format, created_at) VALUES (%(account)s, %(format)s, %(now)s)
ON CONFLICT (account_id) WHERE status IN ('waiting', 'running') DO NOTHING
RETURNING id, format, status, created_at, started_at, finished_at, expires_at, progress, rows, bytes, sha256;

-- name: count_exports
-- The account's exports of a UTC day, by the plan's limit; one that failed is not held against it.
SELECT count(*) AS exports FROM export
WHERE account_id = %(account)s AND created_at >= %(from)s AND status <> 'failed';

-- name: list_exports
-- The account's exports, newest first.
SELECT id, format, status, created_at, started_at, finished_at, expires_at, progress, rows, bytes, sha256
FROM export WHERE account_id = %(account)s AND (%(before)s::bigint IS NULL OR id < %(before)s)
ORDER BY id DESC LIMIT %(limit)s;

-- name: get_export
-- One of the account's exports.
SELECT id, format, status, created_at, started_at, finished_at, expires_at, progress, rows, bytes, sha256
FROM export WHERE account_id = %(account)s AND id = %(export)s;

-- name: begin_export
-- An export of the account that is to be written, from its first row, however often it was begun.
UPDATE export SET status = 'running', started_at = %(now)s, progress = 0, rows = 0
WHERE account_id = %(account)s AND id = %(export)s AND status IN ('waiting', 'running')
RETURNING id, format, status, created_at, started_at, finished_at, expires_at, progress, rows, bytes, sha256;

-- name: note_export_progress
-- Nothing comes back where the account is gone, and then there is nothing to go on with.
UPDATE export SET progress = %(progress)s, rows = %(rows)s
WHERE account_id = %(account)s AND id = %(export)s AND status = 'running' RETURNING id;

-- name: finish_export
-- The archive of the account is whole.
UPDATE export SET status = 'ready', finished_at = %(now)s, expires_at = %(expires)s, progress = 1,
    rows = %(rows)s, bytes = %(bytes)s, sha256 = %(sha256)s
WHERE account_id = %(account)s AND id = %(export)s AND status = 'running' RETURNING id;

-- name: unscoped_fail_exports
-- Whosesoever exports no job will go on with.
UPDATE export SET status = 'failed', finished_at = %(now)s
WHERE status IN ('waiting', 'running') AND NOT EXISTS (
    SELECT FROM procrastinate_jobs AS job
    WHERE job.task_name = 'write_export' AND job.status IN ('todo', 'doing')
      AND (job.args ->> 'export_id')::bigint = export.id
)
RETURNING account_id;

-- name: unscoped_expire_exports
-- Whosesoever archives have had their time; their files go by unscoped_archives.
UPDATE export SET status = 'expired' WHERE status = 'ready' AND expires_at <= %(now)s;

-- name: unscoped_archives
-- The archives there may be files of, whosesoever they are.
SELECT account_id, id, status FROM export WHERE status IN ('running', 'ready');

-- name: unscoped_forget_exports
-- Records of exports long past, whosesoever they are.
DELETE FROM export WHERE status IN ('failed', 'expired') AND created_at < %(before)s;
