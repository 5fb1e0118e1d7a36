-- Machines that banger keeps for itself, and the template that a machine's root
-- disk stands on, '' if on none.
ALTER TABLE machines ADD COLUMN purpose TEXT NOT NULL DEFAULT ''
	CHECK (purpose IN ('', 'template', 'pool'));
-- '' for machines that were made before there was this.
ALTER TABLE machines ADD COLUMN machine_id TEXT NOT NULL DEFAULT ''
	CHECK (machine_id = '' OR (length(machine_id) = 32 AND machine_id NOT GLOB '*[^0-9a-f]*'));
ALTER TABLE machines ADD COLUMN template TEXT NOT NULL DEFAULT ''
	CHECK (template = '' OR (length(template) = 32 AND template NOT GLOB '*[^0-9a-f]*'));
