-- Items of one key take effect in the order of their numbers, whoever runs them. Within a process a gate sees to that; what
-- this adds is for several: whoever claims a range learns which of its items have to wait for earlier ones elsewhere.

-- What a processor's lock_key says about a record. No index: it is only read beside the items of a few ranges.
ALTER TABLE reliable_imports.import_batch_items ADD COLUMN lock_key text;

-- A key, the same for all spellings that a model or a column may take for one: "07", "7.0" and " 7", "A" and "a". So case,
-- blanks, punctuation, and zeros before and behind a number do not count. Different keys may look equal here; then one waits
-- for nothing. A key of several parts is a JSON array of texts. Most keys need no regular expression, which would take long.
CREATE FUNCTION reliable_imports.order_key(value text)
RETURNS text
LANGUAGE sql STABLE PARALLEL SAFE
RETURN ltrim(lower(
    CASE WHEN octet_length(value) <> char_length(value) OR strpos(value, '.') > 0 OR strpos(value, '"') > 0
         THEN regexp_replace(
                  regexp_replace(
                      regexp_replace(value, '\.([0-9]*?)0*[^[:alnum:]"]*("|$)', '\1\2', 'g'),
                      '(^|")[^[:alnum:]"]*0+', '\1', 'g'),
                  '[^[:alnum:]]', '', 'g')
         ELSE translate(value, E' !#$%&''()*+,-/:;<=>?@[\\]^_`{|}~\t\n\r\f\v', '')
    END), '0');

-- The keys of an item. Each of `kinds` is "item_key", "lock_key", an array of the record's fields that are one key together,
-- or "everything", for what only the processor can tell: then all items have the same key.
CREATE FUNCTION reliable_imports.order_keys(item_key text, lock_key text, record jsonb, kinds jsonb)
RETURNS SETOF text
LANGUAGE sql STABLE PARALLEL SAFE
AS $$
    SELECT k.n || ':' || c.key
      FROM jsonb_array_elements(kinds) WITH ORDINALITY AS k(kind, n)
     CROSS JOIN LATERAL (
           SELECT CASE k.kind #>> '{}'
                       WHEN 'item_key' THEN reliable_imports.order_key(item_key)
                       WHEN 'lock_key' THEN reliable_imports.order_key(lock_key)
                       WHEN 'everything' THEN ''
                       ELSE (SELECT string_agg(coalesce(reliable_imports.order_key(record ->> f.name), ''), chr(31)
                                               ORDER BY f.n)
                               FROM jsonb_array_elements_text(k.kind) WITH ORDINALITY AS f(name, n))
                  END AS key) c
     WHERE c.key IS NOT NULL
$$;

-- Which items of a range up to number `last` must wait: an earlier item of their key is pending in a range before it, or is
-- to be tried again later. The claimer sees to the ranges in `exempt` itself. A deferred item has given up its place. Null
-- when no item of the range could run now, so that nobody claims it for nothing. What is settled stays so, so the answer
-- holds for as long as the range is held: whoever waits needlessly by then runs when the range is claimed again.
CREATE FUNCTION reliable_imports.blocked_items(batch uuid, first integer, last integer, exempt integer[], kinds jsonb)
RETURNS integer[]
LANGUAGE plpgsql STABLE
AS $$
DECLARE
    blocked  integer[];
    runnable boolean;
BEGIN
    IF NOT EXISTS (
            SELECT FROM reliable_imports.import_batch_ranges r
             WHERE r.batch_id = batch
               AND ((r.first_item = first AND r.epoch > 0)
                    OR (r.first_item < first AND r.state IN ('ready', 'leased') AND r.first_item <> ALL (exempt)))) THEN
        RETURN '{}';
    END IF;
    WITH pending AS MATERIALIZED (
        SELECT i.*, r.first_item = first AS own
          FROM reliable_imports.import_batch_ranges r
         CROSS JOIN LATERAL (
               SELECT p.item_number, p.item_key, p.lock_key, p.source_data,
                      coalesce(p.due_at > clock_timestamp(), false) AS undue
                 FROM reliable_imports.import_batch_items p
                WHERE p.batch_id = batch AND p.item_number BETWEEN r.first_item AND least(r.last_item, last)
                  AND p.status = 'pending' AND p.reprocessed_by IS NULL AND p.item_number <> ALL (r.deferred)
               OFFSET 0) i
         WHERE r.batch_id = batch
           AND (r.first_item = first
                OR (r.first_item < first AND r.state IN ('ready', 'leased') AND r.first_item <> ALL (exempt)))),
    keyed AS (  -- a window, and no join of items with items: right after COPY nobody knows how many there are
        SELECT p.item_number, p.own,
               min(p.item_number) FILTER (WHERE p.undue OR NOT p.own) OVER (PARTITION BY k.key) AS blocker
          FROM pending p
         CROSS JOIN LATERAL reliable_imports.order_keys(p.item_key, p.lock_key, p.source_data, kinds) AS k(key)),
    behind AS MATERIALIZED (
        SELECT DISTINCT w.item_number FROM keyed w WHERE w.own AND w.blocker < w.item_number)
    SELECT ARRAY(SELECT b.item_number FROM behind b),
           coalesce(bool_or(NOT p.undue AND NOT EXISTS (SELECT FROM behind b WHERE b.item_number = p.item_number)), true)
      INTO blocked, runnable
      FROM pending p
     WHERE p.own;
    RETURN CASE WHEN runnable THEN blocked END;
END
$$;
