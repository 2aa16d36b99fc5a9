-- Who may see which batch, as one rule for every statement; and the sessions of browsers.

-- Whether a rule lets somebody see the lineages whose root has this creator and metadata. `rules` is what the caller may see
-- by batch type, and of all other types: true, false, or {"created_by": …, "metadata": …}, of which each that is there has to
-- fit; metadata by containment. Whatever else a rule may be shows nothing. The same rule in Python: visibility.py.
CREATE FUNCTION reliable_imports.is_visible(rules jsonb, batch_type text, created_by text, metadata jsonb)
RETURNS boolean
LANGUAGE sql
IMMUTABLE PARALLEL SAFE
AS $$
SELECT CASE jsonb_typeof(given.rule)
            WHEN 'boolean' THEN given.rule = 'true'::jsonb
            WHEN 'object' THEN coalesce((NOT given.rule ? 'created_by' OR $3 = given.rule ->> 'created_by')
                                        AND (NOT given.rule ? 'metadata' OR $4 @> (given.rule -> 'metadata')), false)
            ELSE false
       END
  FROM (SELECT coalesce(rules -> 'types' -> $2, rules -> 'otherwise') AS rule) given
$$;

-- Sessions, and tickets for one path. The browser holds a random token and one share of the key it came in with, this table
-- the hash of the token and the other share: neither can tell the key alone, and a key that is withdrawn ends its sessions.
-- Signing out deletes the row. No key: the user was found without one.
CREATE TABLE reliable_imports.import_sessions (
    session_sha256 bytea PRIMARY KEY,
    user_id        text NOT NULL,
    key_share      bytea,
    path           text,                            -- of a ticket: the only path that it opens
    expires_at     timestamptz NOT NULL
);
