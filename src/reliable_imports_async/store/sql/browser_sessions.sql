-- Sessions of browsers, and tickets for one path.

-- name: delete_expired_sessions
-- Deletes sessions and tickets that have expired.
DELETE FROM reliable_imports.import_sessions WHERE expires_at <= clock_timestamp();

-- name: insert_session
-- A session or a ticket that lasts for $5 seconds.
INSERT INTO reliable_imports.import_sessions (session_sha256, user_id, key_share, path, expires_at)
VALUES ($1, $2, $3, $4, clock_timestamp() + make_interval(secs => $5));

-- name: find_session
-- A session, or a ticket for the path $2, that has not expired.
SELECT user_id, key_share
  FROM reliable_imports.import_sessions
 WHERE session_sha256 = $1 AND path IS NOT DISTINCT FROM $2 AND expires_at > clock_timestamp();

-- name: delete_session
-- A user signs out.
DELETE FROM reliable_imports.import_sessions WHERE session_sha256 = $1;
