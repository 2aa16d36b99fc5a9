-- Reprocessing. The statements run in a transaction that has locked the row of the root batch.

-- name: lock_root
-- Lets one reprocessing of a lineage run at a time. Returns no row if the lineage is being purged.
SELECT id FROM reliable_imports.import_batches WHERE id = $1 AND purging_at IS NULL FOR UPDATE;

-- name: root_numbers
-- The numbers in the root batch of some items.
SELECT item_number, coalesce(root_item_number, item_number) AS root_number
  FROM reliable_imports.import_batch_items
 WHERE batch_id = $1 AND item_number = ANY ($2::integer[]);

-- name: eligible
-- A page of the items that may run again. $2 is a failure group, $3 are numbers in the root batch, and $4 includes unreadable
-- records.
SELECT e.batch_id, e.item_number, e.root_number, e.source_data::text AS source_data, e.raw
  FROM reliable_imports.import_eligible_items e
 WHERE e.root_batch_id = $1 AND ($4 OR e.source_data IS NOT NULL)
   AND ($2::text IS NULL OR e.error_group = $2)
   AND ($3::integer[] IS NULL OR e.root_number = ANY ($3))
   AND e.root_number > $5
 ORDER BY e.root_number
 LIMIT $6;

-- name: sample_eligible
-- The numbers of $5 of these items, scattered over all, so that no pattern in the source decides which are chosen.
SELECT e.root_number
  FROM reliable_imports.import_eligible_items e
 WHERE e.root_batch_id = $1 AND ($4 OR e.source_data IS NOT NULL)
   AND ($2::text IS NULL OR e.error_group = $2)
   AND ($3::integer[] IS NULL OR e.root_number = ANY ($3))
 ORDER BY hashint4extended(e.root_number, 0)
 LIMIT $5;

-- name: count_unreadable
-- The number of unreadable records in a lineage that have not been corrected.
SELECT count(*)
  FROM reliable_imports.import_eligible_items e
 WHERE e.root_batch_id = $1 AND e.error_group IS NOT NULL AND e.source_data IS NULL;

-- part: write_taken
-- Notes batch $2 as the last try of the records of lineage $1 that `taken` has, and writes them into it, with numbers that
-- continue after $3. An item is written only where the record's last try is still the one that was taken; the caller
-- compares the two counts.
last AS (
    INSERT INTO reliable_imports.import_last_tries AS t (root_batch_id, root_item_number, batch_id, replaces)
    SELECT $1, k.root_number, $2, k.batch_id
      FROM taken k
        ON CONFLICT (root_batch_id, root_item_number)
        DO UPDATE SET batch_id = excluded.batch_id, replaces = excluded.replaces
     WHERE t.batch_id = excluded.replaces
    RETURNING t.root_item_number),
written AS (
    INSERT INTO reliable_imports.import_batch_items
           (batch_id, item_number, source_data, source_line, item_key, root_item_number)
    SELECT $2, $3 + row_number() OVER (ORDER BY k.n), k.source_data, k.source_line, k.item_key, k.root_number
      FROM taken k
      JOIN last l ON l.root_item_number = k.root_number
    RETURNING item_number)
SELECT (SELECT count(*) FROM taken) AS taken, (SELECT count(*) FROM written) AS written

-- name: take_over
-- Marks the items that may run again and writes them into the new batch, in one statement. $4 is a failure group, $5 are
-- numbers in the root batch.
WITH taken AS (
    UPDATE reliable_imports.import_batch_items i
       SET reprocessed_by = $2
      FROM reliable_imports.import_eligible_items e
     WHERE e.root_batch_id = $1 AND e.source_data IS NOT NULL
       AND ($4::text IS NULL OR e.error_group = $4)
       AND ($5::integer[] IS NULL OR e.root_number = ANY ($5))
       AND i.batch_id = e.batch_id AND i.item_number = e.item_number
       AND i.status IN ('failed', 'pending') AND i.reprocessed_by IS NULL
    RETURNING i.batch_id, e.root_number AS n, e.root_number, i.source_data, i.source_line, i.item_key),
-- use: write_taken

-- name: take_over_edited
-- The same for a page of items with changed records, in this order. $6 are texts: records (if $7 is "replace"), objects with
-- the record under `record` ("record"), or objects with only the changed values ("merge"). The keys are computed again later.
WITH taken AS (
    UPDATE reliable_imports.import_batch_items i
       SET reprocessed_by = $2
      FROM unnest($4::uuid[], $5::integer[], $6::text[]) WITH ORDINALITY AS e(batch_id, item_number, text, n)
     WHERE i.batch_id = e.batch_id AND i.item_number = e.item_number
       AND i.status IN ('failed', 'pending') AND i.reprocessed_by IS NULL
    RETURNING i.batch_id, e.n, coalesce(i.root_item_number, i.item_number) AS root_number,
              CASE $7::text WHEN 'merge' THEN coalesce(i.source_data, '{}') || e.text::jsonb
                            WHEN 'record' THEN e.text::jsonb -> 'record'
                            ELSE e.text::jsonb END AS source_data,
              i.source_line, NULL AS item_key),
-- use: write_taken

-- name: take_all
-- Every item of batch $4 again, whatever its outcome. Tries of the same records, anywhere in the lineage, that have failed or
-- are pending in a cancelled batch count as taken over, so that no record can be eligible twice. No other try of them may
-- be open; see open_tries.
WITH taken AS (
    SELECT i.item_number AS n, coalesce(i.root_item_number, i.item_number) AS root_number,
           coalesce(t.batch_id, $1) AS batch_id, i.source_data, i.source_line, i.item_key
      FROM reliable_imports.import_batch_items i
      LEFT JOIN reliable_imports.import_last_tries t
        ON t.root_batch_id = $1 AND t.root_item_number = coalesce(i.root_item_number, i.item_number)
     WHERE i.batch_id = $4 AND i.source_data IS NOT NULL),
