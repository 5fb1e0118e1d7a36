package handle

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"banger/internal/vm"
)

// maxFile is the size of the largest handles.json that is read, in bytes. A
// real one has a few hundred.
const maxFile = 64 << 10

// maxText is the length of the longest text in a handle, in bytes.
const maxText = 4096

// Handle tells how to find what a machine has on the host. The zero value
// says that nothing is known. What is empty is left out of the JSON form.
type Handle struct {
	VMID   vm.ID  `json:"vm_id"`   // whose handle it is
	BootID string `json:"boot_id"` // of the boot of the host in which it holds

	PID           int    `json:"pid,omitempty"`            // of the VMM; 0: not known
	StartTime     uint64 `json:"start_time,omitempty"`     // of PID, as vmm.Process.StartTime
	Driver        string `json:"driver,omitempty"`         // that started the VMM
	DriverVersion string `json:"driver_version,omitempty"` // of the VMM itself

	VsockCID uint32 `json:"vsock_cid,omitempty"` // of the guest on the host's vsock; 0: none there, or not known

	TapDevice string `json:"tap_device,omitempty"` // name of the link
	BaseLoop  string `json:"base_loop,omitempty"`  // "/dev/loop3"
	CowLoop   string `json:"cow_loop,omitempty"`
	DMName    string `json:"dm_name,omitempty"`
	DMDev     string `json:"dm_dev,omitempty"` // "/dev/mapper/…"

	// OtherBoot is set by [Cache.Load] alone, in an otherwise zero handle:
	// the file told of a boot of the host that has ended, and with it every
	// process.
	OtherBoot bool `json:"-"`
}

// errOtherBoot says that a handle is of a boot of the host that has ended.
var errOtherBoot = errors.New("it is of another boot of the host")

// encode returns h as it stands in a file.
func encode(h Handle) ([]byte, error) {
	data, err := json.MarshalIndent(h, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encode handles: %w", err)
	}
	return append(data, '\n'), nil
}

// decode returns the handle in data, or why it cannot be used for machine id
// in this boot of the host. Fields that a later banger wrote are left out.
func decode(data []byte, id vm.ID, bootID string) (Handle, error) {
	var h Handle
	d := json.NewDecoder(bytes.NewReader(data))
	if err := d.Decode(&h); err != nil {
		return Handle{}, fmt.Errorf("it is no JSON: %w", err)
	}
	if _, err := d.Token(); err != io.EOF {
		return Handle{}, errors.New("something follows the JSON")
	}
	switch {
	case h.VMID != id:
		return Handle{}, fmt.Errorf("it is of machine %.40q", h.VMID)
	case h.BootID != bootID:
		return Handle{}, errOtherBoot
	}
	return h, h.check()
}

// check refuses what no driver ever wrote.
func (h Handle) check() error {
	if h.PID < 0 {
		return fmt.Errorf("pid %d is none", h.PID)
	}
	for _, s := range []string{h.Driver, h.DriverVersion, h.TapDevice, h.BaseLoop, h.CowLoop, h.DMName, h.DMDev} {
		if len(s) > maxText || strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f }) {
			return fmt.Errorf("%.40q is no name", s)
		}
	}
	return nil
}
