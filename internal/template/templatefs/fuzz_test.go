package templatefs

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"banger/internal/template"
)

// Whatever a record says, reading it ends: in a record that makes sense and is
// written as it was read, or in a damaged template that says why.
func FuzzRecord(f *testing.F) {
	l := open(f, f.TempDir())
	x := publish(f, l, "debian")
	good, err := os.ReadFile(manifestOf(x))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte(fmt.Sprintf(`{"format":%d,`, template.Format) + `"id":"` + x.ID + `","files":[{"name":"ram","size_bytes":-1},null,{}]}`))
	f.Add([]byte(`{"format":3}`))
	f.Add([]byte(`null`))
	version := filepath.Base(x.Dir)
	f.Fuzz(func(t *testing.T, data []byte) {
		write(string(data))(t, x)
		got, err := l.Get(context.Background(), x.ID)
		if err != nil || got.ID != x.ID || got.Dir != x.Dir || len(got.Damaged) > 500 {
			t.Fatalf("Get = %+v, %v", got, err)
		}
		r, err := l.read(x.ID, version)
		if err != nil {
			if got.Damaged == "" {
				t.Fatalf("Get finds nothing wrong with %v", err)
			}
			return
		}
		if template.Key(r.Key) != x.Key {
			t.Fatalf("key %+v has the ID of %+v", r.Key, x.Key)
		}
		again, err := json.Marshal(r)
		if err != nil {
			t.Fatalf("Marshal of what was read: %v", err)
		}
		write(string(again))(t, x)
		if r2, err := l.read(x.ID, version); err != nil || !reflect.DeepEqual(r2, r) {
			t.Fatalf("read = %+v, %v, was %+v", r2, err, r)
		}
	})
}
