package filestore

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

const (
	manifestName = "manifest.json"
	maxManifest  = 4 << 20 // bytes
)

// File is a file of a version and what it was when it was made.
type File struct {
	Name      string `json:"name"` // relative to the version's directory
	SizeBytes int64  `json:"size_bytes"`
}

// Files returns the files of a version being made, in the order of their
// names.
func (g *Stage) Files() ([]File, error) {
	var files []File
	err := filepath.WalkDir(g.Dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		fi, err := d.Info()
		if err != nil {
			return err
		}
		name, err := filepath.Rel(g.Dir, path)
		files = append(files, File{name, fi.Size()})
		return err
	})
	return files, err
}

// WriteManifest writes what is known of a version being made into it.
func (g *Stage) WriteManifest(v any) error {
	data, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fmt.Errorf("encode manifest: %w", err)
	}
	return os.WriteFile(filepath.Join(g.Dir, manifestName), append(data, '\n'), 0o644)
}

// ReadManifest reads what WriteManifest wrote into v. An error names the file.
func (s *Store) ReadManifest(name, id string, v any) error {
	path := filepath.Join(s.Dir(name, id), manifestName)
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxManifest+1))
	if err != nil {
		return err
	}
	if len(data) > maxManifest {
		return fmt.Errorf("%s is over %d bytes", path, maxManifest)
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	if err := dec.Decode(v); err != nil {
		return fmt.Errorf("%s is damaged: %w", path, err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return fmt.Errorf("%s is damaged: it goes on after its end", path)
	}
	return nil
}

// CheckFiles returns an error that names the first file of a version that is
// not there or not as large as it was.
func (s *Store) CheckFiles(name, id string, files []File) error {
	for _, f := range files {
		if !filepath.IsLocal(f.Name) {
			return fmt.Errorf("%s names a file outside: %q", filepath.Join(s.Dir(name, id), manifestName), f.Name)
		}
		path := filepath.Join(s.Dir(name, id), f.Name)
		fi, err := os.Lstat(path)
		if err != nil {
			return err
		}
		if !fi.Mode().IsRegular() || fi.Size() != f.SizeBytes {
			return fmt.Errorf("%s is damaged: it has %d bytes, it had %d", path, fi.Size(), f.SizeBytes)
		}
	}
	return nil
}
