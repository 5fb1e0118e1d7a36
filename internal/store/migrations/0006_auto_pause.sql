-- How long nobody has to use a machine for it to be paused, in nanoseconds; 0:
-- it never is by itself.
ALTER TABLE machines ADD COLUMN auto_pause INTEGER NOT NULL DEFAULT 0
	CHECK (auto_pause = 0 OR auto_pause >= 1000000000);
