package wire

import (
	"encoding/json"
	"errors"
	"fmt"
)

// BundlePath is where the boot bundle stands in the initramfs.
const BundlePath = "banger/bundle.json"

// MaxBundle is the size in bytes of the largest boot bundle that is read.
const MaxBundle = 1 << 20

// A Bundle tells the agent who its machine is. The daemon writes one for each
// machine, as a cpio archive of its own behind the initramfs.
type Bundle struct {
	Hostname  string   `json:"hostname"`
	MachineID string   `json:"machine_id"` // 32 hexadecimal digits (machine-id(5))
	Token     string   `json:"token"`      // greets the agent's port; 32 hexadecimal digits
	Root      Mount    `json:"root"`
	Mounts    []Mount  `json:"mounts,omitempty"` // made in this order
	Init      string   `json:"init,omitempty"`   // absolute; empty: the agent is PID 1
	Env       []string `json:"env,omitempty"`    // NAME=VALUE for what is executed, under the user's own

	NICs           []NIC             `json:"nics,omitempty"`
	Hosts          map[string]string `json:"hosts,omitempty"`     // name to address, beside the machine's own
	Resolvers      []string          `json:"resolvers,omitempty"` // none: resolv.conf is left alone
	AuthorizedKeys []string          `json:"authorized_keys,omitempty"`
	SSHHostKeys    map[string]string `json:"ssh_host_keys,omitempty"` // file name to content
}

// A Mount is a file system that a guest finds by the serial of its disk.
type Mount struct {
	Serial   string `json:"serial"`
	Target   string `json:"target,omitempty"` // absolute; root has none
	FSType   string `json:"fs_type"`
	ReadOnly bool   `json:"read_only,omitempty"`
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

// Encode returns b as it stands in the initramfs.
func (b Bundle) Encode() ([]byte, error) { return json.Marshal(b) }

// DecodeBundle reads what Encode wrote. It refuses a bundle that is too large
// or lacks what no machine can do without.
func DecodeBundle(data []byte) (Bundle, error) {
	var b Bundle
	if len(data) > MaxBundle {
		return b, fmt.Errorf("boot bundle of %d bytes is over %d", len(data), MaxBundle)
	}
	if err := json.Unmarshal(data, &b); err != nil {
		return b, fmt.Errorf("decode boot bundle: %w", err)
	}
	if b.Token == "" || b.Root.Serial == "" || b.Root.FSType == "" {
		return b, errors.New("boot bundle lacks a token or a root disk")
	}
	return b, nil
}
