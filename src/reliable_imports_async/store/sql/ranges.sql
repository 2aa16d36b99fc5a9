-- Ranges: who works on which items.

-- name: insert_ranges
-- Cuts a new batch into ranges; $4 counts the unreadable records in them.
INSERT INTO reliable_imports.import_batch_ranges (batch_id, first_item, last_item, failed, groups)
SELECT $1, s.first_item, s.last_item, coalesce(n.failed, 0), coalesce(n.groups, '{}')
  FROM (SELECT k AS first_item, least(k + $3 - 1, $2) AS last_item FROM generate_series(1, $2, $3) AS k) s
  LEFT JOIN LATERAL (
       SELECT f.failed, f.groups FROM reliable_imports.count_failures($1, s.first_item, s.last_item) f WHERE $4) n ON true;

-- name: claim_range
-- Leases one range: a range that is ready, one whose lease has expired, or one that this worker has claimed in a statement
-- that was not answered. An expired lease counts as a crash of its holder. After a start of the server no lease expires
-- before its holder had time to renew it.
-- $4: the ranges that this worker knows it holds. $5: the maximum of items to claim; $6: the same for a range in which a
-- worker has crashed (0: do not claim such a range); $7: the same for a range whose holder has just crashed. The items beyond
-- the maximum become a new range. The counts of a range that was taken over or split must be taken from its items.
-- $9: what the keys of items are, null if items have no order; see the function blocked_items. $8: the ranges in which this
-- worker keeps the order itself, except against a range with a crash, because that one runs separately. A range that was
-- tried before may have only a few pending items, anywhere in it, so with an order it is claimed as a whole. $10: the ranges
-- to choose from; null: all.
WITH candidates AS MATERIALIZED (
    SELECT r.batch_id, r.first_item, r.last_item, r.state = 'leased' AS taken_over, r.deferred, r.final_pass, r.epoch,
           r.crashes + (r.state = 'leased' AND r.worker_id <> $2)::integer AS crashes, w.wanted
      FROM reliable_imports.import_batch_ranges r
     CROSS JOIN LATERAL (
           SELECT CASE WHEN r.state = 'leased' AND r.worker_id <> $2 THEN $7::integer
                       WHEN r.crashes > 0 THEN $6::integer
                       WHEN r.epoch > 0 AND $9::text IS NOT NULL AND $5::integer > 0 THEN r.last_item - r.first_item + 1
                       ELSE $5::integer END AS wanted) w
     WHERE r.batch_id = $1 AND w.wanted > 0
       AND (r.state = 'ready'
            OR (r.state = 'leased'
                AND (r.worker_id = $2
                     OR greatest(r.lease_until, pg_postmaster_start_time() + make_interval(secs => $3)) < clock_timestamp())))
       AND r.first_item <> ALL ($4::integer[])
       AND ($10::integer[] IS NULL OR r.first_item = ANY ($10::integer[]))
       AND (r.not_before IS NULL OR r.not_before <= clock_timestamp())
       AND EXISTS (SELECT FROM reliable_imports.import_batches b WHERE b.id = $1 AND b.status = 'processing')
     ORDER BY r.first_item
     LIMIT CASE WHEN $9::text IS NULL THEN 1 ELSE 3 END
       FOR UPDATE OF r SKIP LOCKED),
claimable AS MATERIALIZED (
    SELECT c.*, o.blocked
      FROM candidates c
     CROSS JOIN LATERAL (
           SELECT CASE WHEN $9::text IS NULL THEN '{}'::integer[]
                       ELSE reliable_imports.blocked_items(
                                c.batch_id, c.first_item, least(c.last_item, c.first_item + c.wanted - 1),
                                CASE WHEN c.crashes > 0 THEN '{}' ELSE $8::integer[] END, $9::text::jsonb)
                  END AS blocked
           OFFSET 0) o
     WHERE o.blocked IS NOT NULL
     LIMIT 1),  -- in order; otherwise the function would be called for all of them
rest AS (
    INSERT INTO reliable_imports.import_batch_ranges
           (batch_id, first_item, last_item, epoch, crashes, completed, skipped, failed, groups, deferred, final_pass)
    SELECT c.batch_id, c.first_item + c.wanted, c.last_item, c.epoch, c.crashes, n.completed, n.skipped, n.failed, n.groups,
           ARRAY(SELECT d FROM unnest(c.deferred) AS d WHERE d >= c.first_item + c.wanted), c.final_pass
      FROM claimable c
     CROSS JOIN LATERAL reliable_imports.count_items($1, c.first_item + c.wanted, c.last_item) n
     WHERE c.last_item >= c.first_item + c.wanted
    RETURNING first_item)
