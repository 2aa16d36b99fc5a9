-- Tables that processors declare.

-- name: table_columns
-- The columns of a table, with their types.
SELECT a.attname AS name, format_type(a.atttypid, a.atttypmod) AS type, a.atttypid = 'bytea'::regtype AS is_bytes
  FROM pg_catalog.pg_attribute a
 WHERE a.attrelid = to_regclass($1) AND a.attnum > 0 AND NOT a.attisdropped
 ORDER BY a.attnum;

-- name: table_is_unique
-- Whether a unique index without conditions has exactly these columns.
SELECT EXISTS (
       SELECT FROM pg_catalog.pg_index x
        WHERE x.indrelid = to_regclass($1) AND x.indisunique AND x.indpred IS NULL AND x.indexprs IS NULL
          AND (SELECT array_agg(a.attname::text ORDER BY a.attname)
                 FROM unnest(x.indkey[0 : x.indnkeyatts - 1]) AS k(n)
                 JOIN pg_catalog.pg_attribute a ON a.attrelid = x.indrelid AND a.attnum = k.n)
              = (SELECT array_agg(c ORDER BY c) FROM unnest($2::text[]) AS c));
