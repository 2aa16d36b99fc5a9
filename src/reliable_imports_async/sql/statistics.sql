-- What the planner knows of the table of items.

-- name: items_outgrown
-- Whether what was just added ($1 rows) is more than a tenth of what the statistics know of.
SELECT c.reltuples < 10 * $1::bigint
  FROM pg_catalog.pg_class c
 WHERE c.oid = 'reliable_imports.import_batch_items'::regclass;

-- name: analyze_items
-- Only the columns that statements look for: those of the records themselves take most of the time.
ANALYZE reliable_imports.import_batch_items
    (batch_id, item_number, status, root_item_number, error_group, reprocessed_by);
