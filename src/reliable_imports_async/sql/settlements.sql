-- Settling the items of an interval, all in one statement. The fence is that of a single item; whoever sends this compares
-- the count with the number of items, and rolls everything back when they differ. Bounds on the numbers would look helpful; but with them the generic plan, made when
-- the table is new, compares each item with each.

-- name: settle_completed
-- The plain case: every item completed in its same try, and nothing more is to be said about any.
UPDATE reliable_imports.import_batch_items
   SET status = 'completed', attempts = attempts + 1, started_at = now(), finished_at = clock_timestamp()
 WHERE batch_id = $1 AND item_number = ANY ($2::integer[])
   AND status = 'pending' AND attempts = $3 AND reprocessed_by IS NULL;

-- name: settle_results
-- The same for items that completed with results, or were skipped.
UPDATE reliable_imports.import_batch_items i
   SET status = u.status, attempts = i.attempts + 1, target_table = u.target_table, target_id = u.target_id,
       processed_data = u.processed_data::jsonb, skip_reason = u.skip_reason,
       started_at = now(), finished_at = clock_timestamp()
  FROM unnest($2::integer[], $3::integer[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[])
       AS u(item_number, attempts, status, target_table, target_id, processed_data, skip_reason)
 WHERE i.batch_id = $1 AND i.item_number = u.item_number
   AND i.status = 'pending' AND i.attempts = u.attempts AND i.reprocessed_by IS NULL;

-- name: settle_mixed
-- The same when items failed, are to be tried again, or wrote log lines.
WITH settled AS (
    UPDATE reliable_imports.import_batch_items i
       SET status = u.status, attempts = i.attempts + 1, target_table = u.target_table, target_id = u.target_id,
           processed_data = u.processed_data::jsonb, skip_reason = u.skip_reason,
           started_at = now(), finished_at = clock_timestamp()
      FROM unnest($2::integer[], $3::integer[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[])
           AS u(item_number, attempts, status, target_table, target_id, processed_data, skip_reason)
     WHERE i.batch_id = $1 AND i.item_number = u.item_number
       AND i.status = 'pending' AND i.attempts = u.attempts AND i.reprocessed_by IS NULL
    RETURNING i.item_number),
failed AS (
    UPDATE reliable_imports.import_batch_items i
       SET status = 'failed', attempts = i.attempts + 1,
           error_kind = u.kind, error_type = u.type, error_message = u.message, error_group = u.error_group,
           error_sqlstate = u.sqlstate, error_constraint = u.constraint_name, error_table = u.table_name,
           error_column = u.column_name, error_detail = u.detail, error_hint = u.hint,
           error_traceback = u.traceback, error_fields = u.fields::jsonb,
           started_at = clock_timestamp() - make_interval(secs => u.seconds), finished_at = clock_timestamp()
      FROM unnest($9::integer[], $10::integer[], $11::text[], $12::text[], $13::text[], $14::text[], $15::text[],
                  $16::text[], $17::text[], $18::text[], $19::text[], $20::text[], $21::text[], $22::text[],
                  $23::float8[])
           AS u(item_number, attempts, kind, type, message, error_group, sqlstate, constraint_name, table_name,
                column_name, detail, hint, traceback, fields, seconds)
     WHERE i.batch_id = $1 AND i.item_number = u.item_number
       AND i.status = 'pending' AND i.attempts = u.attempts AND i.reprocessed_by IS NULL
    RETURNING i.item_number),
postponed AS (
    UPDATE reliable_imports.import_batch_items i
       SET attempts = i.attempts + 1, due_at = clock_timestamp() + make_interval(secs => u.seconds)
      FROM unnest($24::integer[], $25::integer[], $26::float8[]) AS u(item_number, attempts, seconds)
     WHERE i.batch_id = $1 AND i.item_number = u.item_number
       AND i.status = 'pending' AND i.attempts = u.attempts AND i.reprocessed_by IS NULL
    RETURNING i.item_number),
logged AS (
    INSERT INTO reliable_imports.import_logs (batch_id, item_number, level, message, details, logged_at)
    SELECT $1, l.item_number, l.level, l.message, l.details::jsonb, l.logged_at
      FROM unnest($27::integer[], $28::text[], $29::text[], $30::text[], $31::timestamptz[])
           WITH ORDINALITY AS l(item_number, level, message, details, logged_at, n)
     ORDER BY l.n)
SELECT (SELECT count(*) FROM settled) + (SELECT count(*) FROM failed) + (SELECT count(*) FROM postponed);

-- name: ask_items
-- The oracle for an interval in doubt: the row locks wait until the old backend's transaction is over.
SELECT item_number, status, attempts, error_group, reprocessed_by
  FROM reliable_imports.import_batch_items
 WHERE batch_id = $1 AND item_number = ANY ($2::integer[])
 ORDER BY item_number
   FOR UPDATE;