UPDATE reliable_imports.import_batch_ranges k
   SET state = 'leased', epoch = k.epoch + 1, worker_id = $2, not_before = NULL, crashes = c.crashes,
       last_item = least(k.last_item, k.first_item + c.wanted - 1),
       deferred = ARRAY(SELECT d FROM unnest(c.deferred) AS d WHERE d < c.first_item + c.wanted),
       lease_until = clock_timestamp() + make_interval(secs => $3)
  FROM claimable c
 WHERE k.batch_id = c.batch_id AND k.first_item = c.first_item
RETURNING k.first_item, k.last_item, k.epoch, k.crashes, c.taken_over OR EXISTS (SELECT FROM rest) AS recount,
          k.completed, k.skipped, k.failed, k.groups::text AS groups, k.deferred, k.final_pass, c.blocked;

-- name: runnable_ranges
-- Up to three ready ranges with items that do not wait for others, found behind ranges whose pending items all wait. This is
-- a cheap guess: the claim decides. $2 and $3 are $8 and $9 of the claim.
WITH unfinished AS (
    SELECT r.first_item, r.last_item, r.deferred, r.first_item = ANY ($2::integer[]) AS exempt,
           r.state = 'ready' AND (r.not_before IS NULL OR r.not_before <= clock_timestamp()) AS ready,
           sum(r.last_item - r.first_item + 1) OVER ranges AS items,
           sum(r.last_item - r.first_item + 1 - r.completed - r.skipped - r.failed) OVER ranges AS pending
      FROM reliable_imports.import_batch_ranges r
     WHERE r.batch_id = $1 AND r.state IN ('ready', 'leased')
    WINDOW ranges AS (ORDER BY r.first_item)),
pending AS MATERIALIZED (
    SELECT u.first_item, u.exempt, u.ready, i.*
      FROM unfinished u
     CROSS JOIN LATERAL (
           SELECT p.item_number, p.item_key, p.lock_key, p.source_data,
                  coalesce(p.due_at > clock_timestamp(), false) AS undue
             FROM reliable_imports.import_batch_items p
            WHERE p.batch_id = $1 AND p.item_number BETWEEN u.first_item AND u.last_item
              AND p.status = 'pending' AND p.reprocessed_by IS NULL AND p.item_number <> ALL (u.deferred)
           OFFSET 0) i
     WHERE u.items <= 50000 AND u.pending <= 5000),
keyed AS (
    SELECT p.item_number, p.first_item,
           min(p.item_number) FILTER (WHERE NOT p.exempt) OVER (PARTITION BY k.key) AS elsewhere,
           min(p.item_number) FILTER (WHERE p.undue) OVER (PARTITION BY k.key) AS undue
      FROM pending p
     CROSS JOIN LATERAL reliable_imports.order_keys(p.item_key, p.lock_key, p.source_data, $3::text::jsonb) AS k(key)),
behind AS MATERIALIZED (
    SELECT DISTINCT w.item_number FROM keyed w WHERE w.elsewhere < w.first_item OR w.undue < w.item_number)
SELECT DISTINCT p.first_item
  FROM pending p
 WHERE p.ready AND NOT p.undue AND p.item_number NOT IN (SELECT b.item_number FROM behind b)
 ORDER BY p.first_item
 LIMIT 3;

-- name: count_range
-- The settled items of a range, counted from its items.
SELECT n.completed, n.skipped, n.failed, n.groups::text AS groups FROM reliable_imports.count_items($1, $2, $3) n;

-- name: renew_leases
-- The heartbeat: renews leases, stores running counts, and returns each batch's status, the leases that still hold, and how
-- many processes hold some.
WITH renewed AS (
    UPDATE reliable_imports.import_batch_ranges r
       SET lease_until = clock_timestamp() + make_interval(secs => $8),
           completed = u.completed, skipped = u.skipped, failed = u.failed, groups = u.groups::jsonb,
           deferred = u.deferred::integer[]
      FROM unnest($1::uuid[], $2::integer[], $3::integer[], $4::integer[], $5::integer[], $6::integer[], $7::text[],
                  $10::text[])
           AS u(batch_id, first_item, epoch, completed, skipped, failed, groups, deferred)
     WHERE r.batch_id = u.batch_id AND r.first_item = u.first_item AND r.epoch = u.epoch AND r.state = 'leased'
    RETURNING r.batch_id, r.first_item)
SELECT b.id, b.status, ARRAY(SELECT n.first_item FROM renewed n WHERE n.batch_id = b.id) AS renewed,
       (SELECT count(DISTINCT r.worker_id)::integer FROM reliable_imports.import_batch_ranges r
         WHERE r.batch_id = b.id AND r.state = 'leased' AND r.lease_until > clock_timestamp()) AS workers
  FROM reliable_imports.import_batches b
 WHERE b.id = ANY ($9::uuid[]);

