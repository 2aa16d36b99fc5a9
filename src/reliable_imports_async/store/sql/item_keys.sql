-- Item keys: which items of a batch repeat one, and with what content each was last completed. The content of an item is
-- its record as jsonb writes it, so neither the order of names nor white space counts, behind the processor's version.

-- name: unkeyed_page
-- The next pending items of a reprocessing, whose records or processor may have changed since they got their keys.
SELECT item_number, source_data::text AS source_data, item_key, lock_key
  FROM reliable_imports.import_batch_items
 WHERE batch_id = $1 AND item_number > $2 AND status = 'pending'
 ORDER BY item_number
 LIMIT $3;

-- name: rekey
-- Gives items other keys, or fails those whose records have none that can be used. $2 their numbers, $3 by number what is
-- stored about each.
WITH given AS MATERIALIZED (SELECT $3::text::jsonb AS keys)
UPDATE reliable_imports.import_batch_items i
   SET (item_key, lock_key, status, error_kind, error_type, error_message, error_hint, error_group, finished_at)
     = (SELECT k.v ->> 'key', k.v ->> 'lock', CASE WHEN k.v ? 'group' THEN 'failed' ELSE i.status END, k.v ->> 'kind', k.v ->> 'type',
               k.v ->> 'message', k.v ->> 'hint', k.v ->> 'group', CASE WHEN k.v ? 'group' THEN clock_timestamp() END
          FROM (SELECT (SELECT g.keys FROM given g) -> i.item_number::text AS v OFFSET 0) k)
 WHERE i.batch_id = $1 AND i.item_number = ANY ($2::integer[]) AND i.status = 'pending';

-- name: mark_repeated
-- Notes which items of batch $2 repeat the key of an earlier record of their lineage $1, as it is by now, and settles them
-- where $3 says skip or fail. A window, and no join of items with items: right after COPY nobody knows how many there are.
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
-- Counts a batch's ranges from its items, before anybody works on them.
UPDATE reliable_imports.import_batch_ranges r
   SET completed = n.completed, skipped = n.skipped, failed = n.failed, groups = n.groups
  FROM (SELECT k.first_item, c.completed, c.skipped, c.failed, g.groups
          FROM reliable_imports.import_batch_ranges k
         CROSS JOIN LATERAL (
               SELECT count(*) FILTER (WHERE i.status = 'completed') AS completed,
                      count(*) FILTER (WHERE i.status = 'skipped') AS skipped,
                      count(*) FILTER (WHERE i.status = 'failed') AS failed
                 FROM reliable_imports.import_batch_items i
                WHERE i.batch_id = $1 AND i.item_number BETWEEN k.first_item AND k.last_item) c
         CROSS JOIN LATERAL (
               SELECT coalesce(jsonb_object_agg(f.error_group, f.items), '{}') AS groups
                 FROM (SELECT i.error_group, count(*) AS items
                         FROM reliable_imports.import_batch_items i
                        WHERE i.batch_id = $1 AND i.error_group IS NOT NULL
                          AND i.item_number BETWEEN k.first_item AND k.last_item
                        GROUP BY i.error_group) f) g
         WHERE k.batch_id = $1) n
 WHERE r.batch_id = $1 AND r.first_item = n.first_item;

-- name: skip_unchanged
-- Settles the items of a range whose keys were last completed with the very content they have, all in one statement with
-- the usual fence. Keys are looked up one by one, whatever the statistics say: their table may be large.
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
-- The same, but only says which they are: for a dry run.
SELECT i.item_number
  FROM reliable_imports.import_batch_items i
 WHERE i.batch_id = $1 AND i.item_number BETWEEN $2 AND $3 AND i.status = 'pending' AND i.reprocessed_by IS NULL
   AND i.item_key IS NOT NULL AND i.first_of_key IS NULL AND (i.due_at IS NULL OR i.due_at <= clock_timestamp())
   AND sha256(convert_to($5 || E'\x1f' || i.source_data::text, 'UTF8'))
       = (SELECT k.content_sha256
            FROM reliable_imports.import_item_keys k
           WHERE k.batch_type = $4 AND k.item_key = i.item_key);

-- name: settle_keyed
-- The last statement of the transaction of an item that completed and has a key: the same fence as everywhere, and the
-- content is remembered. One row, or the fence did not hold.
WITH settled AS (
    UPDATE reliable_imports.import_batch_items
       SET status = 'completed', attempts = attempts + 1, target_table = $4, target_id = $5,
           processed_data = $6::text::jsonb, started_at = now(), finished_at = clock_timestamp()
     WHERE batch_id = $1 AND item_number = $2 AND status = 'pending' AND attempts = $3 AND reprocessed_by IS NULL
    RETURNING batch_id, item_number, item_key, source_data)
INSERT INTO reliable_imports.import_item_keys (batch_type, item_key, content_sha256, batch_id, item_number)
SELECT $7, s.item_key, sha256(convert_to($8 || E'\x1f' || s.source_data::text, 'UTF8')), s.batch_id, s.item_number
  FROM settled s
    ON CONFLICT (batch_type, item_key) DO UPDATE
   SET content_sha256 = excluded.content_sha256, batch_id = excluded.batch_id, item_number = excluded.item_number;

