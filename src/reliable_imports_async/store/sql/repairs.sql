-- Changing and exporting the records of failed items. lock_failed and edit_items run in one transaction.

-- name: lock_failed
-- A page, above the number $4, of the failed items of a batch that no reprocessing has taken over. $2 is a group, $3 one
-- item.
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
-- The changes of an item, oldest first, each with the record after it.
SELECT e.edit_id, e.source_data::text AS before, e.raw, e.actor, e.reason, e.edited_at,
       coalesce(lead(e.source_data) OVER (ORDER BY e.edit_id), i.source_data)::text AS after
  FROM reliable_imports.import_item_edits e
  JOIN reliable_imports.import_batch_items i ON i.batch_id = e.batch_id AND i.item_number = e.item_number
 WHERE e.batch_id = $1 AND e.item_number = $2
 ORDER BY e.edit_id;

-- name: delete_edits
-- Every change of some batches' items.
DELETE FROM reliable_imports.import_item_edits WHERE batch_id = ANY ($1::uuid[]);

-- name: outstanding_tries
-- The failed items of batch $1 whose records are outstanding, with the last try of each, here or in a later batch of the
-- lineage $2. It may be pending in a cancelled reprocessing. For a root batch, records that failed only in a later batch are
-- included. $3 is a group, $4 the last number of the previous page.
WITH failed AS (
    SELECT f.item_number, coalesce(f.root_item_number, f.item_number) AS root_number, f.error_group
      FROM reliable_imports.import_batch_items f
     WHERE f.batch_id = $1 AND f.error_group IS NOT NULL AND f.status = 'failed' AND f.item_number > $4
     UNION ALL
    SELECT t.root_item_number, t.root_item_number, t.error_group
      FROM reliable_imports.import_batches b
      JOIN reliable_imports.import_batch_items t ON t.batch_id = b.id
     WHERE $1 = $2 AND b.root_batch_id = $2 AND b.id <> $2 AND t.error_group IS NOT NULL AND t.status = 'failed'
       AND t.reprocessed_by IS NULL AND t.root_item_number > $4
       AND EXISTS (SELECT FROM reliable_imports.import_batch_items o
                    WHERE o.batch_id = $2 AND o.item_number = t.root_item_number AND o.status <> 'failed')),
tries AS (
    SELECT e.batch_id, e.item_number, e.root_number, e.error_group
      FROM reliable_imports.import_eligible_items e
     WHERE e.root_batch_id = $2)
SELECT f.item_number, t.batch_id AS try_batch_id, t.item_number AS try_number
  FROM failed f
  JOIN tries t ON t.root_number = f.root_number
 WHERE $3::text IS NULL OR coalesce(t.error_group, f.error_group) = $3
 ORDER BY f.item_number
 LIMIT $5;

-- name: keys_of_tries
-- The field names in the records of some tries.
SELECT DISTINCT k.name
  FROM unnest($1::uuid[], $2::integer[]) AS u(batch_id, item_number)
  JOIN reliable_imports.import_batch_items t ON t.batch_id = u.batch_id AND t.item_number = u.item_number
 CROSS JOIN LATERAL jsonb_object_keys(t.source_data) AS k(name)
 ORDER BY k.name;

-- name: read_tries
-- The records of some tries with their errors; for a pending try, the error of the item in batch $1.
SELECT u.item_number, t.source_data::text AS source_data, t.raw, t.source_line, e.error_group, e.error_kind, e.error_type,
       e.error_message, e.error_sqlstate, e.error_constraint, e.error_detail
  FROM unnest($2::integer[], $3::uuid[], $4::integer[]) WITH ORDINALITY AS u(item_number, try_batch_id, try_number, n)
  JOIN reliable_imports.import_batch_items t ON t.batch_id = u.try_batch_id AND t.item_number = u.try_number
  JOIN reliable_imports.import_batch_items e
    ON e.batch_id = CASE WHEN t.error_group IS NULL THEN $1 ELSE t.batch_id END
   AND e.item_number = CASE WHEN t.error_group IS NULL THEN u.item_number ELSE t.item_number END
 ORDER BY u.n;
