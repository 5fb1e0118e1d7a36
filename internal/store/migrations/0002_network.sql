-- The network: one subnet, and an address in it for each machine that has one.
ALTER TABLE machines ADD COLUMN network TEXT NOT NULL DEFAULT 'nat'
	CHECK (network IN ('nat', 'none'));
CREATE UNIQUE INDEX machines_guest_ip ON machines (guest_ip) WHERE guest_ip <> '';
CREATE TABLE network (
	id        INTEGER NOT NULL PRIMARY KEY CHECK (id = 1), -- one row
	subnet    TEXT    NOT NULL, -- as in 10.64.0.0/22
	last_host INTEGER NOT NULL  -- part of the address that was given out last
) STRICT;
