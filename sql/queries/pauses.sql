-- name: pause_and_resume
-- The account's oldest devices go on, as many as its plan has room for; the others are paused.
WITH ranked AS (
    SELECT id, row_number() OVER (ORDER BY created_at, id) > %(limit)s::bigint AS over
    FROM device WHERE account_id = %(account)s
)
UPDATE device SET paused_at = CASE WHEN ranked.over THEN %(now)s::timestamptz END
FROM ranked
WHERE device.account_id = %(account)s AND device.id = ranked.id
  AND coalesce(ranked.over, false) <> (device.paused_at IS NOT NULL)
RETURNING device.paused_at IS NOT NULL AS paused;

-- name: resume_oldest
-- A device of the account went and left its place to the oldest of those that are paused.
UPDATE device SET paused_at = NULL
WHERE id = (SELECT id FROM device WHERE account_id = %(account)s AND paused_at IS NOT NULL
            ORDER BY created_at, id LIMIT 1)
RETURNING id;
