-- Billing at Stripe, devices over a smaller plan's limit, and warnings of the daily quota.

CREATE TABLE subscription (
    account_id int PRIMARY KEY REFERENCES account ON DELETE CASCADE,
    -- made before Stripe is asked, so that asking again finds the same customer
    customer_key text NOT NULL,
    customer_id text UNIQUE,
    subscription_id text,
    status text,
    plan text,
    period_end timestamptz,
    ends_at timestamptz,
    granted text,
    checkout_key text,
    checkout_at timestamptz,
    synced_at timestamptz NOT NULL DEFAULT 'epoch'
);
CREATE INDEX subscription_synced ON subscription (synced_at) WHERE customer_id IS NOT NULL;
CREATE INDEX subscription_ends ON subscription (ends_at) WHERE ends_at IS NOT NULL;
COMMENT ON TABLE subscription IS 'What Stripe said of an account the last time it was asked; Stripe stays the truth.';
COMMENT ON COLUMN subscription.customer_id IS 'Stripe''s; null until the first Checkout, and once the customer was deleted there.';
COMMENT ON COLUMN subscription.status IS 'Stripe''s word, or null where there is no subscription.';
COMMENT ON COLUMN subscription.plan IS 'The plan that is paid for; null where its price belongs to none.';
COMMENT ON COLUMN subscription.period_end IS 'Paid until then, or due then.';
COMMENT ON COLUMN subscription.ends_at IS 'When the plan ends, where it was cancelled; null while it goes on.';
COMMENT ON COLUMN subscription.granted IS 'The plan that billing gave the account; null where an operator decides.';
COMMENT ON COLUMN subscription.checkout_key IS 'A Checkout that is being made this moment.';
COMMENT ON COLUMN subscription.checkout_at IS 'When the last Checkout was begun.';
COMMENT ON COLUMN subscription.synced_at IS 'When Stripe was last asked, or a job to ask it was written.';

-- Each of Stripe's events once, however often it is delivered.
CREATE TABLE stripe_event (
    id text PRIMARY KEY,
    type text NOT NULL,
    received_at timestamptz NOT NULL
);
CREATE INDEX stripe_event_age ON stripe_event (received_at);

ALTER TABLE device ADD COLUMN paused_at timestamptz;
COMMENT ON COLUMN device.paused_at IS 'Cut off since then: the plan has room for the account''s older devices only.';
-- a paused device leaves the broker's password file
CREATE TRIGGER credentials_paused AFTER UPDATE OF paused_at ON device
    FOR EACH STATEMENT EXECUTE FUNCTION notify_credentials();

CREATE TABLE usage_warning (
    account_id int NOT NULL REFERENCES account ON DELETE CASCADE,
    day date NOT NULL,
    level int NOT NULL CHECK (level IN (80, 90, 100)),
    PRIMARY KEY (account_id, day, level)
);
CREATE INDEX usage_warning_day ON usage_warning (day);
COMMENT ON TABLE usage_warning IS 'Which levels (%) of a UTC day''s points the account was warned of.';
