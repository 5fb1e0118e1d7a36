package wire

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// BundlePath is where the boot bundle stands in the initramfs.
const BundlePath = "banger/bundle.json"

// MaxBundle is the size in bytes of the largest boot bundle that is read.
const MaxBundle = 1 << 20

// A Bundle tells the agent who its machine is. The daemon writes one for each
// machine, as a cpio archive of its own behind the initramfs. A machine that
// goes on from a template gets its own by Identify.
type Bundle struct {
	// Template: the guest will be frozen, and go on as many machines. It
	// leaves its interfaces down and serves nobody until Identify. Its name, machine-id and token are but its own;
	// it has no keys and no addresses, which all those machines would share.
	Template bool `json:"template,omitempty"`

	Hostname  string   `json:"hostname"`         // a DNS label
	MachineID string   `json:"machine_id"`       // 32 hexadecimal digits (machine-id(5))
	Token     string   `json:"token"`            // greets the agent's port; 32 hexadecimal digits
	Root      Mount    `json:"root"`             // writable; made as large as its disk
	Mounts    []Mount  `json:"mounts,omitempty"` // made in this order
	Init      string   `json:"init,omitempty"`   // absolute; empty: the agent is PID 1
	Env       []string `json:"env,omitempty"`    // NAME=VALUE for what is executed, under the user's own

	VsockPort   uint32 `json:"vsock_port,omitempty"`    // where the agent listens, for the host alone; 0: it serves the virtio-serial port
	EndByReboot bool   `json:"end_by_reboot,omitempty"` // only a reboot ends the VMM: a power-off becomes one

	NICs           []NIC             `json:"nics,omitempty"`
	Hosts          map[string]string `json:"hosts,omitempty"`     // name to address, beside the machine's own
	Resolvers      []string          `json:"resolvers,omitempty"` // none: resolv.conf is left alone
	AuthorizedKeys []string          `json:"authorized_keys,omitempty"`
	SSHHostKeys    map[string]string `json:"ssh_host_keys,omitempty"` // file name to content
}

// A Mount is a file system that a guest finds by the serial of its disk, or by
// the disk's place where the VMM gives disks no serials of ours.
type Mount struct {
	Serial   string `json:"serial"`             // at most 20 bytes (virtio specification, section 5.2)
	Position int    `json:"position,omitempty"` // among all disks, from 1 on; 0: found by serial
	Target   string `json:"target,omitempty"`   // absolute; root has none
	FSType   string `json:"fs_type"`
	ReadOnly bool   `json:"read_only,omitempty"`
	// SizeBytes is how large the disk is, 0 if that is not told. Identify waits
	// for it where it is not the template's: behind the device of a template's
	// disk comes another one.
	SizeBytes int64 `json:"size_bytes,omitempty"`
	// Fill: at its first mount the file system is filled with what the image
	// has at Target, and made as large as its disk.
	Fill bool `json:"fill,omitempty"`
}

// NIC is one network interface, found by its address.
type NIC struct {
	MAC     string   `json:"mac"`
	Addrs   []string `json:"addrs,omitempty"` // with prefix length
	Gateway string   `json:"gateway,omitempty"`
}

// Encode returns b as it stands in the initramfs. It refuses a bundle that
// DecodeBundle would refuse, so that a mistake shows on the host and not as a
// guest that does not boot.
func (b Bundle) Encode() ([]byte, error) {
	if err := b.check(); err != nil {
		return nil, err
	}
	data, err := json.Marshal(b)
	if err != nil {
		return nil, fmt.Errorf("encode boot bundle: %w", err)
	}
	if len(data) > MaxBundle {
		return nil, fmt.Errorf("boot bundle of %d bytes is over %d", len(data), MaxBundle)
	}
	return data, nil
}

// DecodeBundle reads what Encode wrote. It refuses a bundle that is too large,
// that holds a field it does not know (an agent older than its daemon would
// leave something undone), that lacks what no machine can do without, or in
// which a value could not stand in the file that it is meant for.
func DecodeBundle(data []byte) (Bundle, error) {
	var b Bundle
	if len(data) > MaxBundle {
		return Bundle{}, fmt.Errorf("boot bundle of %d bytes is over %d", len(data), MaxBundle)
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&b); err != nil {
		return Bundle{}, fmt.Errorf("decode boot bundle: %w", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return Bundle{}, errors.New("decode boot bundle: data after its end")
	}
	if err := b.check(); err != nil {
		return Bundle{}, err
	}
	return b, nil
}
