-- What devices say of themselves, the broker's record, and what both look like at one moment.

ALTER TABLE device ADD COLUMN attributes jsonb NOT NULL DEFAULT '{}'
    CHECK (jsonb_typeof(attributes) = 'object');
COMMENT ON COLUMN device.attributes IS 'Sent by the device; mac_address and firmware_version have columns of their own.';

ALTER TABLE series ADD COLUMN mixed boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN series.mixed IS 'Its kind changed between text and number or boolean: readings stand in both tables.';

-- One row, or none before the first broker: until when the connections in table device are true.
CREATE TABLE broker_record (
    singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    seen_at timestamptz NOT NULL
) WITH (fillfactor = 50);

-- A device's connection and freshness at a moment. The planner puts it into the query that calls
-- it, so a page of devices stays one statement over indices.
CREATE FUNCTION device_status(d device, at timestamptz)
RETURNS TABLE (
    shown_connection text, shown_since timestamptz, shown_reason text,
    data_status text, data_last_at timestamptz, data_interval float8, data_learned boolean
) LANGUAGE sql STABLE AS $$
    SELECT CASE WHEN broker.missing THEN 'unknown' ELSE d.connection END,
           CASE WHEN broker.missing THEN broker.seen_at ELSE d.connection_since END,
           CASE WHEN broker.missing THEN concat('the broker''s record is missing',
                to_char(broker.seen_at AT TIME ZONE 'UTC', '" since "YYYY-MM-DD"T"HH24:MI:SS"Z"'))
                ELSE d.connection_reason END,
           CASE WHEN fresh.last_at IS NULL THEN 'never'
                WHEN at - fresh.last_at > 3 * make_interval(secs => coalesce(fresh.seconds, 3600))
                THEN 'stale' ELSE 'fresh' END,
           fresh.last_at, fresh.seconds, d.report_interval_s IS NULL AND fresh.seconds IS NOT NULL
    FROM (
        SELECT seen_at, d.connection <> 'never'
               AND coalesce(seen_at, '-infinity') < at - interval '60 s' AS missing
        FROM (SELECT max(seen_at) AS seen_at FROM broker_record) AS record
    ) AS broker
    CROSS JOIN (
        SELECT (
            SELECT last_fresh_at FROM usage_hour
            WHERE account_id = d.account_id AND device_id = d.id AND last_fresh_at IS NOT NULL
            ORDER BY hour DESC LIMIT 1
        ) AS last_at,
        coalesce(d.report_interval_s, (
            SELECT round(greatest(1, extract(epoch FROM max(last_fresh_at) - min(first_fresh_at))
                                     / (sum(arrivals) - 1)), 1)::float8
            FROM usage_hour
            WHERE account_id = d.account_id AND device_id = d.id AND hour > at - interval '48 h'
            HAVING sum(arrivals) >= 3
        )) AS seconds
    ) AS fresh
$$;
COMMENT ON FUNCTION device_status IS
    'data_interval in seconds: set, or learned from the fresh readings of 48 hours, or null.';
