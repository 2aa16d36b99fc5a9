-- Summaries, in O(ranges): nothing here counts items, except failed ones of a batch that was reprocessed.

-- name: summary
-- Batches with their counts.
SELECT b.id, b.batch_type, b.status, b.parent_batch_id, b.root_batch_id, b.reprocesses_all, b.total_items, b.pause_reason,
       b.error, b.source_name, b.created_by, b.created_at, b.started_at, b.finished_at, clock_timestamp() AS read_at,
       t.completed, t.skipped, t.failed, t.deferred
  FROM reliable_imports.import_batches b
 CROSS JOIN LATERAL (
       SELECT coalesce(sum(r.completed), 0)::integer AS completed,
              coalesce(sum(r.skipped), 0)::integer AS skipped,
              coalesce(sum(r.failed), 0)::integer AS failed,
              coalesce(sum(cardinality(r.deferred)), 0)::integer AS deferred
         FROM reliable_imports.import_batch_ranges r
        WHERE r.batch_id = b.id) t
 WHERE b.id = ANY ($1::uuid[])
 ORDER BY b.id;

-- name: totals
-- How many items of a batch failed, and how many have an outcome.
SELECT coalesce(sum(r.failed), 0)::integer AS failed,
       coalesce(sum(r.completed + r.skipped + r.failed), 0)::integer AS settled
  FROM reliable_imports.import_batch_ranges r
 WHERE r.batch_id = $1;

-- name: sums
-- The sums of some fields over all records of a batch; what is no number adds nothing.
SELECT coalesce(sum(CASE WHEN i.source_data ->> k.name ~ '^\s*[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d{1,3})?\s*$'
                         THEN (i.source_data ->> k.name)::numeric END), 0)::text AS total
  FROM unnest($2::text[]) WITH ORDINALITY AS k(name, n)
  LEFT JOIN reliable_imports.import_batch_items i ON i.batch_id = $1
 GROUP BY k.n
 ORDER BY k.n;

-- name: groups
-- A batch's failure groups with their counts from the ranges, each described by its first item.
SELECT g.error_group, g.items, f.error_kind, f.error_type, f.error_message, f.error_sqlstate, f.error_constraint,
       f.error_table, f.error_column, f.error_hint
  FROM (SELECT e.key AS error_group, sum(e.value::integer)::integer AS items
          FROM reliable_imports.import_batch_ranges r, jsonb_each_text(r.groups) e
         WHERE r.batch_id = $1 AND r.failed > 0
         GROUP BY e.key) g
 CROSS JOIN LATERAL (
       SELECT i.error_kind, i.error_type, i.error_message, i.error_sqlstate, i.error_constraint, i.error_table,
              i.error_column, i.error_hint
         FROM reliable_imports.import_batch_items i
        WHERE i.batch_id = $1 AND i.error_group = g.error_group
        ORDER BY i.item_number
        LIMIT 1) f
 ORDER BY g.items DESC, g.error_group
 LIMIT $2;

-- name: group_values
-- The values that PostgreSQL named for one group, most frequent first: Key (dest)=(SJU) is not present …
SELECT v.value, count(*)::integer AS items
  FROM reliable_imports.import_batch_items i,
       LATERAL (SELECT substring(i.error_detail FROM '\((.*?)\)=\(') || '=' || substring(i.error_detail FROM '\)=\((.*?)\)')
                       AS value) v
 WHERE i.batch_id = $1 AND i.error_group = $2 AND i.status = 'failed' AND v.value IS NOT NULL
 GROUP BY v.value
 ORDER BY items DESC, v.value
 LIMIT $3;

-- name: group_samples
-- The first items of one group.
SELECT item_number
  FROM reliable_imports.import_batch_items
 WHERE batch_id = $1 AND error_group = $2 AND status = 'failed'
 ORDER BY item_number
 LIMIT $3;

-- name: group_history
-- When the items of one group failed, and how many of the latest earlier batches with failures, of the same type and of
-- other lineages, know the group. A record that could not be read failed when its batch was created.
SELECT min(coalesce(i.finished_at, b.created_at)) AS first_seen,
       max(coalesce(i.finished_at, b.created_at)) AS last_seen,
       (SELECT count(*)::integer
          FROM (SELECT e.id
                  FROM reliable_imports.import_batches e
                  JOIN reliable_imports.import_batches o ON o.id = $1
                 WHERE e.batch_type = o.batch_type AND e.id < o.root_batch_id AND coalesce(e.failed_items, 1) > 0
                 ORDER BY e.id DESC
                 LIMIT 1000) earlier
         WHERE EXISTS (SELECT FROM reliable_imports.import_batch_items k
                        WHERE k.batch_id = earlier.id AND k.error_group = $2)) AS seen_before
  FROM reliable_imports.import_batch_items i
  JOIN reliable_imports.import_batches b ON b.id = i.batch_id
 WHERE i.batch_id = $1 AND i.error_group = $2 AND i.status = 'failed';

-- name: repaired
-- For a root batch: how many of its records its descendants have completed. Valid where each takes only failed items.
SELECT coalesce(sum(r.completed + r.skipped), 0)::integer AS repaired,
       bool_or(b.reprocesses_all) AS reprocesses_all
  FROM reliable_imports.import_batches b
  JOIN reliable_imports.import_batch_ranges r ON r.batch_id = b.id
 WHERE b.root_batch_id = $1 AND b.id <> $1;

-- name: outstanding
-- For any other batch: its failed items that no later batch of the lineage has completed.
SELECT count(*)::integer
  FROM reliable_imports.import_batch_items f
 WHERE f.batch_id = $1 AND f.error_group IS NOT NULL AND f.status = 'failed'
   AND NOT EXISTS (
       SELECT FROM reliable_imports.import_batches b
         JOIN reliable_imports.import_batch_items d ON d.batch_id = b.id
        WHERE b.root_batch_id = $2 AND b.id > $1
          AND d.status IN ('completed', 'skipped')
          AND d.root_item_number = coalesce(f.root_item_number, f.item_number));