failed AS (
    UPDATE reliable_imports.import_batch_items f
       SET reprocessed_by = $2
      FROM reliable_imports.import_batches b, taken k
     WHERE b.root_batch_id = $1 AND f.batch_id = b.id AND f.error_group IS NOT NULL AND f.status = 'failed'
       AND f.reprocessed_by IS NULL AND coalesce(f.root_item_number, f.item_number) = k.root_number),
pending AS (
    UPDATE reliable_imports.import_batch_items p
       SET reprocessed_by = $2
      FROM reliable_imports.import_batches b, taken k
     WHERE b.root_batch_id = $1 AND b.status = 'cancelled' AND p.batch_id = b.id AND p.status = 'pending'
       AND p.reprocessed_by IS NULL AND coalesce(p.root_item_number, p.item_number) = k.root_number),
-- use: write_taken

-- name: find_lineage_items
-- The numbers in the root batch $1 of items given by batch and number. No row for an item outside of the lineage.
SELECT u.n::integer AS n, coalesce(i.root_item_number, i.item_number) AS root_number
  FROM unnest($2::uuid[], $3::integer[]) WITH ORDINALITY AS u(batch_id, item_number, n)
  JOIN reliable_imports.import_batches b ON b.id = u.batch_id AND b.root_batch_id = $1
  JOIN reliable_imports.import_batch_items i ON i.batch_id = u.batch_id AND i.item_number = u.item_number;

-- name: open_tries
-- The batches of lineage $2 in which records of batch $1 are still pending, newest first, with the number of these records.
SELECT b.id, b.reprocesses_all AND b.parent_batch_id IS NOT DISTINCT FROM $1 AS same, count(*)::integer AS items
  FROM reliable_imports.import_batches b
  JOIN reliable_imports.import_batch_items i ON i.batch_id = b.id
 WHERE b.root_batch_id = $2 AND b.finished_at IS NULL AND i.status = 'pending' AND i.reprocessed_by IS NULL
   AND coalesce(i.root_item_number, i.item_number) IN (
       SELECT coalesce(k.root_item_number, k.item_number)
         FROM reliable_imports.import_batch_items k
        WHERE k.batch_id = $1 AND k.source_data IS NOT NULL)
 GROUP BY b.id
 ORDER BY b.id DESC;

-- name: unfinished_child
-- The newest reprocessing of a lineage that is not finished.
SELECT id
  FROM reliable_imports.import_batches
 WHERE root_batch_id = $1 AND id <> $1 AND finished_at IS NULL
 ORDER BY id DESC
 LIMIT 1;

-- name: newest_child
-- The newest reprocessing of a lineage.
SELECT id FROM reliable_imports.import_batches WHERE root_batch_id = $1 AND id <> $1 ORDER BY id DESC LIMIT 1;

-- name: share_root
-- Keeps reprocessings and purges of the lineage of batch $1 waiting until the transaction ends. Returns no row if the lineage
-- is being purged.
SELECT r.id
  FROM reliable_imports.import_batches b
  JOIN reliable_imports.import_batches r ON r.id = b.root_batch_id
 WHERE b.id = $1 AND r.purging_at IS NULL
   FOR SHARE OF r;

-- name: wait_at_most
-- Limits how long statements of this transaction wait for a lock.
SELECT set_config('lock_timeout', $1, true);

-- name: begin_purge
-- Runs under the root's lock: from now on no batch joins the lineage. Returns its batches, or no row if one of them is not
-- finished or finished after $2.
UPDATE reliable_imports.import_batches b
   SET purging_at = coalesce(b.purging_at, clock_timestamp())
 WHERE b.root_batch_id = $1
   AND NOT EXISTS (SELECT FROM reliable_imports.import_batches k
                    WHERE k.root_batch_id = $1
                      AND (k.finished_at IS NULL OR ($2::timestamptz IS NOT NULL AND k.finished_at >= $2)))
RETURNING b.id;

-- name: delete_last_tries
-- The last tries of some lineages.
DELETE FROM reliable_imports.import_last_tries WHERE root_batch_id = ANY ($1::uuid[]);

-- name: decide_canary
-- Records in which batch $2 the rest of a canary runs; null: it does not run. Returns no row if that was recorded before.
UPDATE reliable_imports.import_batches
   SET options = jsonb_set(options, '{canary}', (options -> 'canary')
                 || jsonb_build_object('continues', false, 'rest', $2::uuid))
 WHERE id = $1 AND options #>> '{canary,continues}' = 'true'
RETURNING id;

-- name: note_no_rest
-- Records that there was no rest to run after a canary.
UPDATE reliable_imports.import_batches
   SET options = jsonb_set(options, '{canary,rest}', 'null')
 WHERE id = $1;

-- name: list_undecided_canaries
-- Finished canaries for workers whose rest is not decided yet.
SELECT id
  FROM reliable_imports.import_batches
 WHERE options #>> '{canary,continues}' = 'true' AND enqueued_at IS NOT NULL AND finished_at IS NOT NULL
   AND batch_type = ANY ($1)
 ORDER BY id
 LIMIT $2;

-- name: is_enqueued
-- Whether a batch is for workers.
SELECT enqueued_at IS NOT NULL FROM reliable_imports.import_batches WHERE id = $1;
