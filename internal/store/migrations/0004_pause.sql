-- Whether a paused machine is to stay so, however much room there is.
ALTER TABLE machines ADD COLUMN held INTEGER NOT NULL DEFAULT 0
	CHECK (held = 0 OR (held = 1 AND state = 'paused'));
