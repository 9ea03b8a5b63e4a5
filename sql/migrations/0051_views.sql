-- Charts that people named and kept; devices that their owners switched off.

CREATE TABLE view (
    id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    account_id int NOT NULL REFERENCES account ON DELETE CASCADE,
    name text NOT NULL,
    shown text NOT NULL,
    pinned boolean NOT NULL DEFAULT false,
    created_at timestamptz NOT NULL,
    changed_at timestamptz NOT NULL,
    UNIQUE (account_id, name)
);
COMMENT ON COLUMN view.shown IS 'The query string of its page: devices, metrics, range, bucket, aggregate.';

ALTER TABLE device ADD COLUMN enabled boolean NOT NULL DEFAULT true;
COMMENT ON COLUMN device.enabled IS 'False: its owner switched it off, so it is paused and takes no place of the plan.';
