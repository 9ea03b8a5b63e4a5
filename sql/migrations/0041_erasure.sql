-- Accounts that are being deleted, what is being erased of them, and the receipts of it.

ALTER TABLE account
    ADD COLUMN closing_at timestamptz,
    ADD COLUMN erasing boolean NOT NULL DEFAULT false,
    ADD CONSTRAINT account_erasing_check CHECK (closing_at IS NOT NULL OR NOT erasing);
COMMENT ON COLUMN account.closing_at IS 'When its deletion was asked for: nothing but export and undo is left to it.';
COMMENT ON COLUMN account.erasing IS 'The erasure has begun, and nothing brings the account back.';

-- A flush refuses what it gets of a closing account, so no flush may be between its look and its
-- commit; the devices leave the broker's password file.
CREATE TRIGGER directory_lock_closing BEFORE UPDATE OF closing_at ON account
    FOR EACH STATEMENT EXECUTE FUNCTION lock_directory();
CREATE TRIGGER directory_note_closing AFTER UPDATE OF closing_at ON account
    FOR EACH ROW EXECUTE FUNCTION note_directory_change();
CREATE TRIGGER credentials_closing AFTER UPDATE OF closing_at ON account
    FOR EACH STATEMENT EXECUTE FUNCTION notify_credentials();

ALTER TABLE account_token DROP CONSTRAINT account_token_purpose_check,
    ADD CONSTRAINT account_token_purpose_check CHECK (purpose IN
        ('verify_email', 'change_email', 'reset_password', 'reauthenticate', 'undo_deletion'));

ALTER TABLE subscription ADD COLUMN ended_for_deletion text;
COMMENT ON COLUMN subscription.ended_for_deletion IS 'The subscription that was set to end because the account is being deleted; an undo lets it go on.';

-- No reference to the account or the device: it outlives both.
CREATE TABLE erasure (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    account_id int,
    device_id text,
    series_ids int[] NOT NULL DEFAULT '{}',
    asked_by text NOT NULL CHECK (asked_by IN ('person', 'operator', 'restore')),
    asked_at timestamptz NOT NULL,
    due_at timestamptz NOT NULL,
    queued_at timestamptz,
    begun_at timestamptz,
    step text NOT NULL DEFAULT 'waiting',
    reached timestamptz,
    erased jsonb NOT NULL DEFAULT '{}',
    kept text,
    finished_at timestamptz,
    receipt_hashes bytea[] NOT NULL DEFAULT '{}',
    mail_to text,
    CHECK (finished_at IS NULL OR account_id IS NULL AND device_id IS NULL)
);
CREATE UNIQUE INDEX erasure_of_account ON erasure (account_id) WHERE device_id IS NULL;
CREATE UNIQUE INDEX erasure_of_device ON erasure (device_id);
CREATE INDEX erasure_due ON erasure (due_at) WHERE queued_at IS NULL;
COMMENT ON TABLE erasure IS 'One that is to be done, with how far it is; and of an account''s, once it is done, the receipt.';
COMMENT ON COLUMN erasure.account_id IS 'Null once it is done: a receipt names nobody.';
COMMENT ON COLUMN erasure.device_id IS 'Null: the whole account.';
COMMENT ON COLUMN erasure.series_ids IS 'Of a device, whose own rows are gone already.';
COMMENT ON COLUMN erasure.reached IS 'Readings before this time are gone.';
COMMENT ON COLUMN erasure.erased IS 'Rows that went, by table; files by their kind.';
COMMENT ON COLUMN erasure.kept IS 'What somebody else must keep by law.';
COMMENT ON COLUMN erasure.receipt_hashes IS 'SHA-256 of the tokens that show the receipt.';
COMMENT ON COLUMN erasure.mail_to IS 'Where the receipt is mailed to; null once it is.';
