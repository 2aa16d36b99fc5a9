-- Generates the data of benchmarks/big_data.py, in this order.

-- name: plan
-- Where the plan is copied to.
CREATE TEMP TABLE made (
    id uuid PRIMARY KEY, batch_type text, status text, parent uuid, root uuid, total integer, failing integer,
    settled integer, range_size integer, source_name text, created_at timestamptz, started_at timestamptz,
    finished_at timestamptz, metadata text, name text);

-- name: batches
-- The batches; their totals come later.
INSERT INTO reliable_imports.import_batches
       (id, batch_type, status, parent_batch_id, root_batch_id, created_by, source_name, source_format, source_size,
        source_sha256, source_columns, metadata, total_items, pause_reason, created_at, enqueued_at, started_at,
        finished_at, notified_at, announced_at, completed_items, skipped_items, failed_items)
SELECT id, batch_type, status, parent, root, (ARRAY['ann', 'ben', 'cron'])[1 + total % 3],
       CASE WHEN parent IS NULL THEN source_name END, 'csv', total * 180::bigint, encode(sha256(id::text::bytea), 'hex'),
       '{carrier,flight,origin,dest,day,note}', metadata::jsonb, total,
       CASE WHEN status = 'paused' THEN 'lunch' END, created_at, NULL, started_at, finished_at, finished_at, finished_at,
       t.zero, t.zero, t.zero
  FROM made
 CROSS JOIN LATERAL (SELECT CASE WHEN finished_at IS NOT NULL AND status <> 'cancelled' THEN 0 END AS zero) t;

-- name: items
-- One of nine causes, the same for an item wherever it is asked; the rarest status has its items at the very end.
INSERT INTO reliable_imports.import_batch_items
       (batch_id, item_number, status, attempts, source_data, source_line, root_item_number, target_table, target_id,
        skip_reason, error_kind, error_type, error_message, error_sqlstate, error_constraint, error_table, error_column,
        error_detail, error_traceback, error_group, started_at, finished_at)
SELECT m.id, n, s.status, CASE WHEN s.status = 'pending' THEN 0 ELSE 1 END,
       jsonb_build_object('carrier', (ARRAY['UA', 'AA', 'B6', 'DL'])[1 + n % 4], 'flight', n % 8000,
                          'origin', (ARRAY['EWR', 'JFK', 'LGA'])[1 + n % 3], 'dest', 'D' || n % 300,
                          'day', '2013-01-' || lpad((1 + n % 31)::text, 2, '0'), 'note', 'record ' || n || ' of this file'),
       n + 1, CASE WHEN m.parent IS NOT NULL THEN n END,
       CASE WHEN s.status = 'completed' THEN 'flights' END, CASE WHEN s.status = 'completed' THEN n::text END,
       CASE WHEN s.status = 'skipped' THEN 'already there' END,
       CASE WHEN s.failed THEN CASE WHEN s.cause < 5 THEN 'data' ELSE 'exception' END END,
       CASE WHEN s.failed THEN CASE WHEN s.cause < 5 THEN 'ForeignKeyViolation' ELSE 'ValueError' END END,
       CASE WHEN s.failed THEN CASE WHEN s.cause < 5
            THEN 'insert or update on table "flights" violates foreign key constraint "flights_' || s.cause || '_fkey"'
            ELSE 'the schedule of carrier ' || s.cause || ' has no such flight' END END,
       CASE WHEN s.failed AND s.cause < 5 THEN '23503' END,
       CASE WHEN s.failed AND s.cause < 5 THEN 'flights_' || s.cause || '_fkey' END,
       CASE WHEN s.failed AND s.cause < 5 THEN 'flights' END, NULL,
       CASE WHEN s.failed AND s.cause < 5
            THEN 'Key (dest)=(D' || n % 37 || ') is not present in table "airports".' END,
       CASE WHEN s.failed AND s.cause >= 5 THEN repeat('  File "processors.py", line 12, in process_item' || chr(10), 8) END,
       CASE WHEN s.failed THEN 'group-' || s.cause END, f.at - interval '2 milliseconds', f.at
  FROM made m
 CROSS JOIN generate_series(1, m.total) AS n
 CROSS JOIN LATERAL (SELECT abs(hashint4(n)) % 1000 AS draw, abs(hashint4(n + 7)) % 9 AS cause) d
 CROSS JOIN LATERAL (
       SELECT CASE WHEN n > m.settled THEN 'pending' WHEN d.draw < m.failing THEN 'failed'
                   WHEN n > m.total * 0.9995 AND n % 3 = 0 THEN 'skipped' ELSE 'completed' END AS status,
              n <= m.settled AND d.draw < m.failing AS failed, d.cause) s
 CROSS JOIN LATERAL (
       SELECT CASE WHEN s.status <> 'pending' THEN
              m.started_at + (coalesce(m.finished_at, now()) - m.started_at) * (n::float8 / greatest(m.settled, 1)) END
              AS at) f
 ORDER BY m.id, n;

