-- What migrating and opening ask of the database.

-- name: has_history
-- Whether this database was ever migrated.
SELECT to_regclass('reliable_imports.schema_migrations') IS NOT NULL;

-- name: applied
-- The migrations that were applied.
SELECT name, sha256 FROM reliable_imports.schema_migrations ORDER BY name;

-- name: lock
-- One migration at a time; ends with the transaction.
SELECT pg_advisory_xact_lock(hashtextextended('reliable_imports.schema_migrations', 0));

-- name: create_history
-- Where applied migrations are recorded.
CREATE SCHEMA IF NOT EXISTS reliable_imports;

-- name: create_history_table
-- One row a migration.
CREATE TABLE IF NOT EXISTS reliable_imports.schema_migrations (
    name text PRIMARY KEY,
    sha256 text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT clock_timestamp());

-- name: record
-- A migration was applied.
INSERT INTO reliable_imports.schema_migrations (name, sha256) VALUES ($1, $2);
