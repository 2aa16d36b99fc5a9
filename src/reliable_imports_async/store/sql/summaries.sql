-- Summaries in O(ranges). Nothing here counts items, except failed items when causes or totals are asked for.

-- name: summary
-- Batches with their counts, and the outstanding records of their lineages: records that failed or were left pending by a
-- cancelled batch, and that no later batch has completed. A finished batch has totals; the ranges of any other batch are
-- added up. Each item of a reprocessing stands for one such record, so counts are enough, unless a batch ran every item
-- again (see `recount`).
WITH members AS (
    SELECT m.id, m.root_batch_id, m.status, m.total_items, m.finished_at, m.reprocesses_all,
           coalesce(m.completed_items, t.completed) AS completed, coalesce(m.skipped_items, t.skipped) AS skipped,
           coalesce(m.failed_items, t.failed) AS failed, t.deferred
      FROM reliable_imports.import_batches m
     CROSS JOIN LATERAL (
           SELECT coalesce(sum(r.completed), 0)::integer AS completed,
                  coalesce(sum(r.skipped), 0)::integer AS skipped,
                  coalesce(sum(r.failed), 0)::integer AS failed,
                  coalesce(sum(cardinality(r.deferred)), 0)::integer AS deferred
             FROM reliable_imports.import_range_counts r
            WHERE r.batch_id = m.id AND m.completed_items IS NULL) t
     WHERE m.root_batch_id IN (SELECT a.root_batch_id FROM reliable_imports.import_batches a WHERE a.id = ANY ($1::uuid[]))),
lineages AS (
    SELECT n.root_batch_id, bool_or(n.reprocesses_all) AS reprocesses_all,
           greatest(0, sum(n.failed
               + CASE WHEN n.status = 'cancelled' OR n.id <> n.root_batch_id AND n.finished_at IS NULL
                      THEN n.total_items - n.completed - n.skipped - n.failed ELSE 0 END
               - CASE WHEN n.id <> n.root_batch_id THEN n.total_items ELSE 0 END))::integer AS outstanding
      FROM members n
     GROUP BY n.root_batch_id)
SELECT b.id AS batch_id, b.batch_type, b.status, b.parent_batch_id, b.root_batch_id, b.total_items, b.pause_reason,
       b.error, b.source_name, b.source_encoding, b.notes, b.created_by, b.created_at, b.started_at, b.finished_at,
       clock_timestamp() AS read_at, n.completed AS completed_items, n.skipped AS skipped_items, n.failed AS failed_items,
       n.deferred AS deferred_items, l.outstanding AS outstanding_items, l.reprocesses_all
  FROM reliable_imports.import_batches b
  JOIN members n ON n.id = b.id
  JOIN lineages l ON l.root_batch_id = b.root_batch_id
 WHERE b.id = ANY ($1::uuid[])
 ORDER BY b.id;

-- name: recount
-- The outstanding records of a lineage in which a batch ran every item again: tries that failed or were left pending by a
-- cancelled batch and that no reprocessing has taken over, and pending tries of unfinished reprocessings of failed items.
-- Ranges show where pending items are.
SELECT (SELECT count(*)
          FROM reliable_imports.import_batches b
          JOIN reliable_imports.import_batch_items i ON i.batch_id = b.id
         WHERE b.root_batch_id = $1 AND i.error_group IS NOT NULL AND i.status = 'failed' AND i.reprocessed_by IS NULL)
       + (SELECT count(*)
            FROM reliable_imports.import_batches b
            JOIN reliable_imports.import_batch_ranges r ON r.batch_id = b.id
            JOIN reliable_imports.import_batch_items i
              ON i.batch_id = b.id AND i.item_number BETWEEN r.first_item AND r.last_item
           WHERE b.root_batch_id = $1 AND i.status = 'pending' AND i.reprocessed_by IS NULL
             AND (b.status = 'cancelled' OR b.id <> $1 AND b.finished_at IS NULL AND NOT b.reprocesses_all)
             AND (r.state = 'leased' OR r.completed + r.skipped + r.failed < r.last_item - r.first_item + 1));

-- name: totals
-- How many items of a batch failed, and how many have an outcome.
SELECT coalesce(sum(r.failed), 0)::integer AS failed,
       coalesce(sum(r.completed + r.skipped + r.failed), 0)::integer AS settled
  FROM reliable_imports.import_batch_ranges r
 WHERE r.batch_id = $1;

