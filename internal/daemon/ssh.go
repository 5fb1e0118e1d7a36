package daemon

import "banger/internal/sshkey"

// sshComment names the key that machines let in where keys are listed.
const sshComment = "banger"

// groupsKeyUID owns what is the group's alone to read. No user has this number:
// it is beyond those that VMMs run as (see [config.Paths.UIDBase]). Nobody
// (65534) would not do, for services run as nobody, and an owner may change the
// mode of what is theirs.
const groupsKeyUID = 0x78000000

// keyAccess lets o use the private key that machines let in. OpenSSH refuses a
// key that belongs to the calling user, root included, and that others may
// read, but takes one that belongs to somebody else: so the group's key belongs
// to no member of it.
func (o owner) keyAccess() sshkey.Access {
	if o.isGroup {
		return sshkey.Access{UID: groupsKeyUID, GID: o.gid, Mode: 0o040}
	}
	return sshkey.Access{UID: o.uid, GID: o.gid, Mode: 0o600}
}

// sshKeys returns the public keys that machines let in: there is one, whose
// private half o may read. It is made at the daemon's first start.
func (d *Daemon) sshKeys(o owner) ([]string, error) {
	path := d.o.Paths.SSHIdentity()
	key, fresh, err := sshkey.Identity(path, sshComment, o.keyAccess())
	if err != nil {
		return nil, err
	}
	if fresh {
		d.o.Log.Info("made an SSH key, which machines let in from their next start on", "path", path)
	}
	return []string{key.Public(sshComment)}, nil
}
