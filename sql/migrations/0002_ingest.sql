-- Limits, freshness, the rejection ledger and the spool's place.

-- One row for each device and hour of receipt: upserted by every flush that carries the device, so
-- whatever else a flush must know or leave of a device stands here too.
ALTER TABLE usage_hour
    ADD COLUMN late bigint NOT NULL DEFAULT 0,
    ADD COLUMN arrivals bigint NOT NULL DEFAULT 0,
    ADD COLUMN first_fresh_at timestamptz,
    ADD COLUMN last_fresh_at timestamptz,
    ADD COLUMN tokens float8,
    ADD COLUMN tokens_at timestamptz;
ALTER TABLE usage_hour SET (fillfactor = 50);
COMMENT ON COLUMN usage_hour.late IS 'Points stored that were more than 5 minutes old at receipt; points counts them too.';
COMMENT ON COLUMN usage_hour.arrivals IS 'Flushes that carried a fresh reading: what report_interval is learned from.';
COMMENT ON COLUMN usage_hour.tokens IS 'Messages the device may still send at tokens_at; null where its plan sets no rate.';

-- What is left of an account's day, for plans that limit it.
CREATE TABLE allowance (
    account_id int PRIMARY KEY REFERENCES account ON DELETE CASCADE,
    day date NOT NULL,
    points bigint NOT NULL,
    late_left float8,
    late_at timestamptz,
    writer text NOT NULL
) WITH (fillfactor = 50);
COMMENT ON COLUMN allowance.points IS 'Points of this UTC day of receipt, late ones left out.';
COMMENT ON COLUMN allowance.late_left IS 'Points in the late bucket at late_at.';
COMMENT ON COLUMN allowance.writer IS 'Who charged last: that process still knows its devices'' message rates.';

-- At most 10 examples for each device, code and hour; kept 7 days.
CREATE TABLE rejection (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    account_id int NOT NULL REFERENCES account ON DELETE CASCADE,
    device_id text NOT NULL REFERENCES device ON DELETE CASCADE,
    hour timestamptz NOT NULL,
    code text NOT NULL,
    time timestamptz NOT NULL,
    topic text NOT NULL,
    metric text,
    detail text NOT NULL,
    payload bytea NOT NULL CHECK (length(payload) <= 4096),
    payload_bytes int NOT NULL
);
CREATE INDEX rejection_place ON rejection (account_id, device_id, hour, code);
CREATE INDEX rejection_hour_of ON rejection (hour);
COMMENT ON COLUMN rejection.time IS 'Of receipt.';
COMMENT ON COLUMN rejection.payload_bytes IS 'The size of the whole payload, of which at most 4 KB are kept.';

-- How far a spool has been replayed, moved on in the transaction of what it held.
CREATE TABLE spool_place (
    spool text PRIMARY KEY,
    segment bigint NOT NULL,
    position bigint NOT NULL,
    at timestamptz NOT NULL DEFAULT now()
);
