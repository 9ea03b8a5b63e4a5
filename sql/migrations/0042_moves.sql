-- Moves that know how far they are, columnstore for the longer tiers, and what a smaller plan pauses.

ALTER TABLE tier ADD COLUMN columnstore_after interval;
COMMENT ON COLUMN tier.columnstore_after IS 'When chunks become columnstore, where the edition has it; null for never.';

CREATE TABLE move (
    account_id int PRIMARY KEY REFERENCES account ON DELETE CASCADE,
    begun_at timestamptz NOT NULL,
    carried_to timestamptz NOT NULL,
    until timestamptz NOT NULL,
    span interval NOT NULL DEFAULT interval '1 hour',
    reported_at timestamptz
) WITH (fillfactor = 50);
COMMENT ON TABLE move IS 'One row for each account whose readings are on their way to another tier.';
COMMENT ON COLUMN move.carried_to IS 'Everything older stands in the new tier already, or is gone.';
COMMENT ON COLUMN move.until IS 'Nothing in the old tier is as young as this.';
COMMENT ON COLUMN move.span IS 'How much time the next slice tries to take.';
COMMENT ON COLUMN move.reported_at IS 'When an operator was told that it takes long.';
INSERT INTO move (account_id, begun_at, carried_to, until)
SELECT account.id, now(), now() - tier.retention - interval '2 days', now() + interval '1 hour'
FROM account JOIN tier ON tier.name = account.moving_from;
-- where no move is open nothing that had expired is left, and what came late since may be older
UPDATE account SET readable_from = 'epoch' WHERE moving_from IS NULL;
COMMENT ON COLUMN account.readable_from IS 'Nothing older in the tier that is left is ever read again; set while a move is open.';

ALTER TABLE account ADD COLUMN tier_told_days int;
COMMENT ON COLUMN account.tier_told_days IS 'How many days before tier_due_at the account was last reminded of it.';

-- silence and absence while a device was paused are nobody's fault
ALTER TABLE device ADD COLUMN resumed_at timestamptz;
COMMENT ON COLUMN device.resumed_at IS 'When its last pause ended.';
ALTER TABLE alert_rule ADD COLUMN paused_at timestamptz;
COMMENT ON COLUMN alert_rule.paused_at IS 'Not judged since then: the plan has room for the account''s older rules only.';

-- whoever changes an account's address, its customer at Stripe follows
ALTER TABLE subscription ADD COLUMN stale_since timestamptz;
COMMENT ON COLUMN subscription.stale_since IS 'The account''s address changed then, and Stripe has not heard of it yet.';
CREATE FUNCTION note_stale_customer() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE subscription SET stale_since = clock_timestamp()
    WHERE account_id = NEW.id AND customer_id IS NOT NULL;
    RETURN NULL;
END $$;
CREATE TRIGGER customer_stale AFTER UPDATE OF email ON account
    FOR EACH ROW WHEN (NEW.email IS DISTINCT FROM OLD.email) EXECUTE FUNCTION note_stale_customer();
