-- Which version of the privacy policy an account was last told of.

-- one that is there already is told of no version that was shipped before this
ALTER TABLE account ADD COLUMN policy_told text COLLATE "C" NOT NULL DEFAULT '2026-11-25'
    CHECK (policy_told ~ '^\d{4}-\d\d-\d\d$');
CREATE INDEX account_policy_told ON account (policy_told);
COMMENT ON COLUMN account.policy_told IS 'The version it began with, or the newest one a notice told it of: a day.';
