-- PostgreSQL's catalogs: tables, constraints and statistics.

-- name: table_columns
-- The columns of a table. Types have their schema and no length, so that a value that is too long is refused by the
-- assignment instead of being cut off by a cast. Domains and arrays are followed to the type that decides the conversion.
WITH RECURSIVE below AS (
     SELECT a.attnum, a.attname, a.atttypid, a.atttypmod, a.atttypid AS oid, false AS is_array, 0 AS depth
       FROM pg_catalog.pg_attribute a
      WHERE a.attrelid = pg_catalog.to_regclass($1) AND a.attnum > 0 AND NOT a.attisdropped
      UNION ALL
     SELECT b.attnum, b.attname, b.atttypid, b.atttypmod, CASE t.typtype WHEN 'd' THEN t.typbasetype ELSE t.typelem END,
            b.is_array OR t.typtype <> 'd', b.depth + 1
       FROM below b
       JOIN pg_catalog.pg_type t ON t.oid = b.oid
      WHERE t.typtype = 'd' OR (t.typcategory = 'A' AND t.typelem <> 0))
SELECT DISTINCT ON (b.attnum) b.attname::pg_catalog.text AS name,
       pg_catalog.format('%I.%I', n.nspname, own.typname) AS type,
       pg_catalog.format_type(b.atttypid, b.atttypmod) AS shown,
       t.typname::pg_catalog.text AS base, t.typtype::pg_catalog.text AS kind, b.is_array AS array
  FROM below b
  JOIN pg_catalog.pg_type t ON t.oid = b.oid
  JOIN pg_catalog.pg_type own ON own.oid = b.atttypid
  JOIN pg_catalog.pg_namespace n ON n.oid = own.typnamespace
 ORDER BY b.attnum, b.depth DESC;

-- name: table_facts
-- The facts that decide whether rows can be upserted into a table. No row if the table does not exist.
SELECT c.relkind::pg_catalog.text AS kind, current_user::pg_catalog.text AS role,
       EXISTS (SELECT FROM pg_catalog.pg_rewrite r WHERE r.ev_class = c.oid AND r.ev_type IN ('2', '3')
                  AND r.ev_enabled <> 'D') AS has_rules,
       EXISTS (SELECT FROM pg_catalog.pg_trigger t WHERE t.tgrelid = c.oid AND t.tgtype & 7 = 7 AND t.tgenabled <> 'D'
                  AND NOT t.tgisinternal) AS has_trigger
  FROM pg_catalog.pg_class c
 WHERE c.oid = pg_catalog.to_regclass($1);

-- name: column_facts
-- The same for each column: who fills it, and what the role may do with it.
SELECT a.attname::pg_catalog.text AS name,
       a.attgenerated <> '' AS generated, a.attidentity = 'a' AS identity_always,
       (a.attnotnull OR t.typnotnull) AND NOT a.atthasdef AND a.attidentity = '' AND t.typdefault IS NULL AS needs_value,
       pg_catalog.has_column_privilege(a.attrelid, a.attnum, 'INSERT') AS may_insert,
       pg_catalog.has_column_privilege(a.attrelid, a.attnum, 'UPDATE') AS may_update,
       pg_catalog.has_column_privilege(a.attrelid, a.attnum, 'SELECT') AS may_select
  FROM pg_catalog.pg_attribute a
  JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
 WHERE a.attrelid = pg_catalog.to_regclass($1) AND a.attnum > 0 AND NOT a.attisdropped
 ORDER BY a.attnum;

-- name: unique_indexes
-- The unique indexes on exactly these columns, with the reasons why ON CONFLICT may not be able to use them.
SELECT i.relname::pg_catalog.text AS name, x.indpred IS NOT NULL AS partial, NOT x.indimmediate AS deferrable,
       NOT x.indisvalid OR NOT x.indisready AS invalid, pg_catalog.to_jsonb(x) @> '{"indnullsnotdistinct": true}' AS nulls_equal
  FROM pg_catalog.pg_index x
  JOIN pg_catalog.pg_class i ON i.oid = x.indexrelid
 WHERE x.indrelid = pg_catalog.to_regclass($1) AND x.indisunique AND x.indexprs IS NULL
   AND (SELECT pg_catalog.array_agg(a.attname::pg_catalog.text ORDER BY a.attname)
          FROM pg_catalog.unnest(x.indkey[0 : x.indnkeyatts - 1]) AS k(n)
          JOIN pg_catalog.pg_attribute a ON a.attrelid = x.indrelid AND a.attnum = k.n)
       = (SELECT pg_catalog.array_agg(c ORDER BY c COLLATE "C") FROM pg_catalog.unnest($2::pg_catalog.text[]) AS c)
 ORDER BY x.indisvalid DESC, x.indpred IS NULL DESC, i.relname;

