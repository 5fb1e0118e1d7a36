-- Sessions: session.Session, one row each, gone with their machine. Times are
-- nanoseconds since 1970 in UTC.
CREATE TABLE sessions (
	id              TEXT    NOT NULL PRIMARY KEY
	                CHECK (length(id) = 32 AND id NOT GLOB '*[^0-9a-f]*'),
	machine         TEXT    NOT NULL REFERENCES machines (id) ON DELETE CASCADE,
	name            TEXT    NOT NULL
	                CHECK (length(name) BETWEEN 1 AND 63 AND name NOT GLOB '*[^0-9a-z-]*'),
	command         TEXT    NOT NULL CHECK (command <> ''),
	args            TEXT    NOT NULL CHECK (json_type(args) = 'array'),
	dir             TEXT    NOT NULL, -- '' for the user's home
	env             TEXT    NOT NULL CHECK (json_type(env) = 'object'),
	user            TEXT    NOT NULL,
	stdin           TEXT    NOT NULL CHECK (stdin IN ('closed', 'pipe', 'pty')),
	tags            TEXT    NOT NULL CHECK (json_type(tags) = 'array'),
	required        TEXT    NOT NULL CHECK (json_type(required) = 'array'),
	log_limit_bytes INTEGER NOT NULL CHECK (log_limit_bytes >= 1),
	status          TEXT    NOT NULL CHECK (status IN (
	                'starting', 'running', 'stopping', 'exited', 'failed')),
	guest_pid       INTEGER NOT NULL, -- 0 unless it runs
	exit_code       INTEGER NOT NULL, -- 0 unless it exited
	exit_signal     TEXT    NOT NULL,
	failed_stage    TEXT    NOT NULL,
	failed_message  TEXT    NOT NULL,
	last_error      TEXT    NOT NULL,
	created_at      INTEGER NOT NULL,
	started_at      INTEGER, -- NULL if it is not known to have started
	ended_at        INTEGER, -- NULL if it is not known to have ended
	UNIQUE (machine, name)
) STRICT;
