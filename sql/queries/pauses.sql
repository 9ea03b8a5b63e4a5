-- name: pause_and_resume
-- The account's oldest devices go on, as many as its plan has room for; the others are paused, and
-- so are those their owner switched off, which take no place.
WITH ranked AS (
    SELECT id, NOT enabled
        OR row_number() OVER (PARTITION BY enabled ORDER BY created_at, id) > %(limit)s::bigint AS over
    FROM device WHERE account_id = %(account)s
)
UPDATE device SET paused_at = CASE WHEN ranked.over THEN %(now)s::timestamptz END,
    resumed_at = CASE WHEN ranked.over THEN resumed_at ELSE %(now)s::timestamptz END
FROM ranked
WHERE device.account_id = %(account)s AND device.id = ranked.id
  AND coalesce(ranked.over, false) <> (device.paused_at IS NOT NULL)
RETURNING device.paused_at IS NOT NULL AS paused;

-- name: enable_device
-- The account's device is switched on or off by its owner.
UPDATE device SET enabled = %(enabled)s
WHERE account_id = %(account)s AND id = %(id)s AND enabled <> %(enabled)s RETURNING id;

-- name: resume_oldest
-- A device of the account went and left its place to the oldest of those that are paused.
UPDATE device SET paused_at = NULL, resumed_at = now()
WHERE id = (SELECT id FROM device WHERE account_id = %(account)s AND paused_at IS NOT NULL AND enabled
            ORDER BY created_at, id LIMIT 1)
RETURNING id;

-- name: rules_to_pause
-- Whether any of the account's alert rules is to be paused or to go on.
SELECT FROM (
    SELECT paused_at, row_number() OVER (ORDER BY id) > %(limit)s::bigint AS over
    FROM alert_rule WHERE account_id = %(account)s
) AS ranked
WHERE coalesce(over, false) <> (paused_at IS NOT NULL) LIMIT 1;

-- name: pause_and_resume_rules
-- The account's oldest alert rules go on, as many as its plan has room for; the others are paused.
-- One that goes on counts silence from now.
WITH ranked AS (
    SELECT id, row_number() OVER (ORDER BY id) > %(limit)s::bigint AS over
    FROM alert_rule WHERE account_id = %(account)s
)
UPDATE alert_rule SET paused_at = CASE WHEN ranked.over THEN %(now)s::timestamptz END,
    changed_at = CASE WHEN ranked.over THEN changed_at ELSE %(now)s::timestamptz END
FROM ranked
WHERE alert_rule.account_id = %(account)s AND alert_rule.id = ranked.id
  AND coalesce(ranked.over, false) <> (alert_rule.paused_at IS NOT NULL)
RETURNING alert_rule.id, alert_rule.paused_at IS NOT NULL AS paused;

-- name: resume_oldest_rule
-- A rule of the account went and left its place to the oldest of those that are paused.
UPDATE alert_rule SET paused_at = NULL, changed_at = %(now)s
WHERE id = (SELECT id FROM alert_rule WHERE account_id = %(account)s AND paused_at IS NOT NULL
            ORDER BY id LIMIT 1);
