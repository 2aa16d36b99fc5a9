-- Who may see which batch, as one rule for every statement; and the sessions of browsers.

-- Whether a rule lets somebody see the lineages whose root has this creator and metadata. `rules` is what the caller may see
-- by batch type, and of all other types: true, false, or {"created_by": …, "metadata": …}, of which each that is there has to
-- fit; metadata by containment. Whatever else a rule may be shows nothing. The same rule in Python: visibility.py. One
-- expression without FROM, so that it is inlined: a call for each batch would cost ten times as much.
CREATE FUNCTION reliable_imports.is_visible(rules jsonb, batch_type text, created_by text, metadata jsonb)
RETURNS boolean
LANGUAGE sql
IMMUTABLE PARALLEL SAFE
AS $$
SELECT CASE jsonb_typeof(coalesce($1 -> 'types' -> $2, $1 -> 'otherwise'))
            WHEN 'boolean' THEN coalesce($1 -> 'types' -> $2, $1 -> 'otherwise') = 'true'::jsonb
            WHEN 'object' THEN
                 coalesce((NOT coalesce($1 -> 'types' -> $2, $1 -> 'otherwise') ? 'created_by'
                           OR $3 = coalesce($1 -> 'types' -> $2, $1 -> 'otherwise') ->> 'created_by')
                          AND (NOT coalesce($1 -> 'types' -> $2, $1 -> 'otherwise') ? 'metadata'
                               OR $4 @> (coalesce($1 -> 'types' -> $2, $1 -> 'otherwise') -> 'metadata')), false)
            ELSE false
       END
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
