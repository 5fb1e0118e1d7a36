package transfer

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// target is where a copy goes.
type target struct {
	root *os.Root // the directory in which what comes is to be
	path string   // of root, for messages
	name string   // of what comes; empty: what the copy's names say
}

// openTarget finds out what the path that a user gave means: an existing
// directory, or the name of what comes, in a directory that exists. Links in
// it are followed: the user names them. If several things come, or the path
// ends in a slash or a dot, it must be a directory.
func openTarget(path string, several bool) (target, error) {
	fi, err := os.Stat(path)
	switch {
	case err == nil && fi.IsDir():
		return openIn(path, "")
	case err == nil && several:
		return target{}, fail("write", path, unix.ENOTDIR)
	case err == nil:
		at, err := filepath.EvalSymlinks(path)
		if err != nil {
			return target{}, fail("write", path, err)
		}
		return openIn(split(at))
	case !errors.Is(err, fs.ErrNotExist) || several:
		return target{}, fail("write", path, err)
	}
	dir, name := split(path)
	if name == "" || name == "." || name == ".." {
		return target{}, fail("write", path, err)
	}
	if _, err := os.Lstat(path); err == nil {
		return target{}, fail("write", path, errDangling)
	}
	t, err := openIn(dir, name)
	if err != nil {
		return target{}, fail("write", path, err)
	}
	return t, nil
}

var errDangling = errors.New("it is a link that leads nowhere")

func openIn(dir, name string) (target, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return target{}, fail("write", dir, err)
	}
	if strings.Trim(dir, "/") != "" {
		dir = strings.TrimRight(dir, "/")
	}
	return target{root, dir, name}, nil
}

// split parts a path at its last slash. It does not look at what stands before
// it, for "a/.." need not be here.
func split(path string) (dir, name string) {
	i := strings.LastIndexByte(path, '/')
	switch i {
	case -1:
		return ".", path
	case 0:
		return "/", path[1:]
	}
	return path[:i], path[i+1:]
}
