-- Settling items: the last statement of their transaction, or a statement of its own after a rollback. The fence is the
-- same in each: an item is settled only while it is pending, by the try that read it, and unless a reprocessing has taken it
-- over. The sender of a statement about several items compares the count with their number, and rolls back if they differ.
--
-- Items are found by their numbers, without a join: with the statistics of a new table, or with none, a join may compare
-- each item with each. Arrays come as text, because the driver looks up array types on each new connection, and that takes
-- longer than settling a chunk. They are cast in a subquery, so that the planner does not see their length: it would plan
-- the statement again for each of them.

-- name: settle_completed
-- The hot case: all items completed in their same try. $4, $5: the table and, by item number, the keys of the rows that
-- items have reported; nothing else is stored about them.
UPDATE reliable_imports.import_batch_items
   SET status = 'completed', attempts = attempts + 1, started_at = now(), finished_at = clock_timestamp(),
       target_table = CASE WHEN (SELECT $5::text::jsonb) ? item_number::text THEN $4 END,
       target_id = (SELECT $5::text::jsonb) ->> item_number::text
 WHERE batch_id = $1 AND item_number = ANY ((SELECT $2::text::integer[])::integer[])
   AND status = 'pending' AND attempts = $3 AND reprocessed_by IS NULL;

-- name: settle_outcomes
-- All other cases: items with results, skipped or failed items, retries, log lines, contents of keys.
-- $2 to $5: the items that completed in their same try, as above. $6, $7: the rest, and by number what is stored about
-- each. $8: log lines. $9, $10: if contents are remembered, for which batch type and version; $11: completed items whose
-- contents are not, because a later item of the chunk has the same key.
WITH given AS MATERIALIZED (SELECT $5::text::jsonb AS ids, $7::text::jsonb AS outcomes),
plain AS (
    UPDATE reliable_imports.import_batch_items i
       SET status = 'completed', attempts = i.attempts + 1, started_at = now(), finished_at = clock_timestamp(),
           target_table = CASE WHEN (SELECT g.ids FROM given g) ? i.item_number::text THEN $4 END,
           target_id = (SELECT g.ids FROM given g) ->> i.item_number::text
     WHERE i.batch_id = $1 AND i.item_number = ANY ((SELECT $2::text::integer[])::integer[])
       AND i.status = 'pending' AND i.attempts = $3 AND i.reprocessed_by IS NULL
    RETURNING i.item_number, i.item_key, i.status, CASE WHEN $9::text IS NOT NULL THEN i.source_data END AS record),
rest AS (
    UPDATE reliable_imports.import_batch_items i
       SET (status, target_table, target_id, processed_data, skip_reason, error_kind, error_type, error_message,
            error_group, error_sqlstate, error_constraint, error_table, error_column, error_detail, error_hint,
            error_traceback, error_fields, due_at, started_at, finished_at)
         = (SELECT o.v ->> 'status', o.v ->> 'target_table', o.v ->> 'target_id', (o.v ->> 'processed_data')::jsonb,
                   o.v ->> 'skip_reason', o.v ->> 'kind', o.v ->> 'type', o.v ->> 'message', o.v ->> 'group',
                   o.v ->> 'sqlstate', o.v ->> 'constraint', o.v ->> 'table', o.v ->> 'column', o.v ->> 'detail',
                   o.v ->> 'hint', o.v ->> 'traceback', (o.v ->> 'fields')::jsonb,
                   clock_timestamp() + make_interval(secs => (o.v ->> 'after')::float8),
                   CASE WHEN o.v ->> 'after' IS NULL
                        THEN clock_timestamp() - make_interval(secs => (o.v ->> 'seconds')::float8) END,
                   CASE WHEN o.v ->> 'after' IS NULL THEN clock_timestamp() END
              FROM (SELECT (SELECT g.outcomes FROM given g) -> i.item_number::text AS v OFFSET 0) o),
           attempts = i.attempts + 1
     WHERE i.batch_id = $1 AND i.item_number = ANY ((SELECT $6::text::integer[])::integer[]) AND i.status = 'pending'
       AND i.attempts = ((SELECT g.outcomes FROM given g) -> i.item_number::text ->> 'attempts')::integer
       AND i.reprocessed_by IS NULL
    RETURNING i.item_number, i.item_key, i.status, CASE WHEN $9::text IS NOT NULL THEN i.source_data END AS record),
remembered AS (
    INSERT INTO reliable_imports.import_item_keys (batch_type, item_key, content_sha256, batch_id, item_number)
    SELECT $9, s.item_key, sha256(convert_to($10 || E'\x1f' || s.record::text, 'UTF8')), $1, s.item_number
      FROM (SELECT * FROM plain UNION ALL SELECT * FROM rest) s
     WHERE s.record IS NOT NULL AND s.item_key IS NOT NULL AND s.status = 'completed'
       AND s.item_number <> ALL ((SELECT $11::text::integer[])::integer[])
     ORDER BY s.item_key
    ON CONFLICT (batch_type, item_key) DO UPDATE
       SET content_sha256 = excluded.content_sha256, batch_id = excluded.batch_id, item_number = excluded.item_number),
logged AS (
    INSERT INTO reliable_imports.import_logs (batch_id, item_number, level, message, details, logged_at)
    SELECT $1, (l.v ->> 0)::integer, l.v ->> 1, l.v ->> 2, (l.v ->> 3)::jsonb, (l.v ->> 4)::timestamptz
      FROM json_array_elements($8::text::json) WITH ORDINALITY AS l(v, n)
     ORDER BY l.n)
SELECT (SELECT count(*) FROM plain) + (SELECT count(*) FROM rest);

-- name: settle_item
-- One item with any outcome. This and the next are also sent as text, in the same message as the COMMIT behind them.
SELECT reliable_imports.settle_item($1, $2, $3, convert_from(decode($4, 'hex'), 'UTF8')::jsonb);

-- name: settle_completed_item
-- One item that completed with nothing else to store.
CALL reliable_imports.settle_completed_item($1, $2, $3);

-- name: read_outcomes
-- The outcomes of items whose COMMIT was not answered. The row locks wait until the old backend's transaction has ended.
SELECT item_number, status, attempts, error_kind, error_type, error_message, error_group, reprocessed_by
  FROM reliable_imports.import_batch_items
 WHERE batch_id = $1 AND item_number = ANY ($2::text::integer[])
 ORDER BY item_number
   FOR UPDATE;
