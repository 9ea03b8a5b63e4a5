-- Accounts, keys, devices, series and what keeps ingest's directory true.

CREATE TABLE tier (
    name text PRIMARY KEY CHECK (name ~ '^[a-z][a-z0-9_]{0,30}$'),
    retention interval NOT NULL,
    -- 'timescaledb' where the policy is a job of the database, 'worker' on the Apache edition
    retention_by text NOT NULL CHECK (retention_by IN ('timescaledb', 'worker'))
);
COMMENT ON TABLE tier IS 'A set of hypertables with one retention; fed by sql/policies/ alone.';

CREATE TABLE account (
    id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    email text NOT NULL,
    plan text NOT NULL,
    -- no reference to tier: tiers are made after the migrations; set_plan checks the name
    tier text NOT NULL,
    moving_from text,
    readable_from timestamptz NOT NULL DEFAULT 'epoch',
    tier_due_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE UNIQUE INDEX account_email ON account (lower(email));
COMMENT ON COLUMN account.tier IS 'Where new readings go.';
COMMENT ON COLUMN account.moving_from IS 'The tier that still holds readings while a move is open.';
COMMENT ON COLUMN account.readable_from IS 'Nothing older is ever read again: set when a longer retention begins.';
COMMENT ON COLUMN account.tier_due_at IS 'When the readings follow a plan with a shorter retention.';

CREATE TABLE api_key (
    id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    account_id int NOT NULL REFERENCES account ON DELETE CASCADE,
    name text NOT NULL,
    hint text NOT NULL,
    hash bytea NOT NULL UNIQUE,
    scopes text[] NOT NULL,
    device_ids text[],
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz,
    last_used_at timestamptz
);
CREATE INDEX api_key_account ON api_key (account_id);
COMMENT ON COLUMN api_key.hash IS 'SHA-256 of the key; a key is 190 random bits, so one round is enough.';

CREATE TABLE device (
    id text PRIMARY KEY CHECK (id ~ '^[A-Za-z0-9_-]{1,16}$'),
    account_id int NOT NULL REFERENCES account ON DELETE CASCADE,
    thing_name text NOT NULL,
    friendly_name text,
    mac_address macaddr,
    firmware_version text,
    tags text[] NOT NULL DEFAULT '{}',
    report_interval_s int CHECK (report_interval_s > 0),
    clock text NOT NULL DEFAULT 'device' CHECK (clock IN ('device', 'server')),
    -- the line's second half in Mosquitto's password file; the secret itself is stored nowhere
    verifier text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    connection text NOT NULL DEFAULT 'never'
        CHECK (connection IN ('never', 'online', 'offline', 'unknown')),
    connection_since timestamptz,
    connection_reason text,
    connection_ip inet,
    UNIQUE (account_id, thing_name)
);
CREATE INDEX device_account ON device (account_id, created_at, id);

CREATE TABLE device_event (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    account_id int NOT NULL REFERENCES account ON DELETE CASCADE,
    device_id text NOT NULL REFERENCES device ON DELETE CASCADE,
    time timestamptz NOT NULL,
    kind text NOT NULL CHECK (kind IN ('connected', 'disconnected', 'refused', 'taken_over')),
    reason text,
    ip inet
);
CREATE INDEX device_event_device ON device_event (device_id, time DESC);

CREATE TABLE series (
    id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    account_id int NOT NULL REFERENCES account ON DELETE CASCADE,
    device_id text NOT NULL REFERENCES device ON DELETE CASCADE,
    metric text NOT NULL,
    kind text NOT NULL CHECK (kind IN ('number', 'boolean', 'text')),
    label text,
    unit text,
    created_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (device_id, metric)
);
CREATE INDEX series_account ON series (account_id);

-- Rejections and usage, counted in the transaction of the readings.
CREATE TABLE usage_hour (
    account_id int NOT NULL REFERENCES account ON DELETE CASCADE,
    device_id text NOT NULL,
    hour timestamptz NOT NULL,
    messages bigint NOT NULL DEFAULT 0,
    points bigint NOT NULL DEFAULT 0,
    bytes bigint NOT NULL DEFAULT 0,
    duplicates bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (account_id, device_id, hour)
);
CREATE TABLE rejection_hour (
    account_id int NOT NULL REFERENCES account ON DELETE CASCADE,
    device_id text NOT NULL,
    hour timestamptz NOT NULL,
    code text NOT NULL,
    points bigint NOT NULL,
    PRIMARY KEY (account_id, device_id, hour, code)
);

-- The directory. Ingest keeps devices, tiers and series in memory and compares one number with
-- directory_change in each flush's transaction. Whoever changes something a flush relies on takes
-- the lock exclusively first, so that no flush is between its look and its commit.
CREATE TABLE directory_change (
    version bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    account_id int NOT NULL,
    device_id text,
    at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON COLUMN directory_change.device_id IS 'Null: the whole account.';

CREATE FUNCTION lock_directory() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    -- 7061 is "pa"; a statement-level trigger, so that the lock precedes every row lock
    PERFORM pg_advisory_xact_lock(7061, 1);
    RETURN NULL;
END $$;

CREATE FUNCTION note_directory_change() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    device text;
    account int;
BEGIN
    IF TG_TABLE_NAME = 'account' THEN
        account := OLD.id;
    ELSIF TG_TABLE_NAME = 'device' THEN
        account := OLD.account_id;
        device := OLD.id;
    ELSE
        account := OLD.account_id;
        device := OLD.device_id;
    END IF;
    INSERT INTO directory_change (account_id, device_id) VALUES (account, device);
    RETURN NULL;
END $$;

CREATE TRIGGER directory_lock BEFORE DELETE OR UPDATE OF plan, tier, moving_from, readable_from
    ON account FOR EACH STATEMENT EXECUTE FUNCTION lock_directory();
CREATE TRIGGER directory_note AFTER DELETE OR UPDATE OF plan, tier, moving_from, readable_from
    ON account FOR EACH ROW EXECUTE FUNCTION note_directory_change();
CREATE TRIGGER directory_lock BEFORE DELETE OR UPDATE OF clock
    ON device FOR EACH STATEMENT EXECUTE FUNCTION lock_directory();
CREATE TRIGGER directory_note AFTER DELETE OR UPDATE OF clock
    ON device FOR EACH ROW EXECUTE FUNCTION note_directory_change();
CREATE TRIGGER directory_lock BEFORE DELETE OR UPDATE OF kind
    ON series FOR EACH STATEMENT EXECUTE FUNCTION lock_directory();
CREATE TRIGGER directory_note AFTER DELETE OR UPDATE OF kind
    ON series FOR EACH ROW EXECUTE FUNCTION note_directory_change();

-- The broker's password file follows the devices.
CREATE FUNCTION notify_credentials() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NOTIFY paqett_credentials;
    RETURN NULL;
END $$;
CREATE TRIGGER credentials AFTER INSERT OR DELETE OR UPDATE OF verifier
    ON device FOR EACH STATEMENT EXECUTE FUNCTION notify_credentials();
