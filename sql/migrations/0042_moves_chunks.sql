-- A move makes the chunks it leads to before it carries anything.
ALTER TABLE move ADD COLUMN prepared_at timestamptz;
COMMENT ON COLUMN move.prepared_at IS 'Since when the new tier has a chunk for every reading that is to come.';