-- name: settle_keyed_with_logs
-- The same for an item that wrote log lines.
WITH settled AS (
    UPDATE reliable_imports.import_batch_items
       SET status = 'completed', attempts = attempts + 1, target_table = $4, target_id = $5,
           processed_data = $6::text::jsonb, started_at = now(), finished_at = clock_timestamp()
     WHERE batch_id = $1 AND item_number = $2 AND status = 'pending' AND attempts = $3 AND reprocessed_by IS NULL
    RETURNING batch_id, item_number, item_key, source_data),
remembered AS (
    INSERT INTO reliable_imports.import_item_keys (batch_type, item_key, content_sha256, batch_id, item_number)
    SELECT $7, s.item_key, sha256(convert_to($8 || E'\x1f' || s.source_data::text, 'UTF8')), s.batch_id, s.item_number
      FROM settled s
    ON CONFLICT (batch_type, item_key) DO UPDATE
       SET content_sha256 = excluded.content_sha256, batch_id = excluded.batch_id, item_number = excluded.item_number),
logged AS (
    INSERT INTO reliable_imports.import_logs (batch_id, item_number, level, message, details, logged_at)
    SELECT s.batch_id, s.item_number, l.v ->> 0, l.v ->> 1, (l.v ->> 2)::jsonb, (l.v ->> 3)::timestamptz
      FROM settled s, json_array_elements($9::text::json) WITH ORDINALITY AS l(v, n)
     ORDER BY l.n)
SELECT count(*) FROM settled;

-- name: settle_keyed_outcomes
-- The same for an interval: $2, $3 the items that completed and of which nothing more is to be said, $4, $5 the others,
-- and by number what is stored about each, $6 log lines. $9: the numbers of those whose contents are remembered;
-- of items with one key only the last.
WITH plain AS (
    UPDATE reliable_imports.import_batch_items
       SET status = 'completed', attempts = attempts + 1, started_at = now(), finished_at = clock_timestamp()
     WHERE batch_id = $1 AND item_number = ANY ($2::text::integer[])
       AND status = 'pending' AND attempts = $3 AND reprocessed_by IS NULL
    RETURNING item_number, item_key, source_data),
given AS MATERIALIZED (SELECT $5::text::jsonb AS outcomes),
others AS (
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
     WHERE i.batch_id = $1 AND i.item_number = ANY ($4::text::integer[]) AND i.status = 'pending'
       AND i.attempts = ((SELECT g.outcomes FROM given g) -> i.item_number::text ->> 'attempts')::integer
       AND i.reprocessed_by IS NULL
    RETURNING i.item_number, i.item_key, i.source_data),
remembered AS (
    INSERT INTO reliable_imports.import_item_keys (batch_type, item_key, content_sha256, batch_id, item_number)
    SELECT $7, s.item_key, sha256(convert_to($8 || E'\x1f' || s.source_data::text, 'UTF8')), $1, s.item_number
      FROM (SELECT * FROM plain UNION ALL SELECT * FROM others) s
     WHERE s.item_key IS NOT NULL AND s.item_number = ANY ($9::text::integer[])
     ORDER BY s.item_key
    ON CONFLICT (batch_type, item_key) DO UPDATE
       SET content_sha256 = excluded.content_sha256, batch_id = excluded.batch_id, item_number = excluded.item_number),
logged AS (
    INSERT INTO reliable_imports.import_logs (batch_id, item_number, level, message, details, logged_at)
    SELECT $1, (l.v ->> 0)::integer, l.v ->> 1, l.v ->> 2, (l.v ->> 3)::jsonb, (l.v ->> 4)::timestamptz
      FROM json_array_elements($6::text::json) WITH ORDINALITY AS l(v, n)
     ORDER BY l.n)
SELECT (SELECT count(*) FROM plain) + (SELECT count(*) FROM others);

-- name: skip_reasons
-- Why items of a batch were skipped, most frequent first; numbers and ids in a reason do not tell two of them apart. Only
-- ranges that have skipped items are read, and the first $3 of those.
WITH skipped AS (
    SELECT i.skip_reason
      FROM (SELECT r.first_item, r.last_item
              FROM reliable_imports.import_batch_ranges r
             WHERE r.batch_id = $1 AND r.skipped > 0
             ORDER BY r.first_item
             LIMIT $3) w
     CROSS JOIN LATERAL (
           SELECT i.skip_reason
             FROM reliable_imports.import_batch_items i
            WHERE i.batch_id = $1 AND i.item_number BETWEEN w.first_item AND w.last_item AND i.status = 'skipped'
            OFFSET 0) i),  -- or the planner may read the whole table
counted AS (SELECT s.skip_reason, count(*) AS items FROM skipped s GROUP BY s.skip_reason)
SELECT regexp_replace(regexp_replace(coalesce(c.skip_reason, ''),
                                     '[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}', '…', 'g'),
                      '[0-9]+', '…', 'g') AS reason,
       sum(c.items)::integer AS items
  FROM counted c
 GROUP BY 1
 ORDER BY items DESC, reason
 LIMIT $2;
