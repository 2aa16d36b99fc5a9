-- Summaries, in O(ranges): nothing here counts items, except failed ones of a batch that was reprocessed.

-- name: summary
-- Batches with their counts: a finished one has its totals, the ranges of any other are added up.
SELECT b.id, b.batch_type, b.status, b.parent_batch_id, b.root_batch_id, b.reprocesses_all, b.total_items, b.pause_reason,
       b.error, b.source_name, b.created_by, b.created_at, b.started_at, b.finished_at, clock_timestamp() AS read_at,
       coalesce(b.completed_items, t.completed) AS completed, coalesce(b.skipped_items, t.skipped) AS skipped,
       coalesce(b.failed_items, t.failed) AS failed, t.deferred
  FROM reliable_imports.import_batches b
 CROSS JOIN LATERAL (
       SELECT coalesce(sum(r.completed), 0)::integer AS completed,
              coalesce(sum(r.skipped), 0)::integer AS skipped,
              coalesce(sum(r.failed), 0)::integer AS failed,
              coalesce(sum(cardinality(r.deferred)), 0)::integer AS deferred
         FROM reliable_imports.import_batch_ranges r
        WHERE r.batch_id = b.id AND b.completed_items IS NULL) t
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
-- The largest failure groups of some batches, $2 of each, with their counts from the ranges, each described by its first
-- item.
SELECT g.batch_id, g.error_group, g.items, f.error_kind, f.error_type, f.error_message, f.error_sqlstate,
       f.error_constraint, f.error_table, f.error_column, f.error_hint
  FROM (SELECT r.batch_id, e.key AS error_group, sum(e.value::integer)::integer AS items,
               row_number() OVER (PARTITION BY r.batch_id ORDER BY sum(e.value::integer) DESC, e.key) AS place
          FROM reliable_imports.import_batch_ranges r, jsonb_each_text(r.groups) e
         WHERE r.batch_id = ANY ($1::uuid[]) AND r.failed > 0
         GROUP BY r.batch_id, e.key) g
 CROSS JOIN LATERAL (
       SELECT i.error_kind, i.error_type, i.error_message, i.error_sqlstate, i.error_constraint, i.error_table,
              i.error_column, i.error_hint
         FROM reliable_imports.import_batch_items i
        WHERE i.batch_id = g.batch_id AND i.error_group = g.error_group
        ORDER BY i.item_number
        LIMIT 1) f
 WHERE g.place <= $2
 ORDER BY g.batch_id, g.items DESC, g.error_group;

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
-- other lineages, know the group; of those only that the rules in $3 (null: none) let the caller see. A record that could
-- not be read failed when its batch was created.
SELECT min(coalesce(i.finished_at, b.created_at)) AS first_seen,
       max(coalesce(i.finished_at, b.created_at)) AS last_seen,
       (SELECT count(*)::integer
          FROM (SELECT e.id
                  FROM reliable_imports.import_batches e
                  JOIN reliable_imports.import_batches o ON o.id = $1
                  JOIN reliable_imports.import_batches r ON r.id = e.root_batch_id
                 WHERE e.batch_type = o.batch_type AND e.id < o.root_batch_id AND coalesce(e.failed_items, 1) > 0
                   AND ($3::text IS NULL
                        OR reliable_imports.is_visible($3::text::jsonb, r.batch_type, r.created_by, r.metadata))
                 ORDER BY e.id DESC
                 LIMIT 1000) earlier
         WHERE EXISTS (SELECT FROM reliable_imports.import_batch_items k
                        WHERE k.batch_id = earlier.id AND k.error_group = $2)) AS seen_before
  FROM reliable_imports.import_batch_items i
  JOIN reliable_imports.import_batches b ON b.id = i.batch_id
 WHERE i.batch_id = $1 AND i.error_group = $2 AND i.status = 'failed';

-- name: repaired
-- How many records the batches of lineage $1 that came after batch $2 have completed. For the root, that is how many of its
-- failures are repaired, where each of those batches takes only failed items.
SELECT coalesce(sum(coalesce(b.completed_items + b.skipped_items, t.good)), 0)::integer AS repaired,
       bool_or(b.reprocesses_all) AS reprocesses_all
  FROM reliable_imports.import_batches b
 CROSS JOIN LATERAL (
       SELECT sum(r.completed + r.skipped) AS good
         FROM reliable_imports.import_batch_ranges r
        WHERE r.batch_id = b.id AND b.completed_items IS NULL) t
 WHERE b.root_batch_id = $1 AND b.id > $2;

-- name: outstanding
-- For any other batch, where later ones have completed any: its failed items that no later batch of the lineage has completed.
SELECT count(*)::integer
  FROM reliable_imports.import_batch_items f
 WHERE f.batch_id = $1 AND f.error_group IS NOT NULL AND f.status = 'failed'
   AND NOT EXISTS (
       SELECT FROM reliable_imports.import_batches b
         JOIN reliable_imports.import_batch_items d ON d.batch_id = b.id
        WHERE b.root_batch_id = $2 AND b.id > $1
          AND d.status IN ('completed', 'skipped')
          AND d.root_item_number = coalesce(f.root_item_number, f.item_number));

-- name: outstanding_in_lineage
-- The same for every batch of lineage $1 but the root at once: by batch, its failed items whose record was not completed
-- by a later one. Batches without any are left out. OFFSET 0: without it the planner may well read the whole table.
WITH done AS MATERIALIZED (
    SELECT DISTINCT ON (d.root_item_number) d.root_item_number, d.batch_id
      FROM reliable_imports.import_batches b
      JOIN reliable_imports.import_batch_ranges r ON r.batch_id = b.id
     CROSS JOIN LATERAL (
           SELECT i.root_item_number, i.batch_id
             FROM reliable_imports.import_batch_items i
            WHERE i.batch_id = b.id AND i.item_number BETWEEN r.first_item AND r.last_item
              AND i.status IN ('completed', 'skipped')
           OFFSET 0) d
     WHERE b.root_batch_id = $1 AND b.id <> $1 AND (r.completed + r.skipped > 0 OR r.state = 'leased')
     ORDER BY d.root_item_number, d.batch_id DESC)
SELECT f.batch_id, count(*)::integer AS items
  FROM reliable_imports.import_batches b
 CROSS JOIN LATERAL (
       SELECT i.batch_id, coalesce(i.root_item_number, i.item_number) AS root_number
         FROM reliable_imports.import_batch_items i
        WHERE i.batch_id = b.id AND i.error_group IS NOT NULL AND i.status = 'failed'
       OFFSET 0) f
  LEFT JOIN done ON done.root_item_number = f.root_number
 WHERE b.root_batch_id = $1 AND b.id <> $1 AND (done.batch_id IS NULL OR done.batch_id <= f.batch_id)
 GROUP BY f.batch_id;