-- name: release_range
-- Completes a range, or returns it with its pending items; its counts are taken from its items. Fenced by the epoch.
-- $5: the items that were deferred in this pass. If no other item is pending, the range waits for the next pass.
-- $6: the items that wait for an earlier item of this range, whose retry is not due yet.
UPDATE reliable_imports.import_batch_ranges r
   SET state = CASE WHEN n.pending = 0 THEN 'done'
                    WHEN n.pending = cardinality(p.deferred) THEN 'deferred'
                    ELSE 'ready' END,
       deferred = p.deferred,
       not_before = CASE WHEN p.due_at > clock_timestamp() THEN p.due_at END,
       worker_id = NULL, lease_until = NULL,
       completed = n.completed, skipped = n.skipped, failed = n.failed, groups = n.groups
  FROM reliable_imports.count_items($1, $2, $3) n
 CROSS JOIN LATERAL (
       SELECT coalesce(array_agg(i.item_number) FILTER (WHERE i.item_number = ANY ($5::integer[])), '{}') AS deferred,
              min(coalesce(i.due_at, '-infinity'))
                  FILTER (WHERE i.item_number <> ALL ($5::integer[]) AND i.item_number <> ALL ($6::integer[])) AS due_at
         FROM reliable_imports.import_batch_items i
        WHERE n.pending > 0 AND i.batch_id = $1 AND i.item_number BETWEEN $2 AND $3 AND i.status = 'pending') p
 WHERE r.batch_id = $1 AND r.first_item = $2 AND r.epoch = $4 AND r.state = 'leased'
RETURNING r.state;

-- name: outlook
-- The number of unfinished, deferred and leased ranges, the seconds until the first of them can be claimed, and the number of
-- the pass.
SELECT count(*) AS unfinished, count(*) FILTER (WHERE r.state = 'deferred') AS deferred,
       count(*) FILTER (WHERE r.state = 'leased') AS leased,
       (SELECT b.pass_number FROM reliable_imports.import_batches b WHERE b.id = $1) AS pass_number,
       min(extract(epoch FROM CASE r.state
               WHEN 'leased' THEN greatest(r.lease_until, pg_postmaster_start_time() + make_interval(secs => $2))
               ELSE r.not_before END - clock_timestamp()))::float8 AS seconds
  FROM reliable_imports.import_batch_ranges r
 WHERE r.batch_id = $1 AND r.state <> 'done';

-- name: unfinished
-- Whether a range of the batch is not done. Runs with the batch's row locked, after the last range has committed.
SELECT EXISTS (SELECT FROM reliable_imports.import_batch_ranges r WHERE r.batch_id = $1 AND r.state <> 'done');

-- name: delete_ranges
-- The ranges of some batches.
DELETE FROM reliable_imports.import_batch_ranges WHERE batch_id = ANY ($1::uuid[]);

-- name: writable
-- Whether this server accepts writes: it is not a standby, and not read-only by default.
SELECT NOT pg_is_in_recovery() AND current_setting('default_transaction_read_only') = 'off';

-- name: reopen_deferred
-- Begins the next pass: if no range of the batch is ready or leased, deferred ranges become ready. $2 is the current pass as
-- the caller knows it. Only this statement makes deferred ranges ready, and it counts the passes. If two callers run it, the
-- second one finds another number under the batch's row lock, and changes nothing. The pass after one in which no item was
-- settled is the final one.
WITH ranges AS (
    SELECT coalesce(sum(r.completed + r.skipped + r.failed), 0)::integer AS settled,
           coalesce(sum(cardinality(r.deferred)), 0)::integer AS deferred
      FROM reliable_imports.import_batch_ranges r
     WHERE r.batch_id = $1
    HAVING bool_and(r.state IN ('deferred', 'done')) AND bool_or(r.state = 'deferred')),
turned AS (
    UPDATE reliable_imports.import_batches b
       SET pass_number = b.pass_number + 1, final_pass = n.settled <= b.pass_settled, pass_settled = n.settled
      FROM ranges n
     WHERE b.id = $1 AND b.pass_number = $2 AND b.status = 'processing'
    RETURNING b.pass_number, b.final_pass, n.deferred),
reopened AS (
    UPDATE reliable_imports.import_batch_ranges r
       SET state = 'ready', deferred = '{}', final_pass = t.final_pass
      FROM turned t
     WHERE r.batch_id = $1 AND r.state = 'deferred')
SELECT t.pass_number, t.deferred, t.final_pass FROM turned t;
