-- Log lines.

-- name: insert_log
-- One line about a batch. Every operation that changes a batch writes one, with its actor.
INSERT INTO reliable_imports.import_logs (batch_id, level, message, details) VALUES ($1, $2, $3, $4::text::jsonb);

-- name: insert_lines
-- Lines about a batch, in order, each with the time at which it was logged.
INSERT INTO reliable_imports.import_logs (batch_id, level, message, details, logged_at)
SELECT $1, l.level, l.message, l.details::jsonb, l.logged_at
  FROM unnest($2::text[], $3::text[], $4::text[], $5::timestamptz[]) WITH ORDINALITY
       AS l(level, message, details, logged_at, n)
 ORDER BY l.n;

-- name: list_logs
-- A page of log lines in the order of writing; $3 is the last id of the previous page.
SELECT log_id, batch_id, item_number, level, message, details::text AS details, logged_at
  FROM reliable_imports.import_logs
 WHERE batch_id = $1
   AND ($2::text[] IS NULL OR level = ANY ($2))
   AND log_id > $3
 ORDER BY log_id
 LIMIT $4;

-- name: list_item_logs
-- The same for one item, through the index of items' lines.
SELECT log_id, batch_id, item_number, level, message, details::text AS details, logged_at
  FROM reliable_imports.import_logs
 WHERE batch_id = $1 AND item_number = $2::integer
   AND ($3::text[] IS NULL OR level = ANY ($3))
   AND log_id > $4
 ORDER BY log_id
 LIMIT $5;

-- name: delete_logs
-- A chunk of some batches' log lines.
DELETE FROM reliable_imports.import_logs
 WHERE ctid = ANY (ARRAY(SELECT ctid FROM reliable_imports.import_logs WHERE batch_id = ANY ($1::uuid[]) LIMIT $2));