-- name: ranges
-- Ranges that count what their items say.
INSERT INTO reliable_imports.import_batch_ranges
       (batch_id, first_item, last_item, state, completed, skipped, failed, groups)
SELECT batch_id, first_item, last_item, CASE WHEN settled = last_item - first_item + 1 THEN 'done' ELSE 'ready' END,
       completed, skipped, failed, coalesce(groups, '{}')
  FROM (SELECT i.batch_id, (i.item_number - 1) / m.range_size * m.range_size + 1 AS first_item,
               max(i.item_number) AS last_item,
               count(*) FILTER (WHERE i.status <> 'pending') AS settled,
               count(*) FILTER (WHERE i.status = 'completed') AS completed,
               count(*) FILTER (WHERE i.status = 'skipped') AS skipped,
               count(*) FILTER (WHERE i.status = 'failed') AS failed
          FROM reliable_imports.import_batch_items i
          JOIN made m ON m.id = i.batch_id
         GROUP BY 1, 2) counted
  LEFT JOIN (SELECT batch_id, first_item, jsonb_object_agg(error_group, items) AS groups
               FROM (SELECT i.batch_id, (i.item_number - 1) / m.range_size * m.range_size + 1 AS first_item, i.error_group,
                            count(*) AS items
                       FROM reliable_imports.import_batch_items i
                       JOIN made m ON m.id = i.batch_id
                      WHERE i.error_group IS NOT NULL
                      GROUP BY 1, 2, 3) g
              GROUP BY 1, 2) grouped USING (batch_id, first_item);

-- name: totals
-- The totals of finished batches.
UPDATE reliable_imports.import_batches b
   SET completed_items = r.completed, skipped_items = r.skipped, failed_items = r.failed
  FROM (SELECT batch_id, sum(completed) AS completed, sum(skipped) AS skipped, sum(failed) AS failed
          FROM reliable_imports.import_batch_ranges GROUP BY batch_id) r
 WHERE r.batch_id = b.id AND b.completed_items IS NOT NULL;

-- name: taken
-- The first failures of each repaired batch are those that its reprocessings run.
WITH failed AS (
    SELECT i.batch_id, i.item_number, row_number() OVER (PARTITION BY i.batch_id ORDER BY i.item_number) AS n
      FROM reliable_imports.import_batch_items i
     WHERE i.error_group IS NOT NULL AND i.batch_id IN (SELECT root FROM made WHERE parent IS NOT NULL))
UPDATE reliable_imports.import_batch_items i
   SET reprocessed_by = m.id
  FROM failed f
  JOIN (SELECT DISTINCT ON (root) root, id, total FROM made WHERE parent IS NOT NULL ORDER BY root, id) m
    ON m.root = f.batch_id
 WHERE i.batch_id = f.batch_id AND i.item_number = f.item_number AND f.n <= m.total;

-- name: leases
-- Eight ranges of each running batch are leased.
UPDATE reliable_imports.import_batch_ranges r
   SET state = 'leased', worker_id = gen_random_uuid(), lease_until = now() + interval '1 day', epoch = 1
  FROM made m
 WHERE m.id = r.batch_id AND m.status = 'processing' AND r.first_item > m.settled
   AND r.first_item <= m.settled + 8 * m.range_size;

-- name: logs
-- A log line for each failed item and every tenth of the others.
INSERT INTO reliable_imports.import_logs (batch_id, item_number, level, message, details, logged_at)
SELECT i.batch_id, i.item_number, CASE WHEN i.error_group IS NULL THEN 'info' ELSE 'error' END,
       'looked at record ' || i.item_number, '{"carrier": "UA"}', i.finished_at
  FROM reliable_imports.import_batch_items i
 WHERE i.finished_at IS NOT NULL AND (i.item_number % 10 = 0 OR i.error_group IS NOT NULL)
 ORDER BY i.batch_id, i.item_number;
