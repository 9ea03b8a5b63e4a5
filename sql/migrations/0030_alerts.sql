-- Alert rules, their alerts, and the webhooks that carry notices.

CREATE TABLE alert_rule (
    id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    account_id int NOT NULL REFERENCES account ON DELETE CASCADE,
    name text NOT NULL,
    kind text NOT NULL CHECK (kind IN ('threshold', 'no_data', 'offline')),
    device_id text REFERENCES device ON DELETE CASCADE,
    metric text,
    operator text CHECK (operator IN ('>', '>=', '<', '<=', '==', '!=')),
    threshold float8,
    clear float8,
    is_flag boolean NOT NULL DEFAULT false,
    for_s int NOT NULL CHECK (for_s >= 0),
    enabled boolean NOT NULL DEFAULT true,
    created_at timestamptz NOT NULL,
    changed_at timestamptz NOT NULL,
    CHECK (kind <> 'threshold' OR metric IS NOT NULL AND operator IS NOT NULL AND threshold IS NOT NULL)
);
CREATE INDEX alert_rule_account ON alert_rule (account_id, metric);
CREATE INDEX alert_rule_device ON alert_rule (device_id);
COMMENT ON COLUMN alert_rule.device_id IS 'Null: every device of the account, later ones too.';
COMMENT ON COLUMN alert_rule.clear IS 'Where it resolves; null where that is the threshold itself.';
COMMENT ON COLUMN alert_rule.is_flag IS 'The threshold was given as true or false.';
COMMENT ON COLUMN alert_rule.changed_at IS 'When its condition began to count; silence is counted from here.';

-- A rule that holds or held on a device. One that is not resolved is the rule's state there.
CREATE TABLE alert (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    account_id int NOT NULL REFERENCES account ON DELETE CASCADE,
    rule_id int REFERENCES alert_rule ON DELETE SET NULL,
    rule_name text NOT NULL,
    kind text NOT NULL,
    device_id text NOT NULL REFERENCES device ON DELETE CASCADE,
    metric text,
    state text NOT NULL CHECK (state IN ('pending', 'firing', 'resolved')),
    since timestamptz NOT NULL,
    due_at timestamptz,
    timer_at timestamptz,
    fired_at timestamptz,
    resolved_at timestamptz,
    value float8,
    resolved_value float8,
    reason text NOT NULL,
    due smallint NOT NULL DEFAULT 0,
    told smallint NOT NULL DEFAULT 0
);
CREATE UNIQUE INDEX alert_open ON alert (rule_id, device_id) WHERE state <> 'resolved';
CREATE INDEX alert_open_account ON alert (account_id) WHERE state <> 'resolved';
CREATE INDEX alert_pending ON alert (timer_at) WHERE state = 'pending';
CREATE INDEX alert_untold ON alert (id) WHERE told < due;
CREATE INDEX alert_account ON alert (account_id, id DESC);
CREATE INDEX alert_device ON alert (device_id);
COMMENT ON COLUMN alert.since IS 'When the condition began to hold.';
COMMENT ON COLUMN alert.due_at IS 'When a pending one fires, by the readings'' own time.';
COMMENT ON COLUMN alert.timer_at IS 'The same by the clock: later by as much as its reading came late into the database.';
COMMENT ON COLUMN alert.due IS 'Transitions that are to be told: 1 fired, 2 resolved.';
COMMENT ON COLUMN alert.told IS 'How many of them have become notices.';

-- One row for each account with rules: a flush that carries watched devices, and the timers, hold
-- it while they look and write, so that a transition happens once.
CREATE TABLE alert_watch (
    account_id int PRIMARY KEY REFERENCES account ON DELETE CASCADE,
    version bigint NOT NULL
) WITH (fillfactor = 50);
COMMENT ON COLUMN alert_watch.version IS 'Goes up whenever an alert of the account begins, changes or ends.';

-- Readings that were judged by rules and not stored, past the quota.
CREATE TABLE alert_mark (
    series_id int PRIMARY KEY REFERENCES series ON DELETE CASCADE,
    account_id int NOT NULL REFERENCES account ON DELETE CASCADE,
    device_id text NOT NULL REFERENCES device ON DELETE CASCADE,
    time timestamptz NOT NULL,
    received_at timestamptz NOT NULL
) WITH (fillfactor = 50);
CREATE INDEX alert_mark_device ON alert_mark (account_id, device_id);
COMMENT ON COLUMN alert_mark.time IS 'The newest one''s; older ones are out of order.';

