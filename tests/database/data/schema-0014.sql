-- A database after migration 0014, made by make_dump.py. schema-0014.json says what is in it.

SELECT pg_catalog.set_config('search_path', '', false);
SET check_function_bodies = false;

CREATE SCHEMA reliable_imports;

CREATE TYPE public.pgqueuer_status AS ENUM (
    'queued',
    'picked',
    'successful',
    'exception',
    'canceled',
    'deleted',
    'failed'
);

CREATE FUNCTION public.fn_pgqueuer_changed() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
DECLARE
    to_emit BOOLEAN := false;  -- Flag to decide whether to emit a notification
BEGIN
    -- Check operation type and set the emit flag accordingly
    IF TG_OP = 'UPDATE' AND OLD IS DISTINCT FROM NEW THEN
        to_emit := true;
    ELSIF TG_OP = 'DELETE' THEN
        to_emit := true;
    ELSIF TG_OP = 'INSERT' THEN
        to_emit := true;
    ELSIF TG_OP = 'TRUNCATE' THEN
        to_emit := true;
    END IF;

    -- Perform notification if the emit flag is set
    IF to_emit THEN
        PERFORM pg_notify(
            'ch_pgqueuer',
            json_build_object(
                'channel', 'ch_pgqueuer',
                'operation', lower(TG_OP),
                'sent_at', NOW(),
                'table', TG_TABLE_NAME,
                'type', 'table_changed_event'
            )::text
        );
    END IF;

    -- Return appropriate value based on the operation
    IF TG_OP IN ('INSERT', 'UPDATE') THEN
        RETURN NEW;
    ELSIF TG_OP = 'DELETE' THEN
        RETURN OLD;
    ELSE
        RETURN NULL; -- For TRUNCATE and other non-row-specific contexts
    END IF;

END;
$$;

CREATE FUNCTION reliable_imports.blocked_items(batch uuid, first integer, last integer, exempt integer[], kinds jsonb) RETURNS integer[]
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

CREATE FUNCTION reliable_imports.is_visible(rules jsonb, batch_type text, created_by text, metadata jsonb) RETURNS boolean
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $_$
SELECT CASE jsonb_typeof(coalesce($1 -> 'types' -> $2, $1 -> 'otherwise'))
            WHEN 'boolean' THEN coalesce($1 -> 'types' -> $2, $1 -> 'otherwise') = 'true'::jsonb
            WHEN 'object' THEN
                 coalesce((NOT coalesce($1 -> 'types' -> $2, $1 -> 'otherwise') ? 'created_by'
                           OR $3 = coalesce($1 -> 'types' -> $2, $1 -> 'otherwise') ->> 'created_by')
                          AND (NOT coalesce($1 -> 'types' -> $2, $1 -> 'otherwise') ? 'metadata'
                               OR $4 @> (coalesce($1 -> 'types' -> $2, $1 -> 'otherwise') -> 'metadata')), false)
            ELSE false
       END
$_$;

