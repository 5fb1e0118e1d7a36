package template

import (
	"reflect"
	"strings"
	"testing"
)

func aKey() Key {
	return Key{
		Image: "debian", ImageID: "0a", Kernel: "debian-cloud", KernelID: "0b", Agent: "0c", Driver: "qemu",
		VMM: "QEMU 7.2.0", CPU: "a model\nwith flags", VCPUs: 2, MemoryBytes: 512 << 20, RootBytes: 16 << 30, WorkBytes: 8 << 30, Network: true,
	}
}

// The ID of a key never changes but with Format: templates made by an earlier
// build are found.
func TestIDIsFixed(t *testing.T) {
	if got, want := aKey().ID(), "25b985023ce710cbbc1b448829269bbb"; got != want {
		t.Errorf("ID = %s, want %s", got, want)
	}
}

// Every field matters, each for itself.
func TestIDChangesWithEachField(t *testing.T) {
	seen := map[string]string{aKey().ID(): "nothing"}
	for i := range reflect.TypeFor[Key]().NumField() {
		k := aKey()
		name := reflect.TypeFor[Key]().Field(i).Name
		switch f := reflect.ValueOf(&k).Elem().Field(i); f.Kind() {
		case reflect.String:
			f.SetString("other")
		case reflect.Int, reflect.Int64:
			f.SetInt(7)
		case reflect.Bool:
			f.SetBool(!f.Bool())
		default:
			t.Fatalf("%s is a %v: how does it change?", name, f.Kind())
		}
		if other, ok := seen[k.ID()]; ok {
			t.Errorf("a change of %s gives the ID of a change of %s", name, other)
		}
		seen[k.ID()] = name
	}
}

// What stands at the end of one text is not taken for the beginning of the next.
func TestIDIsUnambiguous(t *testing.T) {
	for _, pair := range [][2]Key{
		{{Image: "ab", ImageID: "c"}, {Image: "a", ImageID: "bc"}},
		{{Image: "a\nimage_id 1:b", ImageID: "c"}, {Image: "a", ImageID: "b\nimage_id 1:c"}},
		{{VCPUs: 1, MemoryBytes: 12}, {VCPUs: 11, MemoryBytes: 2}},
		{{CPU: "\xff"}, {CPU: "\ufffd"}},
	} {
		if pair[0].ID() == pair[1].ID() {
			t.Errorf("%+v and %+v have one ID", pair[0], pair[1])
		}
	}
	if id := (Key{}).ID(); len(id) != 32 || strings.Trim(id, "0123456789abcdef") != "" {
		t.Errorf("ID = %q, want 32 hexadecimal digits", id)
	}
}

func TestKeyCheck(t *testing.T) {
	if err := aKey().Check(); err != nil {
		t.Errorf("Check = %v", err)
	}
	for i := range reflect.TypeFor[Key]().NumField() {
		k := aKey()
		f := reflect.ValueOf(&k).Elem().Field(i)
		f.SetZero()
		if err := k.Check(); (err == nil) != (f.Kind() == reflect.Bool) {
			t.Errorf("without %s: Check = %v", reflect.TypeFor[Key]().Field(i).Name, err)
		}
	}
	for _, cpu := range []string{"\xff", strings.Repeat("x", maxText+1)} {
		k := aKey()
		k.CPU = cpu
		if err := k.Check(); err == nil {
			t.Errorf("Check of CPU %.10q = nil", cpu)
		}
	}
}

// What is not known has no path, rather than one that begins nowhere.
func TestPaths(t *testing.T) {
	for _, tt := range []struct{ dir, ram, state, root, work string }{
		{"/t", "/t/ram", "/t/state", "/t/root", "/t/work"},
		{"", "", "", "", ""},
	} {
		x := Template{Dir: tt.dir}
		if x.RAM() != tt.ram || x.State() != tt.state || x.Root() != tt.root || x.Work() != tt.work {
			t.Errorf("in %q: %q, %q, %q, %q", tt.dir, x.RAM(), x.State(), x.Root(), x.Work())
		}
	}
}
