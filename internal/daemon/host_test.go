package daemon

import (
	"os"
	"path/filepath"
	"testing"
)

// What varies from one reading to the next, or from boot to boot, is left out.
func TestReadCPU(t *testing.T) {
	const cpu = "processor\t: 0\nvendor_id\t: AuthenticAMD\nmodel\t\t: 1\nmodel name\t: AMD EPYC: a model\n" +
		"microcode\t: 0x1000065\ncpu MHz\t\t: 2199.998\nflags\t\t: fpu vme\nbogomips\t: 4399.99\n\nprocessor\t: 1\nflags\t\t: none\n"
	path := filepath.Join(t.TempDir(), "cpuinfo")
	for _, tt := range []struct{ text, want string }{
		{cpu, "vendor_id: AuthenticAMD\nmodel: 1\nmodel name: AMD EPYC: a model\nflags: fpu vme"},
		{"processor: 0\n", ""},
		{"", ""},
	} {
		if err := os.WriteFile(path, []byte(tt.text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := readCPU(path); got != tt.want || (err != nil) != (tt.want == "") {
			t.Errorf("readCPU of %q = %q, %v", tt.text, got, err)
		}
	}
}
