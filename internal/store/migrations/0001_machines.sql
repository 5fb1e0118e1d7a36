-- Machines: vm.VM, one row each. Times are nanoseconds since 1970 in UTC.
CREATE TABLE machines (
	id           TEXT    NOT NULL PRIMARY KEY
	             CHECK (length(id) = 8 AND id NOT GLOB '*[^0-9a-f]*'),
	name         TEXT    NOT NULL UNIQUE
	             CHECK (length(name) BETWEEN 1 AND 63 AND name NOT GLOB '*[^0-9a-z-]*'),
	image        TEXT    NOT NULL,
	image_id     TEXT    NOT NULL, -- '' until the root disk is made
	kernel       TEXT    NOT NULL,
	driver       TEXT    NOT NULL,
	vcpus        INTEGER NOT NULL CHECK (vcpus >= 1),
	memory_bytes INTEGER NOT NULL CHECK (memory_bytes >= 1),
	disk_bytes   INTEGER NOT NULL CHECK (disk_bytes >= 1),
	labels       TEXT    NOT NULL CHECK (json_type(labels) = 'object'),
	ephemeral    INTEGER NOT NULL CHECK (ephemeral IN (0, 1)),
	state        TEXT    NOT NULL CHECK (state IN (
	             'created', 'starting', 'running', 'paused',
	             'stopping', 'stopped', 'deleting', 'faulty')),
	state_reason TEXT    NOT NULL,
	last_error   TEXT    NOT NULL,
	guest_ip     TEXT    NOT NULL, -- '' without a network
	uid          INTEGER NOT NULL UNIQUE CHECK (uid BETWEEN 1 AND 4294967294),
	vsock_cid    INTEGER NOT NULL UNIQUE CHECK (vsock_cid BETWEEN 3 AND 4294967294),
	token        TEXT    NOT NULL,
	created_at   INTEGER NOT NULL,
	started_at   INTEGER -- NULL if never started
) STRICT;
