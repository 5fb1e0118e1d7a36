package templatefs

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"banger/internal/filestore"
	"banger/internal/template"
)

// names are the files of a template, in the order in which a record has them.
var names = []string{template.RAMName, template.StateName, template.RootName, template.WorkName}

const (
	idDigits    = 32 // of a template's ID, its version and its token
	maxBootID   = 64
	bootIDChars = "0123456789abcdefABCDEF-"
)

// record is what is stored of a template.
type record struct {
	Format    int       `json:"format"`
	ID        string    `json:"id"`
	Key       key       `json:"key"`
	Token     string    `json:"token"`
	BootID    string    `json:"boot_id"`
	CreatedAt time.Time `json:"created_at"`
	Files     []file    `json:"files"`
}

// key is [template.Key] as it is stored.
type key struct {
	Image       string `json:"image"`
	ImageID     string `json:"image_id"`
	Kernel      string `json:"kernel"`
	KernelID    string `json:"kernel_id"`
	Agent       string `json:"agent"`
	Driver      string `json:"driver"`
	VMM         string `json:"vmm"`
	CPU         string `json:"cpu"`
	VCPUs       int    `json:"vcpus"`
	MemoryBytes int64  `json:"memory_bytes"`
	RootBytes   int64  `json:"root_bytes"`
	WorkBytes   int64  `json:"work_bytes"`
	Network     bool   `json:"network"`
}

// file is a file of a template as it was published.
type file struct {
	filestore.File
	Sum string `json:"sum"` // as by sum
}

// read returns the record of a template. An error that is none of the system's
// says what makes no sense.
func (l *Library) read(id, version string) (record, error) {
	var r record
	err := l.store.ReadManifest(id, version, &r)
	if err == nil {
		err = r.check(id, version)
	}
	if err != nil {
		return record{}, err
	}
	r.CreatedAt = r.CreatedAt.UTC()
	return r, nil
}

// check returns an error if a record is not that of a version of a template.
func (r record) check(id, version string) error {
	if r.Format != template.Format {
		return fmt.Errorf("its record is of format %d, not %d", r.Format, template.Format)
	}
	if err := template.Key(r.Key).Check(); err != nil {
		return err
	}
	if r.ID != id || template.Key(r.Key).ID() != id {
		return fmt.Errorf("its record is that of another")
	}
	if err := checkGuest(r.Token, r.BootID); err != nil {
		return err
	}
	if y := r.CreatedAt.UTC().Year(); y < 1970 || y > 9999 {
		return fmt.Errorf("its record has it made in the year %d", y)
	}
	if len(r.Files) != len(names) {
		return fmt.Errorf("its record has %d files, not %d", len(r.Files), len(names))
	}
	for i, f := range r.Files {
		if f.Name != names[i] {
			return fmt.Errorf("its record has no %s", names[i])
		}
	}
	if r.version() != version {
		return fmt.Errorf("its record is that of another of its key")
	}
	return nil
}

// checkGuest returns an error if what is known of a frozen guest cannot be.
func checkGuest(token, bootID string) error {
	if !isHex(token, idDigits) {
		return fmt.Errorf("its token is not %d hexadecimal digits", idDigits)
	}
	if bootID == "" || len(bootID) > maxBootID || strings.Trim(bootID, bootIDChars) != "" {
		return fmt.Errorf("its boot's id is none")
	}
	return nil
}

// version names the content of a template; so it also vouches for the sums.
func (r record) version() string {
	h := sha256.New()
	for _, f := range r.Files {
		fmt.Fprintf(h, "%s %s\n", f.Name, f.Sum)
	}
	return hex.EncodeToString(h.Sum(nil))[:idDigits]
}

// template is what the record says of a template in dir.
func (r record) template(dir string) template.Template {
	return template.Template{ID: r.ID, Key: template.Key(r.Key), Token: r.Token, BootID: r.BootID, CreatedAt: r.CreatedAt, Dir: dir}
}

func (r record) files() []filestore.File {
	var files []filestore.File
	for _, f := range r.Files {
		files = append(files, f.File)
	}
	return files
}

// compare returns an error unless those of the files in dir that have one of the
// names have the content that they had.
func (r record) compare(ctx context.Context, dir string, which []string) error {
	for _, want := range r.Files {
		if !slices.Contains(which, want.Name) {
			continue
		}
		path := filepath.Join(dir, want.Name)
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		got, err := sum(ctx, f)
		f.Close()
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		if got != want.Sum {
			return fmt.Errorf("%s is damaged: its content is not what it was", path)
		}
	}
	return nil
}

// isHex reports whether s is n lower case hexadecimal digits.
func isHex(s string, n int) bool { return len(s) == n && strings.Trim(s, "0123456789abcdef") == "" }
