-- name: lock_views
-- Two views saved at once must not pass the most there may be together.
SELECT pg_advisory_xact_lock(7067, %(account)s);

-- name: list_views
-- The views of the account by name, or those that are pinned to its overview.
SELECT id, name, shown, pinned, created_at, changed_at FROM view
WHERE account_id = %(account)s AND (pinned OR NOT %(pinned)s) ORDER BY lower(name), id;

-- name: get_view
-- One view of the account.
SELECT id, name, shown, pinned, created_at, changed_at FROM view
WHERE account_id = %(account)s AND id = %(id)s;

-- name: create_view
-- A new view of the account.
INSERT INTO view (account_id, name, shown, pinned, created_at, changed_at)
VALUES (%(account)s, %(name)s, %(shown)s, %(pinned)s, %(now)s, %(now)s)
RETURNING id, name, shown, pinned, created_at, changed_at;

-- name: update_view
-- What is given of the account's view; null leaves it as it is.
UPDATE view SET name = coalesce(%(name)s, name), shown = coalesce(%(shown)s, shown),
    pinned = coalesce(%(pinned)s, pinned), changed_at = %(now)s
WHERE account_id = %(account)s AND id = %(id)s
RETURNING id, name, shown, pinned, created_at, changed_at;

-- name: delete_view
-- The account's view goes; what it showed stays.
DELETE FROM view WHERE account_id = %(account)s AND id = %(id)s RETURNING id;