CREATE FUNCTION reliable_imports.order_key(value text) RETURNS text
    LANGUAGE sql STABLE PARALLEL SAFE
    RETURN ltrim(lower(CASE WHEN ((octet_length(value) <> char_length(value)) OR (strpos(value, '.'::text) > 0) OR (strpos(value, '"'::text) > 0)) THEN regexp_replace(regexp_replace(regexp_replace(value, '\.([0-9]*?)0*[^[:alnum:]"]*("|$)'::text, '\1\2'::text, 'g'::text), '(^|")[^[:alnum:]"]*0+'::text, '\1'::text, 'g'::text), '[^[:alnum:]]'::text, ''::text, 'g'::text) ELSE translate(value, ' !#$%&''()*+,-/:;<=>?@[\]^_`{|}~	

'::text, ''::text) END), '0'::text);

CREATE FUNCTION reliable_imports.order_keys(item_key text, lock_key text, record jsonb, kinds jsonb) RETURNS SETOF text
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

CREATE FUNCTION reliable_imports.settle_item(batch uuid, number integer, tries integer, outcome jsonb) RETURNS void
    LANGUAGE plpgsql
    AS $$
BEGIN
    IF outcome IS NULL THEN  -- completed, and nothing more is to be said
        UPDATE reliable_imports.import_batch_items i
           SET status = 'completed', attempts = i.attempts + 1, started_at = now(), finished_at = clock_timestamp()
         WHERE i.batch_id = batch AND i.item_number = number
           AND i.status = 'pending' AND i.attempts = tries AND i.reprocessed_by IS NULL;
    ELSIF outcome ->> 'status' = 'failed' THEN
        UPDATE reliable_imports.import_batch_items i
           SET status = 'failed', attempts = i.attempts + 1,
               error_kind = outcome ->> 'kind', error_type = outcome ->> 'type', error_message = outcome ->> 'message',
               error_group = outcome ->> 'group', error_sqlstate = outcome ->> 'sqlstate',
               error_constraint = outcome ->> 'constraint', error_table = outcome ->> 'table',
               error_column = outcome ->> 'column', error_detail = outcome ->> 'detail', error_hint = outcome ->> 'hint',
               error_traceback = outcome ->> 'traceback', error_fields = (outcome ->> 'fields')::jsonb,
               started_at = clock_timestamp() - make_interval(secs => (outcome ->> 'seconds')::float8),
               finished_at = clock_timestamp()
         WHERE i.batch_id = batch AND i.item_number = number
           AND i.status = 'pending' AND i.attempts = tries AND i.reprocessed_by IS NULL;
    ELSE
        UPDATE reliable_imports.import_batch_items i
           SET status = outcome ->> 'status', attempts = i.attempts + 1,
               target_table = outcome ->> 'target_table', target_id = outcome ->> 'target_id',
               processed_data = (outcome ->> 'processed_data')::jsonb, skip_reason = outcome ->> 'skip_reason',
               started_at = now(), finished_at = clock_timestamp()
         WHERE i.batch_id = batch AND i.item_number = number
           AND i.status = 'pending' AND i.attempts = tries AND i.reprocessed_by IS NULL;
    END IF;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'item % of batch % is not pending in try %', number, batch, tries + 1 USING ERRCODE = 'RI001';
    END IF;
END
$$;

CREATE TABLE public.categories (
    name text NOT NULL,
    parent text
);

CREATE TABLE public.invoices (
    number integer NOT NULL,
    amount integer NOT NULL
);

CREATE TABLE public.orders (
    number integer NOT NULL,
    customer text NOT NULL,
    total numeric,
    CONSTRAINT orders_total_check CHECK ((total >= (0)::numeric))
);

CREATE TABLE public.pgqueuer (
    id bigint NOT NULL,
    priority integer NOT NULL,
    queue_manager_id uuid,
    created timestamp with time zone DEFAULT now() NOT NULL,
    updated timestamp with time zone DEFAULT now() NOT NULL,
    heartbeat timestamp with time zone DEFAULT now() NOT NULL,
    execute_after timestamp with time zone DEFAULT now() NOT NULL,
    status public.pgqueuer_status NOT NULL,
    entrypoint text NOT NULL,
    dedupe_key text,
    payload bytea,
    headers jsonb,
    attempts integer DEFAULT 0 NOT NULL,
    slot bigint
);

CREATE SEQUENCE public.pgqueuer_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;

ALTER SEQUENCE public.pgqueuer_id_seq OWNED BY public.pgqueuer.id;

CREATE TABLE public.pgqueuer_log (
    id bigint NOT NULL,
    created timestamp with time zone DEFAULT now() NOT NULL,
    job_id bigint NOT NULL,
    status public.pgqueuer_status NOT NULL,
    priority integer NOT NULL,
    entrypoint text NOT NULL,
    traceback jsonb,
    aggregated boolean DEFAULT false
);

ALTER TABLE public.pgqueuer_log ALTER COLUMN id ADD GENERATED BY DEFAULT AS IDENTITY (
    SEQUENCE NAME public.pgqueuer_log_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE public.pgqueuer_schedules (
    id bigint NOT NULL,
    expression text NOT NULL,
    entrypoint text NOT NULL,
    heartbeat timestamp with time zone DEFAULT now() NOT NULL,
    created timestamp with time zone DEFAULT now() NOT NULL,
    updated timestamp with time zone DEFAULT now() NOT NULL,
    next_run timestamp with time zone DEFAULT now() NOT NULL,
    last_run timestamp with time zone,
    status public.pgqueuer_status DEFAULT 'queued'::public.pgqueuer_status
);

CREATE SEQUENCE public.pgqueuer_schedules_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;

ALTER SEQUENCE public.pgqueuer_schedules_id_seq OWNED BY public.pgqueuer_schedules.id;

CREATE TABLE public.pgqueuer_statistics (
    id bigint NOT NULL,
    created timestamp with time zone DEFAULT date_trunc('sec'::text, now()) NOT NULL,
    count bigint NOT NULL,
    priority integer NOT NULL,
    status public.pgqueuer_status NOT NULL,
    entrypoint text NOT NULL
);

CREATE SEQUENCE public.pgqueuer_statistics_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;

ALTER SEQUENCE public.pgqueuer_statistics_id_seq OWNED BY public.pgqueuer_statistics.id;

CREATE TABLE public.stock (
    sku text NOT NULL,
    warehouse text NOT NULL
);

CREATE TABLE public.warehouses (
    name text NOT NULL
);

CREATE TABLE reliable_imports.import_batch_items (
    batch_id uuid NOT NULL,
    item_number integer NOT NULL,
    status text DEFAULT 'pending'::text NOT NULL,
    attempts integer DEFAULT 0 NOT NULL,
    source_data jsonb,
    raw bytea,
    source_line bigint,
    item_key text,
    root_item_number integer,
    due_at timestamp with time zone,
    target_table text,
    target_id text,
    processed_data jsonb,
    skip_reason text,
    error_kind text,
    error_type text,
    error_message text,
    error_sqlstate text,
    error_constraint text,
    error_table text,
    error_column text,
    error_detail text,
    error_hint text,
    error_traceback text,
    error_fields jsonb,
    error_group text,
    reprocessed_by uuid,
    started_at timestamp with time zone,
    finished_at timestamp with time zone,
    first_of_key integer,
    lock_key text,
    CONSTRAINT import_batch_items_status_check CHECK ((status = ANY (ARRAY['pending'::text, 'completed'::text, 'skipped'::text, 'failed'::text])))
)
WITH (fillfactor='45');

CREATE TABLE reliable_imports.import_batches (
    id uuid NOT NULL,
    batch_type text NOT NULL,
    status text DEFAULT 'pending'::text NOT NULL,
    parent_batch_id uuid,
    root_batch_id uuid NOT NULL,
    reprocesses_all boolean DEFAULT false NOT NULL,
    created_by text,
    idempotency_key text,
    content_sha256 bytea,
    source_name text,
    source_format text,
    source_size bigint,
    source_sha256 text,
    source_columns text[],
    options jsonb DEFAULT '{}'::jsonb NOT NULL,
    metadata jsonb DEFAULT '{}'::jsonb NOT NULL,
    total_items integer DEFAULT 0 NOT NULL,
    completed_items integer,
    skipped_items integer,
    failed_items integer,
    pause_reason text,
    error text,
    created_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    enqueued_at timestamp with time zone,
    started_at timestamp with time zone,
    finished_at timestamp with time zone,
    notifying_until timestamp with time zone,
    notified_at timestamp with time zone,
    announcing_until timestamp with time zone,
    announced_at timestamp with time zone,
    pass_number integer DEFAULT 1 NOT NULL,
    pass_settled integer DEFAULT 0 NOT NULL,
    final_pass boolean DEFAULT false NOT NULL,
    purging_at timestamp with time zone,
    source_encoding text,
    notes text[] DEFAULT '{}'::text[] NOT NULL,
    CONSTRAINT finished_with_totals CHECK (((finished_at IS NULL) OR (status = 'cancelled'::text) OR (completed_items IS NOT NULL))),
    CONSTRAINT import_batches_status_check CHECK ((status = ANY (ARRAY['pending'::text, 'processing'::text, 'completed'::text, 'partial'::text, 'failed'::text, 'paused'::text, 'cancelled'::text])))
);

COMMENT ON COLUMN reliable_imports.import_batches.notifying_until IS 'Not used any more: see import_outbox.';

COMMENT ON COLUMN reliable_imports.import_batches.announcing_until IS 'Not used any more: see import_outbox.';

CREATE VIEW reliable_imports.failed_imports_report AS
 SELECT b.batch_type,
    i.batch_id,
    i.item_number,
    b.source_name,
    i.source_line,
    i.error_kind,
    i.error_type,
    i.error_sqlstate,
    i.error_constraint,
    i.error_message,
    i.error_detail,
    i.error_group,
    i.attempts,
    i.finished_at AS failed_at,
    i.source_data,
    b.root_batch_id,
    COALESCE(i.root_item_number, i.item_number) AS root_item_number
   FROM (reliable_imports.import_batch_items i
     JOIN reliable_imports.import_batches b ON ((b.id = i.batch_id)))
  WHERE ((i.error_group IS NOT NULL) AND (i.status = 'failed'::text) AND (i.reprocessed_by IS NULL));

COMMENT ON VIEW reliable_imports.failed_imports_report IS 'Every record whose last outcome is a failure that no reprocessing has taken up.';

CREATE TABLE reliable_imports.import_batch_ranges (
    batch_id uuid NOT NULL,
    first_item integer NOT NULL,
    last_item integer NOT NULL,
    state text DEFAULT 'ready'::text NOT NULL,
    epoch integer DEFAULT 0 NOT NULL,
    crashes integer DEFAULT 0 NOT NULL,
    worker_id uuid,
    lease_until timestamp with time zone,
    not_before timestamp with time zone,
    completed integer DEFAULT 0 NOT NULL,
    skipped integer DEFAULT 0 NOT NULL,
    failed integer DEFAULT 0 NOT NULL,
    groups jsonb DEFAULT '{}'::jsonb NOT NULL,
    deferred integer[] DEFAULT '{}'::integer[] NOT NULL,
    final_pass boolean DEFAULT false NOT NULL,
    CONSTRAINT import_batch_ranges_check CHECK ((last_item >= first_item)),
    CONSTRAINT import_batch_ranges_state_check CHECK ((state = ANY (ARRAY['ready'::text, 'leased'::text, 'deferred'::text, 'done'::text])))
)
WITH (fillfactor='50', autovacuum_vacuum_scale_factor='0', autovacuum_vacuum_threshold='500');

CREATE VIEW reliable_imports.import_range_counts AS
 SELECT r.batch_id,
    r.first_item,
    r.last_item,
    r.state,
    r.deferred,
    COALESCE(k.completed, r.completed) AS completed,
    COALESCE(k.skipped, r.skipped) AS skipped,
    COALESCE(k.failed, r.failed) AS failed,
    COALESCE(k.groups, r.groups) AS groups
   FROM (reliable_imports.import_batch_ranges r
     LEFT JOIN LATERAL ( SELECT (count(*) FILTER (WHERE (i.status = 'completed'::text)))::integer AS completed,
            (count(*) FILTER (WHERE (i.status = 'skipped'::text)))::integer AS skipped,
            (count(*) FILTER (WHERE (i.status = 'failed'::text)))::integer AS failed,
            ( SELECT COALESCE(jsonb_object_agg(g.error_group, g.items), '{}'::jsonb) AS "coalesce"
                   FROM ( SELECT f.error_group,
                            count(*) AS items
                           FROM reliable_imports.import_batch_items f
                          WHERE ((f.batch_id = r.batch_id) AND (f.error_group IS NOT NULL) AND ((f.item_number >= r.first_item) AND (f.item_number <= r.last_item)))
                          GROUP BY f.error_group) g) AS groups
           FROM (reliable_imports.import_batches b
             JOIN reliable_imports.import_batch_items i ON (((i.batch_id = r.batch_id) AND ((i.item_number >= r.first_item) AND (i.item_number <= r.last_item)))))
          WHERE ((b.id = r.batch_id) AND (b.status = 'cancelled'::text) AND (r.state = 'leased'::text))
         HAVING (count(*) > 0)) k ON (true));

CREATE VIEW reliable_imports.import_batch_summary AS
 SELECT b.id AS batch_id,
    b.batch_type,
    b.status,
    b.total_items,
    t.completed AS completed_items,
    t.skipped AS skipped_items,
    t.failed AS failed_items,
    (((b.total_items - t.completed) - t.skipped) - t.failed) AS pending_items,
    round(((100.0 * ((t.completed + t.skipped))::numeric) / (NULLIF(((t.completed + t.skipped) + t.failed), 0))::numeric), 2) AS success_rate,
    b.created_at,
    b.started_at,
    b.finished_at,
    (COALESCE(b.finished_at, clock_timestamp()) - b.started_at) AS duration,
    b.source_name,
    b.parent_batch_id,
    b.root_batch_id,
    b.created_by,
    b.pause_reason,
    b.error,
    t.deferred AS deferred_items
   FROM (reliable_imports.import_batches b
     CROSS JOIN LATERAL ( SELECT COALESCE(sum(r.completed), (0)::bigint) AS completed,
            COALESCE(sum(r.skipped), (0)::bigint) AS skipped,
            COALESCE(sum(r.failed), (0)::bigint) AS failed,
            COALESCE(sum(cardinality(r.deferred)), (0)::bigint) AS deferred
           FROM reliable_imports.import_range_counts r
          WHERE (r.batch_id = b.id)) t);

COMMENT ON VIEW reliable_imports.import_batch_summary IS 'One row a batch. The counts come from its ranges: final when it is finished, about a second old while it runs.';

CREATE TABLE reliable_imports.import_crash_marks (
    batch_id uuid NOT NULL,
    item_number integer NOT NULL,
    worker_id uuid NOT NULL,
    seen_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL
);

CREATE TABLE reliable_imports.import_last_tries (
    root_batch_id uuid NOT NULL,
    root_item_number integer NOT NULL,
    batch_id uuid NOT NULL,
    replaces uuid NOT NULL
)
WITH (fillfactor='85');

CREATE VIEW reliable_imports.import_eligible_items AS
 SELECT b.root_batch_id,
    i.batch_id,
    i.item_number,
    COALESCE(i.root_item_number, i.item_number) AS root_number,
    i.source_data,
    i.raw,
    i.error_group
   FROM (reliable_imports.import_batches b
     JOIN reliable_imports.import_batch_items i ON ((i.batch_id = b.id)))
  WHERE ((i.error_group IS NOT NULL) AND (i.status = 'failed'::text) AND (i.reprocessed_by IS NULL) AND (NOT (EXISTS ( SELECT
           FROM reliable_imports.import_last_tries t
          WHERE ((t.root_batch_id = b.root_batch_id) AND (t.root_item_number = COALESCE(i.root_item_number, i.item_number)) AND (t.batch_id <> i.batch_id))))))
UNION ALL
 SELECT b.root_batch_id,
    i.batch_id,
    i.item_number,
    COALESCE(i.root_item_number, i.item_number) AS root_number,
    i.source_data,
    i.raw,
    NULL::text AS error_group
   FROM (reliable_imports.import_batches b
     JOIN reliable_imports.import_batch_items i ON ((i.batch_id = b.id)))
  WHERE ((b.status = 'cancelled'::text) AND (i.status = 'pending'::text) AND (i.reprocessed_by IS NULL) AND (NOT (EXISTS ( SELECT
           FROM reliable_imports.import_last_tries t
          WHERE ((t.root_batch_id = b.root_batch_id) AND (t.root_item_number = COALESCE(i.root_item_number, i.item_number)) AND (t.batch_id <> i.batch_id))))));

CREATE TABLE reliable_imports.import_item_edits (
    batch_id uuid NOT NULL,
    item_number integer NOT NULL,
    edit_id bigint NOT NULL,
    source_data jsonb,
    raw bytea,
    actor text,
    reason text,
    edited_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL
);

ALTER TABLE reliable_imports.import_item_edits ALTER COLUMN edit_id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME reliable_imports.import_item_edits_edit_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE reliable_imports.import_item_keys (
    batch_type text NOT NULL,
    item_key text NOT NULL,
    content_sha256 bytea NOT NULL,
    batch_id uuid NOT NULL,
    item_number integer NOT NULL
)
WITH (fillfactor='85');

CREATE TABLE reliable_imports.import_logs (
    batch_id uuid NOT NULL,
    log_id bigint NOT NULL,
    item_number integer,
    level text NOT NULL,
    message text NOT NULL,
    details jsonb,
    logged_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    CONSTRAINT import_logs_level_check CHECK ((level = ANY (ARRAY['debug'::text, 'info'::text, 'warning'::text, 'error'::text])))
);

ALTER TABLE reliable_imports.import_logs ALTER COLUMN log_id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME reliable_imports.import_logs_log_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE reliable_imports.import_only_one (
    batch_type text NOT NULL,
    batch_id uuid NOT NULL,
    vacant_since timestamp with time zone
);

CREATE TABLE reliable_imports.import_outbox (
    batch_id uuid NOT NULL,
    hook text NOT NULL,
    claimed_by uuid,
    claimed_until timestamp with time zone,
    claims integer DEFAULT 0 NOT NULL,
    details jsonb,
    CONSTRAINT import_outbox_hook_check CHECK ((hook = ANY (ARRAY['endpoint.after_create_batch'::text, 'processor.after_batch_complete'::text, 'endpoint.after_batch_complete'::text])))
)
WITH (fillfactor='50');

CREATE TABLE reliable_imports.import_sessions (
    session_sha256 bytea NOT NULL,
    user_id text NOT NULL,
    key_share bytea,
    path text,
    expires_at timestamp with time zone NOT NULL
);

CREATE TABLE reliable_imports.schema_migrations (
    name text NOT NULL,
    sha256 text NOT NULL,
    applied_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL
);

ALTER TABLE ONLY public.pgqueuer ALTER COLUMN id SET DEFAULT nextval('public.pgqueuer_id_seq'::regclass);

ALTER TABLE ONLY public.pgqueuer_schedules ALTER COLUMN id SET DEFAULT nextval('public.pgqueuer_schedules_id_seq'::regclass);

ALTER TABLE ONLY public.pgqueuer_statistics ALTER COLUMN id SET DEFAULT nextval('public.pgqueuer_statistics_id_seq'::regclass);

INSERT INTO public.categories VALUES
	('plain 0', NULL),
	('plain 1', NULL),
	('plain 2', NULL),
	('plain 3', NULL),
	('plain 4', NULL),
	('plain 5', NULL),
	('plain 6', NULL),
	('plain 7', NULL),
	('plain 8', NULL),
	('plain 9', NULL);

INSERT INTO public.invoices VALUES
	(11, 10),
	(12, 20),
	(15, 7),
	(1, 10),
	(2, 20);

INSERT INTO public.orders VALUES
	(21, 'Ida', 21),
	(20, 'Ida', 20),
	(22, 'Ida', 22),
	(23, 'Ida', 23),
	(24, 'Ida', 24),
	(1, 'Ann', 12.50),
	(4, 'Dän', 7.00),
	(10, 'Hal', 80.00),
	(6, 'Soon', 4.00),
	(2, 'Bob', 3.00),
	(3, 'Cleo', 5.00),
	(32, 'Kim', 32),
	(30, 'Jan', 30);

INSERT INTO public.pgqueuer VALUES
	(1, 0, '017598d1-5b65-4966-8360-df57d103bfc5', '2026-11-26 04:58:38.204005+00', '2026-11-26 04:58:44.039423+00', '2026-11-26 04:58:44.039423+00', '2026-11-26 04:58:38.204005+00', 'picked', 'reliable_imports.stock', 'reliable_imports.01a21638-4ceb-723c-a784-0f5d9de2915d/0', '\x7b2262617463685f6964223a2230316132313633382d346365622d373233632d613738342d306635643964653239313564222c226e756d626572223a307d', 'null', 0, NULL),
	(6, 0, NULL, '2026-11-26 04:58:49.221282+00', '2026-11-26 04:58:49.221282+00', '2026-11-26 04:58:49.221282+00', '2026-11-26 04:58:49.221282+00', 'queued', 'reliable_imports.stock', 'reliable_imports.01a21638-77f8-77a2-8374-853b1e895aa4/0', '\x7b2262617463685f6964223a2230316132313633382d373766382d373761322d383337342d383533623165383935616134222c226e756d626572223a307d', 'null', 0, NULL),
	(7, 0, NULL, '2026-11-26 04:58:53.68379+00', '2026-11-26 04:58:53.68379+00', '2026-11-26 04:58:53.68379+00', '2026-11-26 04:58:53.68379+00', 'queued', 'reliable_imports.stock', 'reliable_imports.01a21638-8973-771f-88b0-c91213dc452a/0', '\x7b2262617463685f6964223a2230316132313633382d383937332d373731662d383862302d633931323133646334353261222c226e756d626572223a307d', 'null', 0, NULL);

INSERT INTO public.pgqueuer_log VALUES
	(1, '2026-11-26 04:58:38.204005+00', 1, 'queued', 0, 'reliable_imports.stock', NULL, true),
	(2, '2026-11-26 04:58:39.623756+00', 1, 'picked', 0, 'reliable_imports.stock', NULL, true),
	(3, '2026-11-26 04:58:44.039423+00', 1, 'picked', 0, 'reliable_imports.stock', NULL, true),
	(4, '2026-11-26 04:58:46.107766+00', 4, 'queued', 0, 'reliable_imports.order', NULL, true),
	(5, '2026-11-26 04:58:46.221185+00', 4, 'picked', 0, 'reliable_imports.order', NULL, true),
	(6, '2026-11-26 04:58:46.411208+00', 4, 'successful', 0, 'reliable_imports.order', NULL, true),
	(7, '2026-11-26 04:58:49.221282+00', 6, 'queued', 0, 'reliable_imports.stock', NULL, true),
	(8, '2026-11-26 04:58:53.68379+00', 7, 'queued', 0, 'reliable_imports.stock', NULL, true);

INSERT INTO public.pgqueuer_schedules VALUES
	(1, '0 3 * * *', 'nightly', '2026-11-26 04:58:53.727211+00', '2026-11-26 04:58:53.727211+00', '2026-11-26 04:58:53.727211+00', '2026-11-26 04:58:53.727211+00', NULL, 'queued');

INSERT INTO public.pgqueuer_statistics VALUES
	(1, '2026-11-26 04:58:53+00', 1, 0, 'queued', 'reliable_imports.stock'),
	(2, '2026-11-26 04:58:46+00', 1, 0, 'queued', 'reliable_imports.order'),
	(3, '2026-11-26 04:58:46+00', 1, 0, 'successful', 'reliable_imports.order'),
	(4, '2026-11-26 04:58:39+00', 1, 0, 'picked', 'reliable_imports.stock'),
	(5, '2026-11-26 04:58:38+00', 1, 0, 'queued', 'reliable_imports.stock'),
	(6, '2026-11-26 04:58:44+00', 1, 0, 'picked', 'reliable_imports.stock'),
	(7, '2026-11-26 04:58:49+00', 1, 0, 'queued', 'reliable_imports.stock'),
	(8, '2026-11-26 04:58:46+00', 1, 0, 'picked', 'reliable_imports.order');

INSERT INTO public.stock VALUES
	('S1', 'north'),
	('S2', 'north'),
	('S3', 'north'),
	('S4', 'north'),
	('S5', 'north'),
	('S6', 'north'),
	('S200', 'north'),
	('S201', 'north'),
	('S202', 'north');

INSERT INTO public.warehouses VALUES
	('north'),
	('south');

INSERT INTO reliable_imports.import_batch_items VALUES
	('01a21638-4ceb-723c-a784-0f5d9de2915d', 7, 'pending', 0, '{"sku": "S7", "warehouse": "north"}', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
	('01a21638-4ceb-723c-a784-0f5d9de2915d', 8, 'pending', 0, '{"sku": "S8", "warehouse": "north"}', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
	('01a21638-4ceb-723c-a784-0f5d9de2915d', 9, 'pending', 0, '{"sku": "S9", "warehouse": "north"}', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
	('01a21638-4ceb-723c-a784-0f5d9de2915d', 10, 'pending', 0, '{"sku": "S10", "warehouse": "north"}', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
	('01a21638-4ceb-723c-a784-0f5d9de2915d', 11, 'pending', 0, '{"sku": "S11", "warehouse": "north"}', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
	('01a21638-4ceb-723c-a784-0f5d9de2915d', 12, 'pending', 0, '{"sku": "S12", "warehouse": "north"}', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
	('01a21638-4ceb-723c-a784-0f5d9de2915d', 13, 'pending', 0, '{"sku": "S13", "warehouse": "north"}', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
	('01a21638-4ceb-723c-a784-0f5d9de2915d', 14, 'pending', 0, '{"sku": "S14", "warehouse": "north"}', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
	('01a21638-4ceb-723c-a784-0f5d9de2915d', 15, 'pending', 0, '{"sku": "S15", "warehouse": "north"}', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
	('01a21638-4ceb-723c-a784-0f5d9de2915d', 16, 'pending', 0, '{"sku": "S16", "warehouse": "north"}', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
	('01a21638-4ceb-723c-a784-0f5d9de2915d', 17, 'pending', 0, '{"sku": "S17", "warehouse": "north"}', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
	('01a21638-4ceb-723c-a784-0f5d9de2915d', 18, 'pending', 0, '{"sku": "S18", "warehouse": "north"}', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
	('01a21638-4ceb-723c-a784-0f5d9de2915d', 19, 'pending', 0, '{"sku": "S19", "warehouse": "north"}', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
	('01a21638-4ceb-723c-a784-0f5d9de2915d', 20, 'pending', 0, '{"sku": "S20", "warehouse": "north"}', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
	('01a21638-4ceb-723c-a784-0f5d9de2915d', 1, 'completed', 1, '{"sku": "S1", "warehouse": "north"}', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, '2026-11-26 04:58:39.651833+00', '2026-11-26 04:58:39.653284+00', NULL, NULL),
	('01a21638-4ceb-723c-a784-0f5d9de2915d', 2, 'completed', 1, '{"sku": "S2", "warehouse": "north"}', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, '2026-11-26 04:58:39.652778+00', '2026-11-26 04:58:39.655741+00', NULL, NULL),
	('01a21638-4ceb-723c-a784-0f5d9de2915d', 3, 'completed', 1, '{"sku": "S3", "warehouse": "north"}', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, '2026-11-26 04:58:39.655627+00', '2026-11-26 04:58:39.658268+00', NULL, NULL),
	('01a21638-4ceb-723c-a784-0f5d9de2915d', 4, 'completed', 1, '{"sku": "S4", "warehouse": "north"}', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, '2026-11-26 04:58:39.658139+00', '2026-11-26 04:58:39.659518+00', NULL, NULL),
	('01a21638-4ceb-723c-a784-0f5d9de2915d', 5, 'completed', 1, '{"sku": "S5", "warehouse": "north"}', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, '2026-11-26 04:58:39.659423+00', '2026-11-26 04:58:39.6621+00', NULL, NULL),
	('01a21638-4ceb-723c-a784-0f5d9de2915d', 6, 'completed', 1, '{"sku": "S6", "warehouse": "north"}', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, '2026-11-26 04:58:39.662006+00', '2026-11-26 04:58:39.663814+00', NULL, NULL),
	('01a21638-6bdb-70bd-9fc7-d2c3a172127c', 2, 'completed', 1, '{"total": 21, "number": 21, "customer": "Ida"}', NULL, NULL, '21', NULL, NULL, 'orders', '21', '{"vat": "4.2"}', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, '2026-11-26 04:58:46.301337+00', '2026-11-26 04:58:46.307542+00', NULL, NULL),
	('01a21638-6bdb-70bd-9fc7-d2c3a172127c', 1, 'completed', 1, '{"total": 20, "number": 20, "customer": "Ida"}', NULL, NULL, '20', NULL, NULL, 'orders', '20', '{"vat": "4"}', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, '2026-11-26 04:58:46.301311+00', '2026-11-26 04:58:46.309388+00', NULL, NULL),
	('01a21638-6bdb-70bd-9fc7-d2c3a172127c', 3, 'completed', 1, '{"total": 22, "number": 22, "customer": "Ida"}', NULL, NULL, '22', NULL, NULL, 'orders', '22', '{"vat": "4.4"}', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, '2026-11-26 04:58:46.31084+00', '2026-11-26 04:58:46.320471+00', NULL, NULL),
	('01a21638-6bdb-70bd-9fc7-d2c3a172127c', 4, 'completed', 1, '{"total": 23, "number": 23, "customer": "Ida"}', NULL, NULL, '23', NULL, NULL, 'orders', '23', '{"vat": "4.6"}', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, '2026-11-26 04:58:46.311248+00', '2026-11-26 04:58:46.324862+00', NULL, NULL),
	('01a21638-6bdb-70bd-9fc7-d2c3a172127c', 5, 'completed', 1, '{"total": 24, "number": 24, "customer": "Ida"}', NULL, NULL, '24', NULL, NULL, 'orders', '24', '{"vat": "4.8"}', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, '2026-11-26 04:58:46.321396+00', '2026-11-26 04:58:46.328359+00', NULL, NULL),
	('01a21638-71cc-7498-8337-957cf0dbc507', 5, 'failed', 0, NULL, '\x352c457665', 6, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 'parse', 'UnreadableRecord', 'line 6: 2 fields, the header has 4', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, '2cd3a8002dac', NULL, NULL, NULL, NULL, NULL),
	('01a21638-71cc-7498-8337-957cf0dbc507', 7, 'skipped', 0, '{"total": "12.50", "number": "1", "remark": "", "customer": "Ann"}', NULL, 8, '1', NULL, NULL, NULL, NULL, NULL, 'duplicate of item 1', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, '2026-11-26 04:58:47.642254+00', 1, NULL),
	('01a21638-71cc-7498-8337-957cf0dbc507', 1, 'completed', 1, '{"total": "12.50", "number": "1", "remark": "", "customer": "Ann"}', NULL, 2, '1', NULL, NULL, 'orders', '1', '{"vat": "2.50"}', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, '2026-11-26 04:58:47.685177+00', '2026-11-26 04:58:47.689775+00', NULL, NULL),
	('01a21638-71cc-7498-8337-957cf0dbc507', 4, 'completed', 1, '{"total": "7.00", "number": "4", "remark": "", "customer": "Dän"}', NULL, 5, '4', NULL, NULL, 'orders', '4', '{"vat": "1.40"}', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, '2026-11-26 04:58:47.690451+00', '2026-11-26 04:58:47.69626+00', NULL, NULL),
	('01a21638-71cc-7498-8337-957cf0dbc507', 3, 'failed', 1, '{"total": "many", "number": "3", "remark": "", "customer": "Cleo"}', NULL, 4, '3', NULL, NULL, NULL, NULL, NULL, NULL, 'validation', 'ValidationError', 'total: Input should be a valid decimal', NULL, NULL, NULL, NULL, NULL, 'numbers must be like 1234.56: a point before the decimals, no thousands separators, units, currency signs or invisible characters. Correct the records, or add a validator for other forms to the processor''s model.', NULL, '[{"loc": "total", "msg": "Input should be a valid decimal", "type": "decimal_parsing", "input": "''many''"}]', '459d81002145', '01a21638-7319-76a2-a3ad-b481b94f80ce', '2026-11-26 04:58:47.694758+00', '2026-11-26 04:58:47.695405+00', NULL, NULL),
	('01a21638-71cc-7498-8337-957cf0dbc507', 9, 'failed', 1, '{"total": "few", "number": "9", "remark": "", "customer": "Gus"}', NULL, 10, '9', NULL, NULL, NULL, NULL, NULL, NULL, 'validation', 'ValidationError', 'total: Input should be a valid decimal', NULL, NULL, NULL, NULL, NULL, 'numbers must be like 1234.56: a point before the decimals, no thousands separators, units, currency signs or invisible characters. Correct the records, or add a validator for other forms to the processor''s model.', NULL, '[{"loc": "total", "msg": "Input should be a valid decimal", "type": "decimal_parsing", "input": "''few''"}]', '459d81002145', NULL, '2026-11-26 04:58:47.700345+00', '2026-11-26 04:58:47.700558+00', NULL, NULL),
	('01a21638-71cc-7498-8337-957cf0dbc507', 10, 'completed', 1, '{"total": "80.00", "number": "10", "remark": "", "customer": "Hal"}', NULL, 11, '10', NULL, NULL, 'orders', '10', '{"vat": "16.00"}', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, '2026-11-26 04:58:47.700401+00', '2026-11-26 04:58:47.703343+00', NULL, NULL),
	('01a21638-71cc-7498-8337-957cf0dbc507', 6, 'completed', 2, '{"total": "4.00", "number": "6", "remark": "", "customer": "Soon"}', NULL, 7, '6', NULL, '2026-11-26 04:58:47.797299+00', 'orders', '6', '{"vat": "0.80"}', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, '2026-11-26 04:58:47.8041+00', '2026-11-26 04:58:47.80502+00', NULL, NULL),
	('01a21638-71cc-7498-8337-957cf0dbc507', 2, 'failed', 1, '{"total": "3.00", "number": "2", "customer": "Bob"}', NULL, 3, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 'data', 'CheckViolationError', 'new row for relation "orders" violates check constraint "orders_total_check"', '23514', 'orders_total_check', 'orders', NULL, 'Failing row contains (2, Bob, -3.00).', NULL, '  File "/srv/shop/tests/data/shop.py", line 50, in process_item
    await ctx.upsert("orders", item.data.model_dump(), key="number")
  File "asyncpg/protocol/protocol.pyx", line 197, in bind_execute
    return await waiter
', NULL, '4dd7c0ec4be4', '01a21638-729f-77a0-a057-d96407e42311', '2026-11-26 04:58:47.685756+00', '2026-11-26 04:58:47.689999+00', NULL, NULL),
	('01a21638-71cc-7498-8337-957cf0dbc507', 8, 'failed', 1, '{"total": "-1.00", "number": "8", "remark": "urgent", "customer": "Flo"}', NULL, 9, '8', NULL, NULL, NULL, NULL, NULL, NULL, 'data', 'CheckViolationError', 'new row for relation "orders" violates check constraint "orders_total_check"', '23514', 'orders_total_check', 'orders', NULL, 'Failing row contains (8, Flo, -1.00).', NULL, '  File "/srv/shop/tests/data/shop.py", line 50, in process_item
    await ctx.upsert("orders", item.data.model_dump(), key="number")
  File "asyncpg/protocol/protocol.pyx", line 197, in bind_execute
    return await waiter
', NULL, '4dd7c0ec4be4', '01a21638-7319-76a2-a3ad-b481b94f80ce', '2026-11-26 04:58:47.700496+00', '2026-11-26 04:58:47.701256+00', NULL, NULL),
	('01a21638-742a-7323-845e-9c33828981e6', 3, 'failed', 1, '{"sku": "S202", "warehouse": "north"}', NULL, NULL, NULL, 3, NULL, NULL, NULL, NULL, NULL, 'data', 'UniqueViolationError', 'duplicate key value violates unique constraint "stock_pkey"', '23505', 'stock_pkey', 'stock', NULL, 'Key (sku)=(S202) already exists.', NULL, '  File "/srv/shop/tests/data/shop.py", line 76, in process_item
    await ctx.execute("INSERT INTO stock VALUES ($1, $2)", sku, warehouse)
  File "asyncpg/protocol/protocol.pyx", line 197, in bind_execute
    return await waiter
', NULL, '5fe3097f81e6', NULL, '2026-11-26 04:58:48.26986+00', '2026-11-26 04:58:48.27164+00', NULL, NULL),
	('01a21638-729f-77a0-a057-d96407e42311', 1, 'completed', 1, '{"total": "3.00", "number": "2", "customer": "Bob"}', NULL, 3, '2', 2, NULL, 'orders', '2', '{"vat": "0.60"}', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, '2026-11-26 04:58:47.8834+00', '2026-11-26 04:58:47.886274+00', NULL, NULL),
	('01a21638-7319-76a2-a3ad-b481b94f80ce', 1, 'completed', 1, '{"total": "5.00", "number": "3", "remark": "", "customer": "Cleo"}', NULL, 4, '3', 3, NULL, 'orders', '3', '{"vat": "1.00"}', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, '2026-11-26 04:58:48.062142+00', '2026-11-26 04:58:48.064043+00', NULL, NULL),
	('01a21638-7319-76a2-a3ad-b481b94f80ce', 2, 'failed', 1, '{"total": "-2.00", "number": "8", "remark": "urgent", "customer": "Flo"}', NULL, 9, '8', 8, NULL, NULL, NULL, NULL, NULL, 'data', 'CheckViolationError', 'new row for relation "orders" violates check constraint "orders_total_check"', '23514', 'orders_total_check', 'orders', NULL, 'Failing row contains (8, Flo, -2.00).', NULL, '  File "/srv/shop/tests/data/shop.py", line 50, in process_item
    await ctx.upsert("orders", item.data.model_dump(), key="number")
  File "asyncpg/protocol/protocol.pyx", line 197, in bind_execute
    return await waiter
', NULL, '4dd7c0ec4be4', NULL, '2026-11-26 04:58:48.06957+00', '2026-11-26 04:58:48.071509+00', NULL, NULL),
	('01a21638-73a4-70e1-a74e-bc193735fc08', 1, 'completed', 1, '{"sku": "S200", "warehouse": "north"}', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, '2026-11-26 04:58:48.157577+00', '2026-11-26 04:58:48.167689+00', NULL, NULL),
	('01a21638-73a4-70e1-a74e-bc193735fc08', 2, 'completed', 1, '{"sku": "S201", "warehouse": "north"}', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, '2026-11-26 04:58:48.167449+00', '2026-11-26 04:58:48.173533+00', NULL, NULL),
	('01a21638-73a4-70e1-a74e-bc193735fc08', 3, 'completed', 1, '{"sku": "S202", "warehouse": "north"}', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, '2026-11-26 04:58:48.173214+00', '2026-11-26 04:58:48.177286+00', NULL, NULL),
	('01a21638-742a-7323-845e-9c33828981e6', 1, 'failed', 1, '{"sku": "S200", "warehouse": "north"}', NULL, NULL, NULL, 1, NULL, NULL, NULL, NULL, NULL, 'data', 'UniqueViolationError', 'duplicate key value violates unique constraint "stock_pkey"', '23505', 'stock_pkey', 'stock', NULL, 'Key (sku)=(S200) already exists.', NULL, '  File "/srv/shop/tests/data/shop.py", line 76, in process_item
    await ctx.execute("INSERT INTO stock VALUES ($1, $2)", sku, warehouse)
  File "asyncpg/protocol/protocol.pyx", line 197, in bind_execute
    return await waiter
', NULL, '5fe3097f81e6', NULL, '2026-11-26 04:58:48.259966+00', '2026-11-26 04:58:48.263788+00', NULL, NULL),
	('01a21638-742a-7323-845e-9c33828981e6', 2, 'failed', 1, '{"sku": "S201", "warehouse": "north"}', NULL, NULL, NULL, 2, NULL, NULL, NULL, NULL, NULL, 'data', 'UniqueViolationError', 'duplicate key value violates unique constraint "stock_pkey"', '23505', 'stock_pkey', 'stock', NULL, 'Key (sku)=(S201) already exists.', NULL, '  File "/srv/shop/tests/data/shop.py", line 76, in process_item
    await ctx.execute("INSERT INTO stock VALUES ($1, $2)", sku, warehouse)
  File "asyncpg/protocol/protocol.pyx", line 197, in bind_execute
    return await waiter
', NULL, '5fe3097f81e6', NULL, '2026-11-26 04:58:48.267346+00', '2026-11-26 04:58:48.268426+00', NULL, NULL),
	('01a21638-7481-71de-8239-7b817bf00969', 2, 'pending', 1, '{"total": 31, "number": 31, "customer": "Later"}', NULL, NULL, '31', NULL, '2026-11-26 04:59:48.42448+00', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
	('01a21638-7481-71de-8239-7b817bf00969', 3, 'completed', 1, '{"total": 32, "number": 32, "customer": "Kim"}', NULL, NULL, '32', NULL, NULL, 'orders', '32', '{"vat": "6.4"}', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, '2026-11-26 04:58:48.461031+00', '2026-11-26 04:58:48.468425+00', NULL, NULL),
	('01a21638-7481-71de-8239-7b817bf00969', 1, 'completed', 1, '{"total": 30, "number": 30, "customer": "Jan"}', NULL, NULL, '30', NULL, NULL, 'orders', '30', '{"vat": "6"}', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, '2026-11-26 04:58:48.464736+00', '2026-11-26 04:58:48.469943+00', NULL, NULL),
	('01a21638-7539-70a1-91a3-f98596473497', 1, 'pending', 0, '{"name": "child 1", "parent": "parent 1"}', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
	('01a21638-7539-70a1-91a3-f98596473497', 2, 'pending', 0, '{"name": "child 2", "parent": "parent 2"}', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
	('01a21638-7539-70a1-91a3-f98596473497', 18, 'pending', 0, '{"name": "foreign 5", "parent": null, "translated": true}', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO reliable_imports.import_batch_items VALUES
	('01a21638-7539-70a1-91a3-f98596473497', 19, 'pending', 0, '{"name": "foreign 6", "parent": null, "translated": true}', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
	('01a21638-7539-70a1-91a3-f98596473497', 20, 'pending', 0, '{"name": "foreign 7", "parent": null, "translated": true}', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
	('01a21638-7539-70a1-91a3-f98596473497', 21, 'pending', 0, '{"name": "parent 1", "parent": null}', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
	('01a21638-7539-70a1-91a3-f98596473497', 22, 'pending', 0, '{"name": "parent 2", "parent": null}', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
	('01a21638-7539-70a1-91a3-f98596473497', 3, 'completed', 1, '{"name": "plain 0", "parent": null}', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, '2026-11-26 04:58:48.55557+00', '2026-11-26 04:58:48.556354+00', NULL, NULL),
	('01a21638-7539-70a1-91a3-f98596473497', 4, 'completed', 1, '{"name": "plain 1", "parent": null}', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, '2026-11-26 04:58:48.556211+00', '2026-11-26 04:58:48.57132+00', NULL, NULL),
	('01a21638-7539-70a1-91a3-f98596473497', 5, 'completed', 1, '{"name": "plain 2", "parent": null}', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, '2026-11-26 04:58:48.571101+00', '2026-11-26 04:58:48.575831+00', NULL, NULL),
	('01a21638-7539-70a1-91a3-f98596473497', 6, 'completed', 1, '{"name": "plain 3", "parent": null}', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, '2026-11-26 04:58:48.575683+00', '2026-11-26 04:58:48.587315+00', NULL, NULL),
	('01a21638-7539-70a1-91a3-f98596473497', 7, 'completed', 1, '{"name": "plain 4", "parent": null}', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, '2026-11-26 04:58:48.587098+00', '2026-11-26 04:58:48.591713+00', NULL, NULL),
	('01a21638-7539-70a1-91a3-f98596473497', 8, 'completed', 1, '{"name": "plain 5", "parent": null}', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, '2026-11-26 04:58:48.591614+00', '2026-11-26 04:58:48.595951+00', NULL, NULL),
	('01a21638-7539-70a1-91a3-f98596473497', 9, 'completed', 1, '{"name": "plain 6", "parent": null}', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, '2026-11-26 04:58:48.595862+00', '2026-11-26 04:58:48.600463+00', NULL, NULL),
	('01a21638-7539-70a1-91a3-f98596473497', 10, 'completed', 1, '{"name": "plain 7", "parent": null}', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, '2026-11-26 04:58:48.600383+00', '2026-11-26 04:58:48.611203+00', NULL, NULL),
	('01a21638-7539-70a1-91a3-f98596473497', 11, 'completed', 1, '{"name": "plain 8", "parent": null}', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, '2026-11-26 04:58:48.611081+00', '2026-11-26 04:58:48.616539+00', NULL, NULL),
	('01a21638-7539-70a1-91a3-f98596473497', 12, 'completed', 1, '{"name": "plain 9", "parent": null}', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, '2026-11-26 04:58:48.616461+00', '2026-11-26 04:58:48.619506+00', NULL, NULL),
	('01a21638-7539-70a1-91a3-f98596473497', 13, 'failed', 1, '{"name": "foreign 0", "parent": null, "translated": true}', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 'bug', 'UndefinedTableError', 'relation "translations" does not exist', '42P01', NULL, NULL, NULL, NULL, NULL, '  File "/srv/shop/tests/data/shop.py", line 68, in process_item
    await ctx.execute("INSERT INTO translations VALUES ($1)", name)
  File "asyncpg/protocol/protocol.pyx", line 161, in prepare
    return await waiter
', NULL, 'c13f43e93813', NULL, '2026-11-26 04:58:48.623663+00', '2026-11-26 04:58:48.626249+00', NULL, NULL),
	('01a21638-7539-70a1-91a3-f98596473497', 14, 'failed', 1, '{"name": "foreign 1", "parent": null, "translated": true}', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 'bug', 'UndefinedTableError', 'relation "translations" does not exist', '42P01', NULL, NULL, NULL, NULL, NULL, '  File "/srv/shop/tests/data/shop.py", line 68, in process_item
    await ctx.execute("INSERT INTO translations VALUES ($1)", name)
  File "asyncpg/protocol/protocol.pyx", line 161, in prepare
    return await waiter
', NULL, 'c13f43e93813', NULL, '2026-11-26 04:58:48.629879+00', '2026-11-26 04:58:48.632561+00', NULL, NULL),
	('01a21638-7539-70a1-91a3-f98596473497', 15, 'failed', 1, '{"name": "foreign 2", "parent": null, "translated": true}', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 'bug', 'UndefinedTableError', 'relation "translations" does not exist', '42P01', NULL, NULL, NULL, NULL, NULL, '  File "/srv/shop/tests/data/shop.py", line 68, in process_item
    await ctx.execute("INSERT INTO translations VALUES ($1)", name)
  File "asyncpg/protocol/protocol.pyx", line 161, in prepare
    return await waiter
', NULL, 'c13f43e93813', NULL, '2026-11-26 04:58:48.633869+00', '2026-11-26 04:58:48.634435+00', NULL, NULL),
	('01a21638-7539-70a1-91a3-f98596473497', 16, 'failed', 1, '{"name": "foreign 3", "parent": null, "translated": true}', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 'bug', 'UndefinedTableError', 'relation "translations" does not exist', '42P01', NULL, NULL, NULL, NULL, NULL, '  File "/srv/shop/tests/data/shop.py", line 68, in process_item
    await ctx.execute("INSERT INTO translations VALUES ($1)", name)
  File "asyncpg/protocol/protocol.pyx", line 161, in prepare
    return await waiter
', NULL, 'c13f43e93813', NULL, '2026-11-26 04:58:48.636358+00', '2026-11-26 04:58:48.644552+00', NULL, NULL),
	('01a21638-7539-70a1-91a3-f98596473497', 17, 'failed', 1, '{"name": "foreign 4", "parent": null, "translated": true}', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 'bug', 'UndefinedTableError', 'relation "translations" does not exist', '42P01', NULL, NULL, NULL, NULL, NULL, '  File "/srv/shop/tests/data/shop.py", line 68, in process_item
    await ctx.execute("INSERT INTO translations VALUES ($1)", name)
  File "asyncpg/protocol/protocol.pyx", line 161, in prepare
    return await waiter
', NULL, 'c13f43e93813', NULL, '2026-11-26 04:58:48.647089+00', '2026-11-26 04:58:48.64851+00', NULL, NULL),
	('01a21638-75e8-7430-838e-5674dc3d47d3', 2, 'completed', 1, '{"amount": 20, "number": 12}', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, '2026-11-26 04:58:48.755027+00', '2026-11-26 04:58:48.757851+00', NULL, NULL),
	('01a21638-75e8-7430-838e-5674dc3d47d3', 1, 'completed', 1, '{"amount": 10, "number": 11}', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, '2026-11-26 04:58:48.754922+00', '2026-11-26 04:58:48.757956+00', NULL, NULL),
	('01a21638-76b7-70e0-80ee-d01836f5e5b6', 1, 'completed', 1, '{"amount": 7, "number": 15}', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, '2026-11-26 04:58:48.950103+00', '2026-11-26 04:58:48.956192+00', NULL, NULL),
	('01a21638-7747-77b6-ac41-73fb675e6b40', 1, 'pending', 0, '{"sku": "S300", "warehouse": "north"}', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
	('01a21638-7747-77b6-ac41-73fb675e6b40', 2, 'pending', 0, '{"sku": "S301", "warehouse": "north"}', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
	('01a21638-7747-77b6-ac41-73fb675e6b40', 3, 'pending', 0, '{"sku": "S302", "warehouse": "north"}', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
	('01a21638-7747-77b6-ac41-73fb675e6b40', 4, 'pending', 0, '{"sku": "S303", "warehouse": "north"}', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
	('01a21638-7763-70b6-bdbc-5794cdf0c521', 1, 'failed', 1, '{"sku": "S400", "warehouse": "south"}', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 'data', 'ForeignKeyViolationError', 'insert or update on table "stock" violates foreign key constraint "stock_warehouse_fkey"', '23503', 'stock_warehouse_fkey', 'stock', NULL, 'Key (warehouse)=(south) is not present in table "warehouses".', 'the row that the record refers to is not there: import it first; if it is in the same file, reprocess this batch once it has ended.', '  File "/srv/shop/tests/data/shop.py", line 76, in process_item
    await ctx.execute("INSERT INTO stock VALUES ($1, $2)", sku, warehouse)
  File "asyncpg/protocol/protocol.pyx", line 197, in bind_execute
    return await waiter
', NULL, '082c4594fda9', NULL, '2026-11-26 04:58:49.101573+00', '2026-11-26 04:58:49.104982+00', NULL, NULL),
	('01a21638-7763-70b6-bdbc-5794cdf0c521', 2, 'failed', 1, '{"sku": "S401", "warehouse": "south"}', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 'data', 'ForeignKeyViolationError', 'insert or update on table "stock" violates foreign key constraint "stock_warehouse_fkey"', '23503', 'stock_warehouse_fkey', 'stock', NULL, 'Key (warehouse)=(south) is not present in table "warehouses".', 'the row that the record refers to is not there: import it first; if it is in the same file, reprocess this batch once it has ended.', '  File "/srv/shop/tests/data/shop.py", line 76, in process_item
    await ctx.execute("INSERT INTO stock VALUES ($1, $2)", sku, warehouse)
  File "asyncpg/protocol/protocol.pyx", line 197, in bind_execute
    return await waiter
', NULL, '082c4594fda9', NULL, '2026-11-26 04:58:49.116029+00', '2026-11-26 04:58:49.118357+00', NULL, NULL),
	('01a21638-7763-70b6-bdbc-5794cdf0c521', 4, 'failed', 1, '{"sku": "S403", "warehouse": "south"}', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 'data', 'ForeignKeyViolationError', 'insert or update on table "stock" violates foreign key constraint "stock_warehouse_fkey"', '23503', 'stock_warehouse_fkey', 'stock', NULL, 'Key (warehouse)=(south) is not present in table "warehouses".', 'the row that the record refers to is not there: import it first; if it is in the same file, reprocess this batch once it has ended.', '  File "/srv/shop/tests/data/shop.py", line 76, in process_item
    await ctx.execute("INSERT INTO stock VALUES ($1, $2)", sku, warehouse)
  File "asyncpg/protocol/protocol.pyx", line 197, in bind_execute
    return await waiter
', NULL, '082c4594fda9', NULL, '2026-11-26 04:58:49.140841+00', '2026-11-26 04:58:49.144991+00', NULL, NULL),
	('01a21638-7763-70b6-bdbc-5794cdf0c521', 6, 'failed', 1, '{"sku": "S405", "warehouse": "south"}', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 'data', 'ForeignKeyViolationError', 'insert or update on table "stock" violates foreign key constraint "stock_warehouse_fkey"', '23503', 'stock_warehouse_fkey', 'stock', NULL, 'Key (warehouse)=(south) is not present in table "warehouses".', 'the row that the record refers to is not there: import it first; if it is in the same file, reprocess this batch once it has ended.', '  File "/srv/shop/tests/data/shop.py", line 76, in process_item
    await ctx.execute("INSERT INTO stock VALUES ($1, $2)", sku, warehouse)
  File "asyncpg/protocol/protocol.pyx", line 197, in bind_execute
    return await waiter
', NULL, '082c4594fda9', NULL, '2026-11-26 04:58:49.16495+00', '2026-11-26 04:58:49.165432+00', NULL, NULL),
	('01a21638-7763-70b6-bdbc-5794cdf0c521', 3, 'failed', 1, '{"sku": "S402", "warehouse": "south"}', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 'data', 'ForeignKeyViolationError', 'insert or update on table "stock" violates foreign key constraint "stock_warehouse_fkey"', '23503', 'stock_warehouse_fkey', 'stock', NULL, 'Key (warehouse)=(south) is not present in table "warehouses".', 'the row that the record refers to is not there: import it first; if it is in the same file, reprocess this batch once it has ended.', '  File "/srv/shop/tests/data/shop.py", line 76, in process_item
    await ctx.execute("INSERT INTO stock VALUES ($1, $2)", sku, warehouse)
  File "asyncpg/protocol/protocol.pyx", line 197, in bind_execute
    return await waiter
', NULL, '082c4594fda9', '01a21638-77f8-77a2-8374-853b1e895aa4', '2026-11-26 04:58:49.128011+00', '2026-11-26 04:58:49.130221+00', NULL, NULL),
	('01a21638-7763-70b6-bdbc-5794cdf0c521', 5, 'failed', 1, '{"sku": "S404", "warehouse": "south"}', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 'data', 'ForeignKeyViolationError', 'insert or update on table "stock" violates foreign key constraint "stock_warehouse_fkey"', '23503', 'stock_warehouse_fkey', 'stock', NULL, 'Key (warehouse)=(south) is not present in table "warehouses".', 'the row that the record refers to is not there: import it first; if it is in the same file, reprocess this batch once it has ended.', '  File "/srv/shop/tests/data/shop.py", line 76, in process_item
    await ctx.execute("INSERT INTO stock VALUES ($1, $2)", sku, warehouse)
  File "asyncpg/protocol/protocol.pyx", line 197, in bind_execute
    return await waiter
', NULL, '082c4594fda9', '01a21638-77f8-77a2-8374-853b1e895aa4', '2026-11-26 04:58:49.158723+00', '2026-11-26 04:58:49.164016+00', NULL, NULL),
	('01a21638-77f8-77a2-8374-853b1e895aa4', 1, 'pending', 0, '{"sku": "S402", "warehouse": "south"}', NULL, NULL, NULL, 3, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
	('01a21638-77f8-77a2-8374-853b1e895aa4', 2, 'pending', 0, '{"sku": "S404", "warehouse": "south"}', NULL, NULL, NULL, 5, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
	('01a21638-7807-7501-b973-b136e5f431fc', 1, 'completed', 1, '{"amount": 10, "number": 1}', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, '2026-11-26 04:58:53.584242+00', '2026-11-26 04:58:53.587486+00', NULL, NULL),
	('01a21638-7807-7501-b973-b136e5f431fc', 2, 'completed', 1, '{"amount": 20, "number": 2}', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, '2026-11-26 04:58:53.587743+00', '2026-11-26 04:58:53.59953+00', NULL, NULL),
	('01a21638-8973-771f-88b0-c91213dc452a', 1, 'pending', 0, '{"sku": "S100", "warehouse": "north"}', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
	('01a21638-8973-771f-88b0-c91213dc452a', 2, 'pending', 0, '{"sku": "S101", "warehouse": "north"}', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
	('01a21638-8973-771f-88b0-c91213dc452a', 3, 'pending', 0, '{"sku": "S102", "warehouse": "north"}', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
	('01a21638-8973-771f-88b0-c91213dc452a', 4, 'pending', 0, '{"sku": "S103", "warehouse": "north"}', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
	('01a21638-8973-771f-88b0-c91213dc452a', 5, 'pending', 0, '{"sku": "S104", "warehouse": "north"}', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
	('01a21638-8973-771f-88b0-c91213dc452a', 6, 'pending', 0, '{"sku": "S105", "warehouse": "north"}', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
	('01a21638-8973-771f-88b0-c91213dc452a', 7, 'pending', 0, '{"sku": "S106", "warehouse": "north"}', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
	('01a21638-8973-771f-88b0-c91213dc452a', 8, 'pending', 0, '{"sku": "S107", "warehouse": "north"}', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
	('01a21638-897b-77f5-ab20-57bfb4c1aceb', 1, 'pending', 0, '{"amount": 10, "number": 21}', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
	('01a21638-897b-77f5-ab20-57bfb4c1aceb', 2, 'pending', 0, '{"amount": 20, "number": 22}', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
	('01a21638-897b-77f5-ab20-57bfb4c1aceb', 3, 'pending', 0, '{"amount": 30, "number": 23}', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);

INSERT INTO reliable_imports.import_batch_ranges VALUES
	('01a21638-742a-7323-845e-9c33828981e6', 1, 3, 'done', 1, 0, NULL, NULL, NULL, 0, 0, 3, '{"5fe3097f81e6": 3}', '{}', false),
	('01a21638-4ceb-723c-a784-0f5d9de2915d', 1, 20, 'leased', 2, 1, '5a31fb6c-cb28-414e-87f7-7791f536e85e', '2026-11-26 04:58:45.077507+00', NULL, 0, 0, 0, '{}', '{}', false),
	('01a21638-77f8-77a2-8374-853b1e895aa4', 1, 2, 'ready', 0, 0, NULL, NULL, NULL, 0, 0, 0, '{}', '{}', false),
	('01a21638-6bdb-70bd-9fc7-d2c3a172127c', 1, 5, 'done', 2, 0, NULL, NULL, NULL, 5, 0, 0, '{}', '{}', false),
	('01a21638-7481-71de-8239-7b817bf00969', 1, 3, 'ready', 2, 0, NULL, NULL, '2026-11-26 04:59:48.42448+00', 2, 0, 0, '{}', '{}', false),
	('01a21638-71cc-7498-8337-957cf0dbc507', 1, 10, 'done', 3, 0, NULL, NULL, NULL, 4, 1, 5, '{"2cd3a8002dac": 1, "459d81002145": 2, "4dd7c0ec4be4": 2}', '{}', false),
	('01a21638-7539-70a1-91a3-f98596473497', 1, 20, 'ready', 1, 0, NULL, NULL, NULL, 10, 0, 5, '{"c13f43e93813": 5}', '{1,2}', false),
	('01a21638-7539-70a1-91a3-f98596473497', 21, 22, 'ready', 1, 0, NULL, NULL, NULL, 0, 0, 0, '{}', '{}', false),
	('01a21638-729f-77a0-a057-d96407e42311', 1, 1, 'done', 2, 0, NULL, NULL, NULL, 1, 0, 0, '{}', '{}', false),
	('01a21638-7807-7501-b973-b136e5f431fc', 1, 2, 'done', 2, 0, NULL, NULL, NULL, 2, 0, 0, '{}', '{}', false),
	('01a21638-8973-771f-88b0-c91213dc452a', 1, 8, 'ready', 0, 0, NULL, NULL, NULL, 0, 0, 0, '{}', '{}', false),
	('01a21638-897b-77f5-ab20-57bfb4c1aceb', 1, 3, 'ready', 0, 0, NULL, NULL, NULL, 0, 0, 0, '{}', '{}', false),
	('01a21638-7319-76a2-a3ad-b481b94f80ce', 1, 2, 'done', 2, 0, NULL, NULL, NULL, 1, 0, 1, '{"4dd7c0ec4be4": 1}', '{}', false),
	('01a21638-75e8-7430-838e-5674dc3d47d3', 1, 2, 'done', 2, 0, NULL, NULL, NULL, 2, 0, 0, '{}', '{}', false),
	('01a21638-73a4-70e1-a74e-bc193735fc08', 1, 3, 'done', 1, 0, NULL, NULL, NULL, 3, 0, 0, '{}', '{}', false),
	('01a21638-76b7-70e0-80ee-d01836f5e5b6', 1, 1, 'done', 2, 0, NULL, NULL, NULL, 1, 0, 0, '{}', '{}', false),
	('01a21638-7747-77b6-ac41-73fb675e6b40', 1, 4, 'ready', 0, 0, NULL, NULL, NULL, 0, 0, 0, '{}', '{}', false),
	('01a21638-7763-70b6-bdbc-5794cdf0c521', 1, 6, 'done', 1, 0, NULL, NULL, NULL, 0, 0, 6, '{"082c4594fda9": 6}', '{}', false);

INSERT INTO reliable_imports.import_batches VALUES
	('01a21638-7481-71de-8239-7b817bf00969', 'order', 'processing', NULL, '01a21638-7481-71de-8239-7b817bf00969', false, 'bob', NULL, '\x5c13900ac3181914eb93fe4b61f72adc37f39a6e992a245822396ea44521c4c0', NULL, NULL, NULL, NULL, NULL, '{}', '{}', 3, NULL, NULL, NULL, NULL, NULL, '2026-11-26 04:58:48.327302+00', NULL, '2026-11-26 04:58:48.380752+00', NULL, NULL, NULL, NULL, NULL, 1, 0, false, NULL, NULL, '{}'),
	('01a21638-4ceb-723c-a784-0f5d9de2915d', 'stock', 'processing', NULL, '01a21638-4ceb-723c-a784-0f5d9de2915d', false, 'ann', NULL, '\x9d7bbbb1762f0d4bc76c27c4a036b895a2793389551b01677c938304b685e289', NULL, NULL, NULL, NULL, NULL, '{}', '{}', 20, NULL, NULL, NULL, NULL, NULL, '2026-11-26 04:58:38.21503+00', '2026-11-26 04:58:38.247333+00', '2026-11-26 04:58:39.641221+00', NULL, NULL, NULL, NULL, NULL, 1, 0, false, NULL, NULL, '{}'),
	('01a21638-77f8-77a2-8374-853b1e895aa4', 'stock', 'pending', '01a21638-7763-70b6-bdbc-5794cdf0c521', '01a21638-7763-70b6-bdbc-5794cdf0c521', false, 'ann', NULL, '\x', NULL, NULL, NULL, NULL, NULL, '{"canary": {"size": 2, "actor": "ann", "group": null, "continues": true, "min_success": 0.9, "item_numbers": null}}', '{}', 2, NULL, NULL, NULL, NULL, NULL, '2026-11-26 04:58:49.212877+00', '2026-11-26 04:58:49.222002+00', NULL, NULL, NULL, NULL, NULL, NULL, 1, 0, false, NULL, NULL, '{}'),
	('01a21638-6bdb-70bd-9fc7-d2c3a172127c', 'order', 'completed', NULL, '01a21638-6bdb-70bd-9fc7-d2c3a172127c', false, 'ann', 'monday', '\x423779b26061953b2dbf4b206fa8568003067f6bfc061b26bb4d55be25c45788', NULL, NULL, NULL, NULL, NULL, '{}', '{"from": "crm"}', 5, 5, 0, 0, NULL, NULL, '2026-11-26 04:58:46.108471+00', '2026-11-26 04:58:46.113072+00', '2026-11-26 04:58:46.233543+00', '2026-11-26 04:58:46.389419+00', NULL, NULL, NULL, NULL, 1, 0, false, NULL, NULL, '{}'),
	('01a21638-7539-70a1-91a3-f98596473497', 'category', 'paused', NULL, '01a21638-7539-70a1-91a3-f98596473497', false, 'ann', NULL, '\x033adf9590ffc071687a85c421fa4fd0e5d3e0922d84d288eae4c65a42a9f863', NULL, NULL, NULL, NULL, NULL, '{}', '{}', 22, NULL, NULL, NULL, '5 items in a row failed with UndefinedTableError 42P01: relation "translations" does not exist', NULL, '2026-11-26 04:58:48.506406+00', NULL, '2026-11-26 04:58:48.513928+00', NULL, NULL, NULL, NULL, NULL, 1, 0, false, NULL, NULL, '{}'),
	('01a21638-71cc-7498-8337-957cf0dbc507', 'order', 'partial', NULL, '01a21638-71cc-7498-8337-957cf0dbc507', false, 'ann', NULL, '\x6e07dae278ca14017e239fef8d1ad380f6fd4f9612840f65e4ecaebd48fd3256', 'spring.csv', 'csv', 156, '4ce88f91c2a677454d5c3baa0300ba9ef38568e3838820b6ad623dfef11bc3d6', '{number,customer,total,remark}', '{}', '{"season": "spring"}', 10, 4, 1, 5, NULL, NULL, '2026-11-26 04:58:47.640052+00', NULL, '2026-11-26 04:58:47.64541+00', '2026-11-26 04:58:47.820966+00', NULL, NULL, NULL, NULL, 1, 0, false, NULL, 'cp1252', '{"No field of Order takes the column ''remark''."}'),
	('01a21638-729f-77a0-a057-d96407e42311', 'order', 'completed', '01a21638-71cc-7498-8337-957cf0dbc507', '01a21638-71cc-7498-8337-957cf0dbc507', false, 'ann', NULL, '\x', 'spring.csv', NULL, NULL, NULL, '{number,customer,total,remark}', '{}', '{"season": "spring"}', 1, 1, 0, 0, NULL, NULL, '2026-11-26 04:58:47.842952+00', NULL, '2026-11-26 04:58:47.852679+00', '2026-11-26 04:58:47.94047+00', NULL, NULL, NULL, NULL, 1, 0, false, NULL, NULL, '{}'),
	('01a21638-7807-7501-b973-b136e5f431fc', 'invoice', 'completed', NULL, '01a21638-7807-7501-b973-b136e5f431fc', false, NULL, NULL, '\x1d94b0f608fb4595693a1ff9fd7da93c4b9cc121c488b5841cba226f26e93bbf', NULL, NULL, NULL, NULL, NULL, '{"announce": true}', '{"sum": 30, "numbers": [1, 2]}', 2, 2, 0, 0, NULL, NULL, '2026-11-26 04:58:49.227263+00', NULL, '2026-11-26 04:58:53.485167+00', '2026-11-26 04:58:53.651906+00', NULL, NULL, NULL, NULL, 1, 0, false, NULL, NULL, '{}'),
	('01a21638-7319-76a2-a3ad-b481b94f80ce', 'order', 'partial', '01a21638-71cc-7498-8337-957cf0dbc507', '01a21638-71cc-7498-8337-957cf0dbc507', false, 'ann', NULL, '\x', 'spring.csv', NULL, NULL, NULL, '{number,customer,total,remark}', '{}', '{"season": "spring"}', 2, 1, 0, 1, NULL, NULL, '2026-11-26 04:58:47.978336+00', NULL, '2026-11-26 04:58:47.99741+00', '2026-11-26 04:58:48.092885+00', NULL, NULL, NULL, NULL, 1, 0, false, NULL, 'utf-8', '{}'),
	('01a21638-75e8-7430-838e-5674dc3d47d3', 'invoice', 'failed', NULL, '01a21638-75e8-7430-838e-5674dc3d47d3', false, NULL, NULL, '\x9e2c64bef1b91ddb3bbf20b227cbda07aa8f4bd3db8134ca7dc65fce09824c52', NULL, NULL, NULL, NULL, NULL, '{"announce": true}', '{"sum": 31, "numbers": [11, 12]}', 2, 2, 0, 0, NULL, 'check failed: ValueError: the invoices come to 30, not 31', '2026-11-26 04:58:48.681711+00', NULL, '2026-11-26 04:58:48.701006+00', '2026-11-26 04:58:48.816539+00', NULL, '2026-11-26 04:58:48.853511+00', NULL, '2026-11-26 04:58:48.871953+00', 1, 0, false, NULL, NULL, '{}'),
	('01a21638-73a4-70e1-a74e-bc193735fc08', 'stock', 'completed', NULL, '01a21638-73a4-70e1-a74e-bc193735fc08', false, NULL, NULL, '\x695ea43b1056ac90384d3725bd3dc899bde32bcdf445b2f6a5b02a5c64cb5c35', NULL, NULL, NULL, NULL, NULL, '{}', '{}', 3, 3, 0, 0, NULL, NULL, '2026-11-26 04:58:48.106318+00', NULL, '2026-11-26 04:58:48.129491+00', '2026-11-26 04:58:48.229099+00', NULL, NULL, NULL, NULL, 1, 0, false, NULL, NULL, '{}'),
	('01a21638-742a-7323-845e-9c33828981e6', 'stock', 'failed', '01a21638-73a4-70e1-a74e-bc193735fc08', '01a21638-73a4-70e1-a74e-bc193735fc08', true, 'bob', NULL, '\x', NULL, NULL, NULL, NULL, NULL, '{"skip_unchanged": false}', '{}', 3, 0, 0, 3, NULL, NULL, '2026-11-26 04:58:48.236923+00', NULL, '2026-11-26 04:58:48.246691+00', '2026-11-26 04:58:48.29925+00', NULL, NULL, NULL, NULL, 1, 0, false, NULL, NULL, '{}'),
	('01a21638-76b7-70e0-80ee-d01836f5e5b6', 'invoice', 'failed', NULL, '01a21638-76b7-70e0-80ee-d01836f5e5b6', false, NULL, NULL, '\x7ebf604b15b144d4fa96d5d4f85e454f07519c69ec8512cf6d20c4d51f810ba2', NULL, NULL, NULL, NULL, NULL, '{"announce": true}', '{"sum": 7, "account": "1200", "numbers": [15]}', 1, NULL, NULL, NULL, NULL, 'UndefinedTableError: relation "ledger" does not exist', '2026-11-26 04:58:48.891687+00', NULL, '2026-11-26 04:58:48.904819+00', NULL, NULL, NULL, NULL, NULL, 1, 0, false, NULL, NULL, '{}'),
	('01a21638-8973-771f-88b0-c91213dc452a', 'stock', 'pending', NULL, '01a21638-8973-771f-88b0-c91213dc452a', false, 'ann', NULL, '\x932b6ed9dae6e923b09f28edf56e3d065c2a44c2dcf5763b13dc959205083eda', NULL, NULL, NULL, NULL, NULL, '{}', '{}', 8, NULL, NULL, NULL, NULL, NULL, '2026-11-26 04:58:53.687652+00', '2026-11-26 04:58:53.689643+00', NULL, NULL, NULL, NULL, NULL, NULL, 1, 0, false, NULL, NULL, '{}'),
	('01a21638-7747-77b6-ac41-73fb675e6b40', 'stock', 'cancelled', NULL, '01a21638-7747-77b6-ac41-73fb675e6b40', false, 'bob', NULL, '\xa0c51c07dbbb094e514fc49e551bf4961506a0ea1f90057e4c5b3fb3b93c233e', NULL, NULL, NULL, NULL, NULL, '{}', '{}', 4, NULL, NULL, NULL, NULL, NULL, '2026-11-26 04:58:49.037554+00', NULL, NULL, '2026-11-26 04:58:49.058093+00', NULL, NULL, NULL, NULL, 1, 0, false, NULL, NULL, '{}'),
	('01a21638-897b-77f5-ab20-57bfb4c1aceb', 'invoice', 'pending', NULL, '01a21638-897b-77f5-ab20-57bfb4c1aceb', false, 'ann', NULL, '\xc7b057e2aaf722deec14b4650f315db5ac58f1c4f6932968be31d2e297225f79', NULL, NULL, NULL, NULL, NULL, '{"announce": true, "after_create": true}', '{"sum": 60, "numbers": [21, 22, 23]}', 3, NULL, NULL, NULL, NULL, NULL, '2026-11-26 04:58:53.692014+00', NULL, NULL, NULL, NULL, NULL, NULL, NULL, 1, 0, false, NULL, NULL, '{}'),
	('01a21638-7763-70b6-bdbc-5794cdf0c521', 'stock', 'failed', NULL, '01a21638-7763-70b6-bdbc-5794cdf0c521', false, 'ann', NULL, '\x0800fa04fe24ec906f22b9e935a513402dceb2c8e2b4033547a6a10d080d6c8f', NULL, NULL, NULL, NULL, NULL, '{}', '{}', 6, 0, 0, 6, NULL, NULL, '2026-11-26 04:58:49.065108+00', NULL, '2026-11-26 04:58:49.091759+00', '2026-11-26 04:58:49.191148+00', NULL, NULL, NULL, NULL, 1, 0, false, NULL, NULL, '{}');

INSERT INTO reliable_imports.import_crash_marks VALUES
	('01a21638-4ceb-723c-a784-0f5d9de2915d', 7, '5a31fb6c-cb28-414e-87f7-7791f536e85e', '2026-11-26 04:58:44.088125+00');

INSERT INTO reliable_imports.import_item_edits OVERRIDING SYSTEM VALUE VALUES
	('01a21638-71cc-7498-8337-957cf0dbc507', 2, 1, '{"total": "-3.00", "number": "2", "remark": "", "customer": "Bob"}', NULL, 'ann', 'a typing error', '2026-11-26 04:58:47.834667+00');

INSERT INTO reliable_imports.import_item_keys VALUES
	('order', '21', '\x320b5074b6ddbaf5707302ab59df68b628a7ac19e8d99151cbdece9bce82381a', '01a21638-6bdb-70bd-9fc7-d2c3a172127c', 2),
	('order', '20', '\x08619a006f78de238cff2d657c982bb5d6bf832c7b256d4c137b586ddd8b3968', '01a21638-6bdb-70bd-9fc7-d2c3a172127c', 1),
	('order', '22', '\x82416ff42f278538ccb91b501447dd503abd43cc6d0614874c00442baf0318a2', '01a21638-6bdb-70bd-9fc7-d2c3a172127c', 3),
	('order', '23', '\x0f1d638e2a21fcec3e453cd1d249e0fa5549e62c923c6ff06bf04a0864d3eeee', '01a21638-6bdb-70bd-9fc7-d2c3a172127c', 4),
	('order', '24', '\x955af70a520918f14e9a14ecd7a6195c60d45310a380009c776adc2efe2dabd6', '01a21638-6bdb-70bd-9fc7-d2c3a172127c', 5),
	('order', '1', '\xfc8d6a6ca495f397f8dee60553a1cb4821002715d7d304d7cb99bb6f14087c63', '01a21638-71cc-7498-8337-957cf0dbc507', 1),
	('order', '4', '\xceb64f3371291f1d64eecf2f120a54a69fbb620f22bd3d3bb80a80b05dd4e36c', '01a21638-71cc-7498-8337-957cf0dbc507', 4),
	('order', '10', '\xe69519928c12bc682a02f9c6018a2a093d7f402c5d90def7117ca86c71f24646', '01a21638-71cc-7498-8337-957cf0dbc507', 10),
	('order', '6', '\xad481c6bbe39515ed1dbb05f25bde1aab055e2a125a4709cebb7cc400726a04c', '01a21638-71cc-7498-8337-957cf0dbc507', 6),
	('order', '2', '\x4208e01d6dd9bcb47d725be0753a0e6c295a8b432150f692c0fa76a2e3f49c2d', '01a21638-729f-77a0-a057-d96407e42311', 1),
	('order', '3', '\x91f73ffe156ff093716feca865324824121af0cb17d4eb2c2c7b16b3bd668bdc', '01a21638-7319-76a2-a3ad-b481b94f80ce', 1),
	('order', '32', '\x8a8bf0693cba9a6a4cb15777b93eeffa908844017520edbe63d1e2e76536522a', '01a21638-7481-71de-8239-7b817bf00969', 3),
	('order', '30', '\x3740b0a7c54bd7ee296dd0072d2e82eb1c50118bb0f90e4b361a7fe7b4e76fb5', '01a21638-7481-71de-8239-7b817bf00969', 1);

INSERT INTO reliable_imports.import_last_tries VALUES
	('01a21638-71cc-7498-8337-957cf0dbc507', 2, '01a21638-729f-77a0-a057-d96407e42311', '01a21638-71cc-7498-8337-957cf0dbc507'),
	('01a21638-71cc-7498-8337-957cf0dbc507', 3, '01a21638-7319-76a2-a3ad-b481b94f80ce', '01a21638-71cc-7498-8337-957cf0dbc507'),
	('01a21638-71cc-7498-8337-957cf0dbc507', 8, '01a21638-7319-76a2-a3ad-b481b94f80ce', '01a21638-71cc-7498-8337-957cf0dbc507'),
	('01a21638-73a4-70e1-a74e-bc193735fc08', 1, '01a21638-742a-7323-845e-9c33828981e6', '01a21638-73a4-70e1-a74e-bc193735fc08'),
	('01a21638-73a4-70e1-a74e-bc193735fc08', 2, '01a21638-742a-7323-845e-9c33828981e6', '01a21638-73a4-70e1-a74e-bc193735fc08'),
	('01a21638-73a4-70e1-a74e-bc193735fc08', 3, '01a21638-742a-7323-845e-9c33828981e6', '01a21638-73a4-70e1-a74e-bc193735fc08'),
	('01a21638-7763-70b6-bdbc-5794cdf0c521', 3, '01a21638-77f8-77a2-8374-853b1e895aa4', '01a21638-7763-70b6-bdbc-5794cdf0c521'),
	('01a21638-7763-70b6-bdbc-5794cdf0c521', 5, '01a21638-77f8-77a2-8374-853b1e895aa4', '01a21638-7763-70b6-bdbc-5794cdf0c521');

INSERT INTO reliable_imports.import_logs OVERRIDING SYSTEM VALUE VALUES
	('01a21638-4ceb-723c-a784-0f5d9de2915d', 1, NULL, 'info', 'batch created', '{"actor": "ann", "items": 20, "source": null, "unreadable": 0}', '2026-11-26 04:58:38.238276+00'),
	('01a21638-6bdb-70bd-9fc7-d2c3a172127c', 2, NULL, 'info', 'batch created', '{"actor": "ann", "items": 5, "source": null, "unreadable": 0}', '2026-11-26 04:58:46.112135+00'),
	('01a21638-6bdb-70bd-9fc7-d2c3a172127c', 3, 2, 'info', 'order written', '{"total": "21"}', '2026-11-26 04:58:46.302597+00'),
	('01a21638-6bdb-70bd-9fc7-d2c3a172127c', 4, 1, 'info', 'order written', '{"total": "20"}', '2026-11-26 04:58:46.305088+00'),
	('01a21638-6bdb-70bd-9fc7-d2c3a172127c', 5, 3, 'info', 'order written', '{"total": "22"}', '2026-11-26 04:58:46.319892+00'),
	('01a21638-6bdb-70bd-9fc7-d2c3a172127c', 6, 4, 'info', 'order written', '{"total": "23"}', '2026-11-26 04:58:46.321434+00'),
	('01a21638-6bdb-70bd-9fc7-d2c3a172127c', 7, 5, 'info', 'order written', '{"total": "24"}', '2026-11-26 04:58:46.327655+00'),
	('01a21638-71cc-7498-8337-957cf0dbc507', 8, NULL, 'info', 'batch created', '{"actor": "ann", "items": 10, "source": "spring.csv", "unreadable": 1}', '2026-11-26 04:58:47.642978+00'),
	('01a21638-71cc-7498-8337-957cf0dbc507', 9, NULL, 'warning', 'No field of Order takes the column ''remark''.', '{}', '2026-11-26 04:58:47.643223+00'),
	('01a21638-71cc-7498-8337-957cf0dbc507', 10, 1, 'info', 'order written', '{"total": "12.50"}', '2026-11-26 04:58:47.689424+00'),
	('01a21638-71cc-7498-8337-957cf0dbc507', 11, 4, 'info', 'order written', '{"total": "7.00"}', '2026-11-26 04:58:47.695939+00'),
	('01a21638-71cc-7498-8337-957cf0dbc507', 12, 6, 'warning', 'try 1 failed, the next is due in 0.1 s', '{"reason": "no such customer yet"}', '2026-11-26 04:58:47.696693+00'),
	('01a21638-71cc-7498-8337-957cf0dbc507', 13, 10, 'info', 'order written', '{"total": "80.00"}', '2026-11-26 04:58:47.702978+00'),
	('01a21638-71cc-7498-8337-957cf0dbc507', 14, 6, 'info', 'order written', '{"total": "4.00"}', '2026-11-26 04:58:47.804709+00'),
	('01a21638-729f-77a0-a057-d96407e42311', 15, NULL, 'info', 'batch created', '{"all": false, "actor": "ann", "group": null, "items": 1, "canary": null, "reprocesses": "01a21638-71cc-7498-8337-957cf0dbc507"}', '2026-11-26 04:58:47.843943+00'),
	('01a21638-729f-77a0-a057-d96407e42311', 16, 1, 'info', 'order written', '{"total": "3.00"}', '2026-11-26 04:58:47.885551+00'),
	('01a21638-7319-76a2-a3ad-b481b94f80ce', 17, NULL, 'info', 'batch created', '{"actor": "ann", "items": 2, "refused": 0, "corrected": null, "unchanged": 0, "reprocesses": "01a21638-71cc-7498-8337-957cf0dbc507", "refused_rows": []}', '2026-11-26 04:58:47.982616+00'),
	('01a21638-7319-76a2-a3ad-b481b94f80ce', 18, 1, 'info', 'order written', '{"total": "5.00"}', '2026-11-26 04:58:48.063607+00'),
	('01a21638-73a4-70e1-a74e-bc193735fc08', 19, NULL, 'info', 'batch created', '{"actor": null, "items": 3, "source": null, "unreadable": 0}', '2026-11-26 04:58:48.114775+00'),
	('01a21638-742a-7323-845e-9c33828981e6', 20, NULL, 'info', 'batch created', '{"all": true, "actor": "bob", "group": null, "items": 3, "canary": null, "reprocesses": "01a21638-73a4-70e1-a74e-bc193735fc08"}', '2026-11-26 04:58:48.238132+00'),
	('01a21638-7481-71de-8239-7b817bf00969', 21, NULL, 'info', 'batch created', '{"actor": "bob", "items": 3, "source": null, "unreadable": 0}', '2026-11-26 04:58:48.342198+00'),
	('01a21638-7481-71de-8239-7b817bf00969', 22, 2, 'warning', 'try 1 failed, the next is due in 60.0 s', '{"reason": "no such customer yet"}', '2026-11-26 04:58:48.42413+00'),
	('01a21638-7481-71de-8239-7b817bf00969', 23, 3, 'info', 'order written', '{"total": "32"}', '2026-11-26 04:58:48.467036+00'),
	('01a21638-7481-71de-8239-7b817bf00969', 24, 1, 'info', 'order written', '{"total": "30"}', '2026-11-26 04:58:48.468276+00'),
	('01a21638-7539-70a1-91a3-f98596473497', 25, NULL, 'info', 'batch created', '{"actor": "ann", "items": 22, "source": null, "unreadable": 0}', '2026-11-26 04:58:48.510911+00'),
	('01a21638-7539-70a1-91a3-f98596473497', 26, NULL, 'error', 'batch paused', '{"actor": "reliable_imports_async", "reason": "5 items in a row failed with UndefinedTableError 42P01: relation \"translations\" does not exist"}', '2026-11-26 04:58:48.651796+00'),
	('01a21638-75e8-7430-838e-5674dc3d47d3', 27, NULL, 'info', 'batch created', '{"actor": null, "items": 2, "source": null, "unreadable": 0}', '2026-11-26 04:58:48.685142+00'),
	('01a21638-75e8-7430-838e-5674dc3d47d3', 28, NULL, 'error', 'check failed: ValueError: the invoices come to 30, not 31', '{}', '2026-11-26 04:58:48.788855+00'),
	('01a21638-75e8-7430-838e-5674dc3d47d3', 29, NULL, 'info', 'the accountant was told', NULL, '2026-11-26 04:58:48.83982+00'),
	('01a21638-75e8-7430-838e-5674dc3d47d3', 30, NULL, 'info', 'the website was told', NULL, '2026-11-26 04:58:48.868385+00'),
	('01a21638-76b7-70e0-80ee-d01836f5e5b6', 31, NULL, 'info', 'batch created', '{"actor": null, "items": 1, "source": null, "unreadable": 0}', '2026-11-26 04:58:48.897403+00'),
	('01a21638-76b7-70e0-80ee-d01836f5e5b6', 32, NULL, 'error', 'batch hook failed', '{"kept": false, "error": "UndefinedTableError: relation \"ledger\" does not exist"}', '2026-11-26 04:58:49.01537+00'),
	('01a21638-7747-77b6-ac41-73fb675e6b40', 33, NULL, 'info', 'batch created', '{"actor": "bob", "items": 4, "source": null, "unreadable": 0}', '2026-11-26 04:58:49.051359+00'),
	('01a21638-7747-77b6-ac41-73fb675e6b40', 34, NULL, 'info', 'batch cancelled', '{"actor": "bob", "reason": "the wrong day"}', '2026-11-26 04:58:49.058447+00'),
	('01a21638-7763-70b6-bdbc-5794cdf0c521', 35, NULL, 'info', 'batch created', '{"actor": "ann", "items": 6, "source": null, "unreadable": 0}', '2026-11-26 04:58:49.078496+00'),
	('01a21638-77f8-77a2-8374-853b1e895aa4', 36, NULL, 'info', 'batch created', '{"all": false, "actor": "ann", "group": null, "items": 2, "canary": 2, "reprocesses": "01a21638-7763-70b6-bdbc-5794cdf0c521"}', '2026-11-26 04:58:49.216969+00'),
	('01a21638-7807-7501-b973-b136e5f431fc', 37, NULL, 'info', 'batch created', '{"actor": null, "items": 2, "source": null, "unreadable": 0}', '2026-11-26 04:58:49.232849+00'),
	('01a21638-8973-771f-88b0-c91213dc452a', 38, NULL, 'info', 'batch created', '{"actor": "ann", "items": 8, "source": null, "unreadable": 0}', '2026-11-26 04:58:53.689263+00'),
	('01a21638-897b-77f5-ab20-57bfb4c1aceb', 39, NULL, 'info', 'batch created', '{"actor": "ann", "items": 3, "source": null, "unreadable": 0}', '2026-11-26 04:58:53.693431+00');

INSERT INTO reliable_imports.import_only_one VALUES
	('invoice', '01a21638-7807-7501-b973-b136e5f431fc', NULL);

INSERT INTO reliable_imports.import_outbox VALUES
	('01a21638-7807-7501-b973-b136e5f431fc', 'endpoint.after_batch_complete', NULL, NULL, 0, NULL),
	('01a21638-7807-7501-b973-b136e5f431fc', 'processor.after_batch_complete', 'c8bcd0c4-3417-4ca8-87fa-14475eb6a8d2', '2026-11-26 04:59:03.660623+00', 1, NULL),
	('01a21638-897b-77f5-ab20-57bfb4c1aceb', 'endpoint.after_create_batch', '072ea244-b7a0-411a-82d0-a0875edb3e1d', '2026-11-26 04:59:03.69526+00', 1, '{"data": {"metadata": {"sum": 60, "numbers": [21, 22, 23]}}, "enqueue": true}');

INSERT INTO reliable_imports.import_sessions VALUES
	('\x5b614fbadd2217fa48983755f9b7783586afde72b5fbe1b52bbfb50e711e5899', 'ann', '\xc15eb7bdec8345d838e5b73b95aa7b37', NULL, '2036-11-23 04:58:53.741585+00'),
	('\x5b441caef9ca27f2310bf0bf1976989a3de2b5a9b26ac003d5adc199ba512aab', 'bob', NULL, '/events', '2036-11-23 04:58:53.747648+00');

INSERT INTO reliable_imports.schema_migrations VALUES
	('0001_tables', '019a4d66fa8e59ffa9cddf60ebce30f33ca41449a7116eec33bd9200fb3ffb55', '2026-11-26 04:58:37.965877+00'),
	('0002_views', '84cb2dfc77708efef7090962d4796036440ac30825ed3509d042b133e44b3a24', '2026-11-26 04:58:37.970745+00'),
	('0003_crash_marks', '40a3b54189863e14a65169c0360a32aed7305fb6ceaa154ed405dd67c9360490', '2026-11-26 04:58:37.975148+00'),
	('0004_repair', 'd30def094c8ce9810d9f9624502ed47389a7e1f77fd71ce2879fc73dd6de5342', '2026-11-26 04:58:37.979667+00'),
	('0005_deferral', '5016e196d63dec25cc396132cbf6bf4a05c4aa2396dd98f9c967840aea4a5954', '2026-11-26 04:58:37.982701+00'),
	('0006_item_keys', '1e16af53495fb61489647cdfc6f8c114a77d6339f69a78f02d55a1c4b9a9ccef', '2026-11-26 04:58:37.98719+00'),
	('0007_recent_batches', '49432c6a9e5d267fa307b28ede94747e6c01f4cce1e7945d7283f5e87754529d', '2026-11-26 04:58:37.988587+00'),
	('0008_settling', '5025b797488ce72e4b720e0d89e73232d85fb181dbc04b31cc087335e7e83760', '2026-11-26 04:58:37.990658+00'),
	('0009_room_for_outcomes', '17c269ba7d81c2ebca007e6d6e62bdb8d3a26b04dc2b50fac6a45fabc59e6a8c', '2026-11-26 04:58:37.992138+00'),
	('0010_item_order', '2073b29738cf683829777ecd6a18d41aca16ae8670abdba7897c73ce35228d7f', '2026-11-26 04:58:37.993561+00'),
	('0011_lifecycle', '302eb7f045957b1682bbb815758573a6db1eb4aaf99e5ef379eda4d93ec6021a', '2026-11-26 04:58:38.015644+00'),
	('0012_access', '0d68865fd977f1fd87e8e2f9c6793d17974505f1f5bbffdfa7e265c87c4b68ff', '2026-11-26 04:58:38.019468+00'),
	('0013_canaries', '405a50fdab0e6db39a1fc0cb0a1e3851c3da2671f7ed47680be4960b7ccde1c3', '2026-11-26 04:58:38.021576+00'),
	('0014_source_notes', 'ecfb26c6815944089cf909195455e0cacf0b1723ec80834c680d6df8a63609f8', '2026-11-26 04:58:38.025459+00');

SELECT pg_catalog.setval('public.pgqueuer_id_seq', 7, true);

SELECT pg_catalog.setval('public.pgqueuer_log_id_seq', 8, true);

SELECT pg_catalog.setval('public.pgqueuer_schedules_id_seq', 1, true);

SELECT pg_catalog.setval('public.pgqueuer_statistics_id_seq', 8, true);

SELECT pg_catalog.setval('reliable_imports.import_item_edits_edit_id_seq', 1, true);

SELECT pg_catalog.setval('reliable_imports.import_logs_log_id_seq', 39, true);

ALTER TABLE ONLY public.categories
    ADD CONSTRAINT categories_pkey PRIMARY KEY (name);

ALTER TABLE ONLY public.invoices
    ADD CONSTRAINT invoices_pkey PRIMARY KEY (number);

ALTER TABLE ONLY public.orders
    ADD CONSTRAINT orders_pkey PRIMARY KEY (number);

ALTER TABLE ONLY public.pgqueuer_log
    ADD CONSTRAINT pgqueuer_log_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.pgqueuer
    ADD CONSTRAINT pgqueuer_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.pgqueuer_schedules
    ADD CONSTRAINT pgqueuer_schedules_expression_entrypoint_key UNIQUE (expression, entrypoint);

ALTER TABLE ONLY public.pgqueuer_schedules
    ADD CONSTRAINT pgqueuer_schedules_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.pgqueuer_statistics
    ADD CONSTRAINT pgqueuer_statistics_pkey PRIMARY KEY (id);

ALTER TABLE ONLY public.stock
    ADD CONSTRAINT stock_pkey PRIMARY KEY (sku);

ALTER TABLE ONLY public.warehouses
    ADD CONSTRAINT warehouses_pkey PRIMARY KEY (name);

ALTER TABLE ONLY reliable_imports.import_batch_items
    ADD CONSTRAINT import_batch_items_pkey PRIMARY KEY (batch_id, item_number);

ALTER TABLE ONLY reliable_imports.import_batch_ranges
    ADD CONSTRAINT import_batch_ranges_pkey PRIMARY KEY (batch_id, first_item);

ALTER TABLE ONLY reliable_imports.import_batches
    ADD CONSTRAINT import_batches_pkey PRIMARY KEY (id);

ALTER TABLE ONLY reliable_imports.import_crash_marks
    ADD CONSTRAINT import_crash_marks_pkey PRIMARY KEY (batch_id, item_number, worker_id);

ALTER TABLE ONLY reliable_imports.import_item_edits
    ADD CONSTRAINT import_item_edits_pkey PRIMARY KEY (batch_id, item_number, edit_id);

ALTER TABLE ONLY reliable_imports.import_item_keys
    ADD CONSTRAINT import_item_keys_pkey PRIMARY KEY (batch_type, item_key);

ALTER TABLE ONLY reliable_imports.import_last_tries
    ADD CONSTRAINT import_last_tries_pkey PRIMARY KEY (root_batch_id, root_item_number);

ALTER TABLE ONLY reliable_imports.import_logs
    ADD CONSTRAINT import_logs_pkey PRIMARY KEY (batch_id, log_id);

ALTER TABLE ONLY reliable_imports.import_only_one
    ADD CONSTRAINT import_only_one_pkey PRIMARY KEY (batch_type);

ALTER TABLE ONLY reliable_imports.import_outbox
    ADD CONSTRAINT import_outbox_pkey PRIMARY KEY (batch_id, hook);

ALTER TABLE ONLY reliable_imports.import_sessions
    ADD CONSTRAINT import_sessions_pkey PRIMARY KEY (session_sha256);

ALTER TABLE ONLY reliable_imports.schema_migrations
    ADD CONSTRAINT schema_migrations_pkey PRIMARY KEY (name);

CREATE INDEX pgqueuer_ep_ea_idx ON public.pgqueuer USING btree (entrypoint, execute_after) WHERE (status = 'queued'::public.pgqueuer_status);

CREATE INDEX pgqueuer_ep_prio_id_idx ON public.pgqueuer USING btree (entrypoint, priority DESC, id) WHERE (status = 'queued'::public.pgqueuer_status);

CREATE INDEX pgqueuer_log_created ON public.pgqueuer_log USING btree (created);

CREATE INDEX pgqueuer_log_job_id_status ON public.pgqueuer_log USING btree (job_id, created DESC);

CREATE INDEX pgqueuer_log_not_aggregated ON public.pgqueuer_log USING btree ((1)) WHERE (NOT aggregated);

CREATE INDEX pgqueuer_log_status ON public.pgqueuer_log USING btree (status);

CREATE INDEX pgqueuer_picked_heartbeat_idx ON public.pgqueuer USING btree (heartbeat) WHERE (status = 'picked'::public.pgqueuer_status);

CREATE UNIQUE INDEX pgqueuer_picked_slot_idx ON public.pgqueuer USING btree (entrypoint, slot) WHERE ((status = 'picked'::public.pgqueuer_status) AND (slot IS NOT NULL));

CREATE INDEX pgqueuer_priority_id_id1_idx ON public.pgqueuer USING btree (priority, id DESC) INCLUDE (id) WHERE (status = 'queued'::public.pgqueuer_status);

CREATE INDEX pgqueuer_queue_manager_id_idx ON public.pgqueuer USING btree (queue_manager_id) WHERE (queue_manager_id IS NOT NULL);

CREATE UNIQUE INDEX pgqueuer_statistics_unique_count ON public.pgqueuer_statistics USING btree (priority, date_trunc('sec'::text, timezone('UTC'::text, created)), status, entrypoint);

CREATE UNIQUE INDEX pgqueuer_unique_dedupe_key ON public.pgqueuer USING btree (dedupe_key) WHERE ((status = ANY (ARRAY['queued'::public.pgqueuer_status, 'picked'::public.pgqueuer_status])) AND (dedupe_key IS NOT NULL));

CREATE INDEX pgqueuer_updated_id_id1_idx ON public.pgqueuer USING btree (updated, id DESC) INCLUDE (id) WHERE (status = 'picked'::public.pgqueuer_status);

CREATE INDEX import_batch_items_groups ON reliable_imports.import_batch_items USING btree (batch_id, error_group, item_number) WHERE (error_group IS NOT NULL);

CREATE INDEX import_batches_enqueued ON reliable_imports.import_batches USING btree (id) WHERE ((enqueued_at IS NOT NULL) AND (finished_at IS NULL));

CREATE INDEX import_batches_file ON reliable_imports.import_batches USING btree (batch_type, source_sha256) WHERE (source_sha256 IS NOT NULL);

CREATE INDEX import_batches_finished ON reliable_imports.import_batches USING btree (finished_at);

CREATE UNIQUE INDEX import_batches_idempotency ON reliable_imports.import_batches USING btree (COALESCE(created_by, ''::text), idempotency_key) WHERE (idempotency_key IS NOT NULL);

CREATE INDEX import_batches_lineage ON reliable_imports.import_batches USING btree (root_batch_id, id);

CREATE INDEX import_batches_type ON reliable_imports.import_batches USING btree (batch_type, id);

CREATE INDEX import_batches_undecided_canaries ON reliable_imports.import_batches USING btree (id) WHERE ((options #>> '{canary,continues}'::text[]) = 'true'::text);

CREATE INDEX import_logs_items ON reliable_imports.import_logs USING btree (batch_id, item_number, log_id) WHERE (item_number IS NOT NULL);

CREATE TRIGGER tg_pgqueuer_changed AFTER INSERT OR DELETE OR UPDATE OR TRUNCATE ON public.pgqueuer FOR EACH STATEMENT EXECUTE FUNCTION public.fn_pgqueuer_changed();

ALTER TABLE ONLY public.categories
    ADD CONSTRAINT categories_parent_fkey FOREIGN KEY (parent) REFERENCES public.categories(name);

ALTER TABLE ONLY public.stock
    ADD CONSTRAINT stock_warehouse_fkey FOREIGN KEY (warehouse) REFERENCES public.warehouses(name);