-- name: sums
-- The sums of some fields over all records of a batch, the number of records that have each field, and the number of values
-- that are not numbers. Blank values and nulls add nothing.
SELECT coalesce(sum(CASE WHEN v.is_number THEN (i.source_data ->> k.name)::numeric END), 0)::text AS total,
       count(*) FILTER (WHERE i.source_data ? k.name)::integer AS present,
       count(*) FILTER (WHERE NOT v.is_number)::integer AS odd,
       left(min(i.source_data ->> k.name) FILTER (WHERE NOT v.is_number), 100) AS example
  FROM unnest($2::text[]) WITH ORDINALITY AS k(name, n)
  LEFT JOIN reliable_imports.import_batch_items i ON i.batch_id = $1
 CROSS JOIN LATERAL (
       SELECT CASE WHEN btrim(i.source_data ->> k.name, E' \t\r\n') <> ''
                   THEN i.source_data ->> k.name ~ '^\s*[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d{1,3})?\s*$'
              END AS is_number) v
 GROUP BY k.n
 ORDER BY k.n;

-- name: groups
-- The largest failure groups of some batches, $2 for each batch, with counts from the ranges and the error of the group's
-- first item.
SELECT g.batch_id, g.error_group, g.items, f.error_kind, f.error_type, f.error_message, f.error_sqlstate,
       f.error_constraint, f.error_table, f.error_column, f.error_hint
  FROM (SELECT r.batch_id, e.key AS error_group, sum(e.value::integer)::integer AS items,
               row_number() OVER (PARTITION BY r.batch_id ORDER BY sum(e.value::integer) DESC, e.key) AS place
          FROM reliable_imports.import_range_counts r, jsonb_each_text(r.groups) e
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
-- The invalid values in a group, most frequent first: named by PostgreSQL, as in Key (dest)=(SJU) is not present …, or the
-- input of the first field that a model refused. With $4 only of items that no reprocessing has taken over.
SELECT v.value, count(*)::integer AS items
  FROM reliable_imports.import_batch_items i,
       LATERAL (SELECT coalesce(substring(i.error_detail FROM '\((.*?)\)=\(') || '='
                                || substring(i.error_detail FROM '\)=\((.*?)\)'),
                                (i.error_fields -> 0 ->> 'loc') || '=' || (i.error_fields -> 0 ->> 'input')) AS value) v
 WHERE i.batch_id = $1 AND i.error_group = $2 AND i.status = 'failed' AND v.value IS NOT NULL
   AND (NOT $4 OR i.reprocessed_by IS NULL)
 GROUP BY v.value
 ORDER BY items DESC, v.value
 LIMIT $3;

-- name: group_samples
-- The first items of a group; with $4 only items that no reprocessing has taken over.
SELECT item_number
  FROM reliable_imports.import_batch_items
 WHERE batch_id = $1 AND error_group = $2 AND status = 'failed' AND (NOT $4 OR reprocessed_by IS NULL)
 ORDER BY item_number
 LIMIT $3;

-- name: group_history
-- When the items of a group failed, and in how many of the latest earlier batches with failures the group occurs: batches of
-- the same type in other lineages that the caller may see by the rules in $3 (null: no rules). An unreadable record failed
-- when its batch was created.
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

-- name: outstanding_groups
-- The failures of a lineage that no reprocessing has taken over, by batch and group, with the error of the group's first
-- item; the oldest batch first, in it the largest group.
SELECT g.batch_id, g.error_group, g.items, f.error_kind, f.error_type, f.error_message, f.error_sqlstate,
       f.error_constraint, f.error_table, f.error_column, f.error_hint
  FROM (SELECT i.batch_id, i.error_group, count(*)::integer AS items, min(i.item_number) AS first_item
          FROM reliable_imports.import_batches b
          JOIN reliable_imports.import_batch_items i ON i.batch_id = b.id
         WHERE b.root_batch_id = $1 AND i.error_group IS NOT NULL AND i.status = 'failed' AND i.reprocessed_by IS NULL
         GROUP BY i.batch_id, i.error_group) g
  JOIN reliable_imports.import_batch_items f ON f.batch_id = g.batch_id AND f.item_number = g.first_item
 ORDER BY g.batch_id, g.items DESC, g.error_group
 LIMIT $2;

-- name: skip_reasons
-- The reasons why items of a batch were skipped, most frequent first. Reasons that differ only in numbers and ids count as
-- one. Only the first $3 ranges with skipped items are read.
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
