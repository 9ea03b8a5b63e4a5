-- name: chart_series
-- What can be drawn or shown of some of the account's devices: each metric with what it is called.
SELECT device.id AS device, coalesce(friendly_name, thing_name) AS name, metric, kind, label, unit
FROM series JOIN device ON device.account_id = series.account_id AND device.id = series.device_id
WHERE series.account_id = %(account)s AND (%(devices)s::text[] IS NULL OR device.id = ANY (%(devices)s))
ORDER BY lower(coalesce(friendly_name, thing_name)), device.id, metric
LIMIT %(limit)s;