-- One row: since when the timers have looked without a gap.
CREATE TABLE alert_timer (
    singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    seen_at timestamptz NOT NULL,
    counting_from timestamptz NOT NULL,
    ingest_at timestamptz
) WITH (fillfactor = 50);
COMMENT ON COLUMN alert_timer.counting_from IS 'Silence before this may be ours, so it is counted from here.';
COMMENT ON COLUMN alert_timer.ingest_at IS 'When an active ingest process was last there; null where none has been seen.';

-- The directory: which series have rules is part of what a flush knows of a device.
CREATE FUNCTION note_alert_rule_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP <> 'INSERT' THEN
        INSERT INTO directory_change (account_id, device_id) VALUES (OLD.account_id, OLD.device_id);
    END IF;
    IF TG_OP = 'INSERT' OR (TG_OP = 'UPDATE' AND NEW.device_id IS DISTINCT FROM OLD.device_id) THEN
        INSERT INTO directory_change (account_id, device_id) VALUES (NEW.account_id, NEW.device_id);
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER directory_lock BEFORE INSERT OR DELETE OR UPDATE
    ON alert_rule FOR EACH STATEMENT EXECUTE FUNCTION lock_directory();
CREATE TRIGGER directory_note AFTER INSERT OR DELETE OR UPDATE
    ON alert_rule FOR EACH ROW EXECUTE FUNCTION note_alert_rule_change();

-- Webhooks.
CREATE TABLE channel (
    id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    account_id int NOT NULL REFERENCES account ON DELETE CASCADE,
    name text NOT NULL,
    url text NOT NULL,
    secret text NOT NULL,
    old_secret text,
    old_secret_until timestamptz,
    failures int NOT NULL DEFAULT 0,
    paused_at timestamptz,
    created_at timestamptz NOT NULL
);
CREATE INDEX channel_account ON channel (account_id);
COMMENT ON COLUMN channel.secret IS 'Signs what is sent, so it must be known in clear; the API may write it and never read it.';
-- a trigger, since whoever may write a secret need not be able to read the one before
CREATE FUNCTION keep_old_secret() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.old_secret := OLD.secret;
    NEW.old_secret_until := now() + interval '24 hours';
    RETURN NEW;
END $$;
CREATE TRIGGER rotation BEFORE UPDATE OF secret ON channel
    FOR EACH ROW EXECUTE FUNCTION keep_old_secret();
COMMENT ON COLUMN channel.old_secret IS 'Signs beside the new one for a day, so that no receiver is caught out.';
COMMENT ON COLUMN channel.failures IS 'Attempts that failed since the last that did not.';

CREATE TABLE delivery (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    account_id int NOT NULL REFERENCES account ON DELETE CASCADE,
    channel_id int NOT NULL REFERENCES channel ON DELETE CASCADE,
    notice_id bigint REFERENCES notice ON DELETE CASCADE,
    event text NOT NULL,
    state text NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'delivered', 'failed')),
    attempts jsonb NOT NULL DEFAULT '[]',
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX delivery_channel ON delivery (channel_id, created_at DESC);
CREATE INDEX delivery_notice ON delivery (notice_id);
CREATE INDEX delivery_age ON delivery (created_at);
COMMENT ON COLUMN delivery.id IS 'Sent with every attempt: what receivers tell doubles by.';
COMMENT ON COLUMN delivery.attempts IS 'One object for each: at, status, error, ms.';

ALTER TABLE notification_preference ADD COLUMN webhook boolean NOT NULL DEFAULT true;

-- Mails of an account's notices on a UTC day, security left out.
CREATE TABLE mail_day (
    account_id int NOT NULL REFERENCES account ON DELETE CASCADE,
    day date NOT NULL,
    mails int NOT NULL,
    summed_up boolean NOT NULL DEFAULT false,
    PRIMARY KEY (account_id, day)
);
CREATE INDEX mail_day_open ON mail_day (day) WHERE NOT summed_up;
ALTER TABLE notice ADD COLUMN admitted_on date, ADD COLUMN held_on date;
CREATE INDEX notice_held ON notice (account_id, held_on) WHERE held_on IS NOT NULL;
COMMENT ON COLUMN notice.admitted_on IS 'The day whose mails it is one of, counted once however often it is tried.';
COMMENT ON COLUMN notice.held_on IS 'The day whose mails were used up, so that it was not mailed.';
