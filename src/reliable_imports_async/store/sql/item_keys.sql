-- Item keys: which items of a batch repeat a key, and with which content each key was last completed. The content of an item
-- is the processor's version and the record as jsonb prints it, so the order of names and white space do not matter.

-- name: unkeyed_page
-- The next pending items of a reprocessing: their records or the processor may have changed since their keys were computed.
SELECT item_number, source_data::text AS source_data, item_key, lock_key
  FROM reliable_imports.import_batch_items
 WHERE batch_id = $1 AND item_number > $2 AND status = 'pending'
 ORDER BY item_number
 LIMIT $3;

-- name: rekey
-- Gives items new keys, and fails the items whose records have no valid key. $2 are their numbers, $3 has by number what to
-- store.
WITH given AS MATERIALIZED (SELECT $3::text::jsonb AS keys)
UPDATE reliable_imports.import_batch_items i
   SET (item_key, lock_key, status, error_kind, error_type, error_message, error_hint, error_group, finished_at)
     = (SELECT k.v ->> 'key', k.v ->> 'lock', CASE WHEN k.v ? 'group' THEN 'failed' ELSE i.status END, k.v ->> 'kind',
               k.v ->> 'type', k.v ->> 'message', k.v ->> 'hint', k.v ->> 'group', CASE WHEN k.v ? 'group' THEN clock_timestamp() END
          FROM (SELECT (SELECT g.keys FROM given g) -> i.item_number::text AS v OFFSET 0) k)
 WHERE i.batch_id = $1 AND i.item_number = ANY ($2::integer[]) AND i.status = 'pending';

-- name: mark_repeated
-- Marks the items of batch $2 that repeat the key of an earlier record in the current state of their lineage $1, and settles
-- them if $3 is skip or fail. Uses a window instead of a join of items with items, because there are no statistics right
-- after COPY.
WITH known AS (
    SELECT i.batch_id, i.item_number, coalesce(i.root_item_number, i.item_number) AS number,
           min(coalesce(i.root_item_number, i.item_number)) OVER (PARTITION BY i.item_key) AS first_number
      FROM reliable_imports.import_batches b
      JOIN reliable_imports.import_batch_items i ON i.batch_id = b.id
     WHERE b.root_batch_id = $1 AND i.item_key IS NOT NULL AND i.reprocessed_by IS NULL),
repeated AS MATERIALIZED (
    SELECT k.item_number, k.first_number
      FROM known k
     WHERE k.batch_id = $2 AND k.first_number < k.number),
noted AS (
    UPDATE reliable_imports.import_batch_items i
       SET first_of_key = r.first_number,
           status = CASE $3 WHEN 'skip' THEN 'skipped' WHEN 'fail' THEN 'failed' ELSE i.status END,
           finished_at = CASE WHEN $3 IN ('skip', 'fail') THEN clock_timestamp() END,
           skip_reason = CASE $3 WHEN 'skip' THEN 'duplicate of item ' || r.first_number END,
           error_kind = CASE $3 WHEN 'fail' THEN 'validation' END,
           error_type = CASE $3 WHEN 'fail' THEN 'DuplicateKey' END,
           error_message = CASE $3 WHEN 'fail' THEN 'item ' || r.first_number || ' has the same key' END,
           error_detail = CASE $3 WHEN 'fail' THEN 'Key (item_key)=(' || i.item_key || ') already exists.' END,
           error_hint = CASE $3 WHEN 'fail' THEN $4::text END,
           error_group = CASE $3 WHEN 'fail' THEN $5::text END
      FROM repeated r
     WHERE i.batch_id = $2 AND i.item_number = r.item_number AND i.status = 'pending'
    RETURNING i.item_number)
SELECT count(*) FROM noted;

-- name: recount_ranges
-- Counts the items in a batch's ranges, before any worker holds one.
UPDATE reliable_imports.import_batch_ranges r
   SET completed = n.completed, skipped = n.skipped, failed = n.failed, groups = n.groups
  FROM reliable_imports.import_batch_ranges k
 CROSS JOIN LATERAL reliable_imports.count_items(k.batch_id, k.first_item, k.last_item) n
 WHERE r.batch_id = $1 AND k.batch_id = $1 AND r.first_item = k.first_item;

-- name: skip_unchanged
-- Skips the pending items of a range whose keys were last completed with the same content. Each key is looked up in a
-- subquery, so that the planner cannot choose a scan of the table of keys, which may be large.
UPDATE reliable_imports.import_batch_items i
   SET status = 'skipped', attempts = i.attempts + 1, started_at = now(), finished_at = clock_timestamp(),
       skip_reason = (SELECT 'unchanged since item ' || k.item_number || ' of batch ' || k.batch_id
                        FROM reliable_imports.import_item_keys k
                       WHERE k.batch_type = $4 AND k.item_key = i.item_key)
 WHERE i.batch_id = $1 AND i.item_number BETWEEN $2 AND $3 AND i.status = 'pending' AND i.reprocessed_by IS NULL
   AND i.item_key IS NOT NULL AND i.first_of_key IS NULL AND (i.due_at IS NULL OR i.due_at <= clock_timestamp())
   AND sha256(convert_to($5 || E'\x1f' || i.source_data::text, 'UTF8'))
       = (SELECT k.content_sha256
            FROM reliable_imports.import_item_keys k
           WHERE k.batch_type = $4 AND k.item_key = i.item_key)
RETURNING i.item_number;

-- name: find_unchanged
-- The numbers of the same items, for a dry run.
SELECT i.item_number
  FROM reliable_imports.import_batch_items i
 WHERE i.batch_id = $1 AND i.item_number BETWEEN $2 AND $3 AND i.status = 'pending' AND i.reprocessed_by IS NULL
   AND i.item_key IS NOT NULL AND i.first_of_key IS NULL AND (i.due_at IS NULL OR i.due_at <= clock_timestamp())
   AND sha256(convert_to($5 || E'\x1f' || i.source_data::text, 'UTF8'))
       = (SELECT k.content_sha256
            FROM reliable_imports.import_item_keys k
           WHERE k.batch_type = $4 AND k.item_key = i.item_key);
