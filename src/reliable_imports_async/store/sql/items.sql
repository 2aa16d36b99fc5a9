-- Items: reading them to be processed or shown, and deleting them. Settling them: settlements.sql.

-- name: read_pending
-- The next items of a range that are due.
SELECT item_number, attempts, source_data::text AS source_data, source_line, item_key, root_item_number
  FROM reliable_imports.import_batch_items
 WHERE batch_id = $1 AND item_number BETWEEN $2 AND $3 AND status = 'pending' AND reprocessed_by IS NULL
   AND (due_at IS NULL OR due_at <= clock_timestamp())
 ORDER BY item_number
 LIMIT $4;

-- name: read_undue
-- The items of a range whose retry is not due yet: later items with their keys wait for them.
SELECT item_number, attempts, source_data::text AS source_data, source_line, item_key, root_item_number
  FROM reliable_imports.import_batch_items
 WHERE batch_id = $1 AND item_number BETWEEN $2 AND $3 AND status = 'pending' AND reprocessed_by IS NULL
   AND due_at > clock_timestamp()
 ORDER BY item_number;

-- name: get_item
-- One item with everything that is stored about it.
SELECT * FROM reliable_imports.import_item_details WHERE batch_id = $1 AND item_number = $2;

-- name: list_items
-- A page of items in the order of their numbers; $4 is the last number of the previous page.
SELECT *
  FROM reliable_imports.import_item_details
 WHERE batch_id = $1 AND item_number > $4
   AND ($2::text IS NULL OR status = $2)
   AND ($3::text IS NULL OR error_group = $3)
 ORDER BY item_number
 LIMIT $5;

-- name: list_failed_items
-- The same for the failed items of a group, through the index of the failure groups.
SELECT *
  FROM reliable_imports.import_item_details
 WHERE batch_id = $1 AND error_group = $2 AND item_number > $3 AND status = 'failed'
 ORDER BY item_number
 LIMIT $4;

-- name: list_items_by_status
-- The same for one status; only ranges that can have such items are read.
SELECT i.*
  FROM reliable_imports.ranges_with_status($1, $2, $3) r
 CROSS JOIN LATERAL (
       SELECT *
         FROM reliable_imports.import_item_details d
        WHERE d.batch_id = $1 AND d.item_number BETWEEN greatest(r.first_item, $3 + 1) AND r.last_item
          AND d.status = $2::text
        ORDER BY d.item_number
        LIMIT $4) i
 ORDER BY r.first_item, i.item_number
 LIMIT $4;

-- name: delete_items
-- A chunk of some batches' items.
DELETE FROM reliable_imports.import_batch_items
 WHERE ctid = ANY (ARRAY(SELECT ctid FROM reliable_imports.import_batch_items
                          WHERE batch_id = ANY ($1::uuid[]) LIMIT $2));