-- name: folding_columns
-- The columns among $2 in which different texts can be equal: citext, nondeterministic collations, char(n).
SELECT a.attname::pg_catalog.text AS name
  FROM pg_catalog.pg_attribute a
  JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
  LEFT JOIN pg_catalog.pg_collation l ON l.oid = a.attcollation
 WHERE a.attrelid = pg_catalog.to_regclass($1) AND a.attname = ANY ($2::pg_catalog.text[])
   AND (t.typname IN ('citext', 'bpchar') OR NOT l.collisdeterministic);

-- name: items_outgrown
-- Whether the $1 rows that were just added are more than a tenth of the rows in the statistics.
SELECT c.reltuples < 10 * $1::bigint
  FROM pg_catalog.pg_class c
 WHERE c.oid = 'reliable_imports.import_batch_items'::regclass;

-- name: analyze_items
-- Only the columns that statements search by; analyzing the records would take most of the time.
ANALYZE reliable_imports.import_batch_items
    (batch_id, item_number, status, root_item_number, error_group, reprocessed_by);

-- name: deferred_constraints
-- Constraints that are only checked at COMMIT and that the role's statements can violate, with the names that SET CONSTRAINTS
-- takes. The role must have the right to use their schema. A name that is shared with a constraint that cannot be deferred is
-- left out, because SET CONSTRAINTS would refuse it; such a constraint is still checked at COMMIT.
SELECT pg_catalog.format('%I.%I', n.nspname, c.conname) AS name
  FROM pg_catalog.pg_constraint c
  JOIN pg_catalog.pg_namespace n ON n.oid = c.connamespace
 WHERE pg_catalog.has_schema_privilege(n.oid, 'USAGE')
 GROUP BY n.nspname, c.conname
HAVING bool_and(c.condeferrable) AND bool_or(c.condeferred)
   AND bool_or(pg_catalog.has_any_column_privilege(nullif(c.conrelid, 0), 'INSERT, UPDATE')
               OR pg_catalog.has_table_privilege(nullif(c.conrelid, 0), 'DELETE')
               OR pg_catalog.has_any_column_privilege(nullif(c.confrelid, 0), 'UPDATE')
               OR pg_catalog.has_table_privilege(nullif(c.confrelid, 0), 'DELETE'))
 ORDER BY 1;

-- name: user_tables
-- The tables that a processor may write to, and whether any constraint can be deferred until COMMIT.
SELECT c.oid::bigint AS oid, format('%I.%I', n.nspname, c.relname) AS name,
       EXISTS (SELECT FROM pg_trigger t WHERE t.tgdeferrable) AS deferrable
  FROM pg_class c
  JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relkind = 'r' AND c.relpersistence <> 't'
   AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'reliable_imports') AND n.nspname !~ '^pg_toast'
 ORDER BY name;

-- name: rows_changed
-- PostgreSQL's counts of rows that this backend has inserted, updated and deleted, by table. They include rows that were
-- rolled back and rows of earlier transactions that are not reported yet, so only differences within a transaction are
-- meaningful.
SELECT c.oid, c.inserted, c.updated, c.deleted
  FROM (SELECT o.oid, pg_stat_get_xact_tuples_inserted(o.oid::oid) AS inserted,
               pg_stat_get_xact_tuples_updated(o.oid::oid) AS updated,
               pg_stat_get_xact_tuples_deleted(o.oid::oid) AS deleted
          FROM unnest($1::bigint[]) AS o(oid)
        OFFSET 0) c  -- so that each is counted once
 WHERE c.inserted + c.updated + c.deleted > 0;

-- name: waits_for_locks
-- Whether a session of this role waits for a lock of another transaction.
SELECT EXISTS (
    SELECT FROM pg_catalog.pg_stat_activity
     WHERE datname = pg_catalog.current_database() AND usename = current_user AND wait_event_type = 'Lock'
);
