-- Previews for the dashboard. Nothing here counts items: ranges show where items of a status are, and a statement that needs
-- rows of items reads a limited sample.

-- name: throughput
-- Settled items per minute over the last $1 minutes, oldest first, of batches that the caller may see by the rules in $2
-- (null: no rules). The items of a batch are spread evenly over its running time. A finished batch has totals; the ranges of
-- any other batch are added up.
WITH ran AS (
    SELECT b.id, b.started_at, coalesce(b.finished_at, now()) AS ended_at, b.failed_items,
           b.completed_items + b.skipped_items + b.failed_items AS settled_items
      FROM reliable_imports.import_batches b
     WHERE b.started_at IS NOT NULL
       AND (b.finished_at > now() - make_interval(mins => $1) OR (b.finished_at IS NULL AND b.status = 'processing'))
       AND ($2::text IS NULL OR EXISTS (
            SELECT FROM reliable_imports.import_batches o
             WHERE o.id = b.root_batch_id
               AND reliable_imports.is_visible($2::text::jsonb, o.batch_type, o.created_by, o.metadata)))
     ORDER BY b.id DESC
     LIMIT 2000),
rate AS (
    SELECT ran.started_at, ran.ended_at, coalesce(ran.settled_items, t.settled) AS settled,
           coalesce(ran.failed_items, t.failed) AS failed,
           greatest(extract(epoch FROM ran.ended_at - ran.started_at), 0.001) AS seconds
      FROM ran
     CROSS JOIN LATERAL (
           SELECT coalesce(sum(r.completed + r.skipped + r.failed), 0) AS settled, coalesce(sum(r.failed), 0) AS failed
             FROM reliable_imports.import_batch_ranges r
            WHERE r.batch_id = ran.id AND ran.settled_items IS NULL) t
     WHERE coalesce(ran.settled_items, t.settled) > 0),
minute AS (
    SELECT n, now() - make_interval(mins => $1 - n) AS first, now() - make_interval(mins => $1 - n - 1) AS last
      FROM generate_series(0, $1 - 1) AS n)
SELECT m.first AS at,
       coalesce(sum(rate.settled * o.share), 0)::float8 AS settled,
       coalesce(sum(rate.failed * o.share), 0)::float8 AS failed
  FROM minute m
  LEFT JOIN rate ON rate.started_at < m.last AND rate.ended_at > m.first
  LEFT JOIN LATERAL (
       SELECT least(1, greatest(extract(epoch FROM least(rate.ended_at, m.last) - greatest(rate.started_at, m.first)),
                                0.001) / rate.seconds) AS share) o ON true
 GROUP BY m.n, m.first
 ORDER BY m.n;

-- name: timeline
-- When the items with some numbers were settled, and whether they failed. Each is looked up by itself: without statistics,
-- PostgreSQL 15 would read the whole batch.
SELECT i.finished_at, i.status = 'failed' AS failed
  FROM unnest($2::integer[]) AS n(number)
 CROSS JOIN LATERAL (
       SELECT finished_at, status
         FROM reliable_imports.import_batch_items
        WHERE batch_id = $1 AND item_number = n.number
       OFFSET 0) i
 WHERE i.finished_at IS NOT NULL;

-- part: preview
-- The columns of a shortened item `i`.
       i.item_number, i.status, i.attempts, i.source_line, i.item_key, i.reprocessed_by, i.finished_at, i.error_group,
       CASE WHEN pg_column_size(i.source_data) <= 8000 THEN left(i.source_data::text, 4000) END AS record,
       pg_column_size(i.source_data) AS record_size, left(encode(substring(i.raw FROM 1 FOR 200), 'escape'), 400) AS raw,
       i.error_type, left(coalesce(i.error_message, i.skip_reason), 400) AS message, i.error_column,
       left(i.error_detail, 400) AS error_detail,
       CASE WHEN pg_column_size(i.error_fields) <= 4000 THEN i.error_fields::text END AS error_fields

-- name: previews
-- A page of shortened items after the number $2.
SELECT
-- use: preview
  FROM reliable_imports.import_batch_items i
 WHERE i.batch_id = $1 AND i.item_number > $2
 ORDER BY i.item_number
 LIMIT $3;

-- name: previews_by_status
-- The same for one status; only ranges that can have such items are read.
SELECT i.*
  FROM reliable_imports.ranges_with_status($1, $4, $2) r
 CROSS JOIN LATERAL (
       SELECT
-- use: preview
         FROM reliable_imports.import_batch_items i
        WHERE i.batch_id = $1 AND i.item_number BETWEEN greatest(r.first_item, $2 + 1) AND r.last_item
          AND i.status = $4::text
        ORDER BY i.item_number
        LIMIT $3) i
 ORDER BY r.first_item, i.item_number
 LIMIT $3;

-- name: previews_by_group
-- The same for one failure group, through the index of the groups.
SELECT
-- use: preview
  FROM reliable_imports.import_batch_items i
 WHERE i.batch_id = $1 AND i.item_number > $2 AND i.error_group = $4
 ORDER BY i.item_number
 LIMIT $3;

-- name: failure_group_preview
-- The invalid values among the first $3 failed items of a group, most frequent first: named by PostgreSQL, or the input of
-- the first field that a model refused.
SELECT v.value, count(*)::integer AS items, min(v.item_number) AS first_item
  FROM (SELECT i.item_number,
               coalesce(i.named[1] || '=' || i.named[2], (i.field ->> 'loc') || '=' || (i.field ->> 'input')) AS value
          FROM (SELECT item_number, regexp_match(left(error_detail, 2000), '\((.*?)\)=\((.*?)\)') AS named,
                       error_fields -> 0 AS field
                  FROM reliable_imports.import_batch_items
                 WHERE batch_id = $1 AND error_group = $2
                 ORDER BY item_number
                 LIMIT $3) i) v
 WHERE v.value IS NOT NULL
 GROUP BY v.value
 ORDER BY items DESC, v.value
 LIMIT $4;

-- name: group_first_items
-- The first items of a group.
SELECT item_number
  FROM reliable_imports.import_batch_items
 WHERE batch_id = $1 AND error_group = $2
 ORDER BY item_number
 LIMIT $3;

-- name: source
-- The file of a batch, and when the batch was enqueued for workers.
SELECT source_format, source_size, source_sha256, enqueued_at
  FROM reliable_imports.import_batches
 WHERE id = $1;

-- name: latest_logs
-- A page of log lines, newest first; $2 is the last id of the previous page.
SELECT log_id, item_number, level, left(message, 4000) AS message, left(details::text, 4000) AS details, logged_at
  FROM reliable_imports.import_logs
 WHERE batch_id = $1 AND ($2::bigint IS NULL OR log_id < $2)
 ORDER BY log_id DESC
 LIMIT $3;
