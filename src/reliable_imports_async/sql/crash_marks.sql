-- Crash marks, in the order in which a suspect item meets the statements.

-- name: others_marks
-- How many dead and how many living workers have left a mark on an item; not the asking one.
SELECT count(*) FILTER (WHERE m.seen_at < clock_timestamp() - make_interval(secs => $4)) AS dead,
       count(*) FILTER (WHERE m.seen_at >= clock_timestamp() - make_interval(secs => $4)) AS living
  FROM reliable_imports.import_crash_marks m
 WHERE m.batch_id = $1 AND m.item_number = $2 AND m.worker_id <> $3;

-- name: mark_item
-- Committed before the item begins.
INSERT INTO reliable_imports.import_crash_marks (batch_id, item_number, worker_id)
VALUES ($1, $2, $3)
ON CONFLICT (batch_id, item_number, worker_id) DO UPDATE SET seen_at = clock_timestamp();

-- name: keep_marks
-- The worker lives.
UPDATE reliable_imports.import_crash_marks SET seen_at = clock_timestamp() WHERE batch_id = $1 AND worker_id = $2;

-- name: unmark_item
-- The item did not kill the worker. Once it is settled ($4), nobody's marks matter any more.
DELETE FROM reliable_imports.import_crash_marks
 WHERE batch_id = $1 AND item_number = $2 AND (worker_id = $3 OR $4::boolean);

-- name: delete_crash_marks
-- Everything of some batches.
DELETE FROM reliable_imports.import_crash_marks WHERE batch_id = ANY ($1::uuid[]);
