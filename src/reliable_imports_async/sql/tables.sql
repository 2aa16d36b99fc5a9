-- Tables that processors write to.

-- name: table_columns
-- The columns of a table. The type is named with its schema and without a length: what is too long is then refused by the
-- assignment, and not cut off by a cast. Domains and arrays are followed down to the type that decides about a conversion.
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
-- What decides whether rows can be upserted into a table; no row where there is no such table.
SELECT c.relkind::pg_catalog.text AS kind, current_user::pg_catalog.text AS role,
       EXISTS (SELECT FROM pg_catalog.pg_rewrite r WHERE r.ev_class = c.oid AND r.ev_type IN ('2', '3')
                  AND r.ev_enabled <> 'D') AS has_rules,
       EXISTS (SELECT FROM pg_catalog.pg_trigger t WHERE t.tgrelid = c.oid AND t.tgtype & 7 = 7 AND t.tgenabled <> 'D'
                  AND NOT t.tgisinternal) AS has_trigger
  FROM pg_catalog.pg_class c
 WHERE c.oid = pg_catalog.to_regclass($1);

-- name: column_facts
-- The same about each column: who fills it, and what the role may do with it.
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
-- The unique indexes whose key columns are exactly these, and what keeps ON CONFLICT from using them.
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
-- Of some columns of a table those in which texts can be equal that differ: citext, collations without determinism, char(n).
SELECT a.attname::pg_catalog.text AS name
  FROM pg_catalog.pg_attribute a
  JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
  LEFT JOIN pg_catalog.pg_collation l ON l.oid = a.attcollation
 WHERE a.attrelid = pg_catalog.to_regclass($1) AND a.attname = ANY ($2::pg_catalog.text[])
   AND (t.typname IN ('citext', 'bpchar') OR NOT l.collisdeterministic);
