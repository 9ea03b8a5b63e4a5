-- Which programs can work beside a migration.

ALTER TABLE schema_migration ADD COLUMN needs text;
COMMENT ON COLUMN schema_migration.needs IS 'A program that does not know this migration cannot work with the schema any more; null: every older one can.';
