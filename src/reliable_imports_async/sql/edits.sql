-- Changing the records of failed items. The first two run in one transaction.

-- name: lock_failed
-- The failed items of a batch that nothing has taken up, a page above the number $4; $2 a group, $3 one item.
SELECT item_number, source_data::text AS source_data, raw
  FROM reliable_imports.import_batch_items
 WHERE batch_id = $1 AND error_group IS NOT NULL AND status = 'failed' AND reprocessed_by IS NULL
   AND ($2::text IS NULL OR error_group = $2)
   AND ($3::integer IS NULL OR item_number = $3)
   AND item_number > $4
 ORDER BY item_number
 LIMIT $5
   FOR UPDATE;

-- name: edit_items
-- Gives locked items new records and keeps the old ones.
WITH new AS (
    SELECT u.item_number, u.text::jsonb AS source_data
      FROM unnest($2::integer[], $3::text[]) AS u(item_number, text)),
kept AS (
    INSERT INTO reliable_imports.import_item_edits (batch_id, item_number, source_data, raw, actor, reason)
    SELECT i.batch_id, i.item_number, i.source_data, i.raw, $4, $5
      FROM new n
      JOIN reliable_imports.import_batch_items i ON i.batch_id = $1 AND i.item_number = n.item_number)
UPDATE reliable_imports.import_batch_items i
   SET source_data = n.source_data, raw = NULL, item_key = NULL
  FROM new n
 WHERE i.batch_id = $1 AND i.item_number = n.item_number;

-- name: item_edits
-- The changes of one item, oldest first, each with what came of it.
SELECT e.edit_id, e.source_data::text AS before, e.raw, e.actor, e.reason, e.edited_at,
       coalesce(lead(e.source_data) OVER (ORDER BY e.edit_id), i.source_data)::text AS after
  FROM reliable_imports.import_item_edits e
  JOIN reliable_imports.import_batch_items i ON i.batch_id = e.batch_id AND i.item_number = e.item_number
 WHERE e.batch_id = $1 AND e.item_number = $2
 ORDER BY e.edit_id;

-- name: delete_edits
-- Every change of some batches' items.
DELETE FROM reliable_imports.import_item_edits WHERE batch_id = ANY ($1::uuid[]);
