package recipe

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"

	"banger/internal/image"
)

// statusFile is where dpkg keeps what is installed.
const statusFile = "/var/lib/dpkg/status"

// installed returns the packages that are installed in a tree, by name; none
// if dpkg was not used.
func (t tree) installed() ([]image.Package, error) {
	name, err := t.at(statusFile)
	if err != nil {
		return nil, err
	}
	f, err := t.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	pkgs, err := parseStatus(f)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", statusFile, err)
	}
	return pkgs, nil
}

func parseStatus(r io.Reader) ([]image.Package, error) {
	var pkgs []image.Package
	var p image.Package
	ok := false
	flush := func() {
		if ok && p.Name != "" && p.Version != "" {
			pkgs = append(pkgs, p)
		}
		p, ok = image.Package{}, false
	}
	sc := bufio.NewScanner(r)
	sc.Buffer(nil, 1<<20)
	for sc.Scan() {
		switch k, v, _ := strings.Cut(sc.Text(), ": "); k {
		case "":
			flush()
		case "Package":
			p.Name = v
		case "Version":
			p.Version = v
		case "Status":
			ok = strings.HasSuffix(v, " installed")
		}
	}
	flush()
	sortPackages(pkgs)
	return pkgs, sc.Err()
}

func sortPackages(pkgs []image.Package) {
	slices.SortFunc(pkgs, func(a, b image.Package) int { return strings.Compare(a.Name, b.Name) })
}
