package agent

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"banger/internal/guest/wire"
)

// What a shell exits with when it cannot start a command.
const (
	codeNotExecutable = 126
	codeNotFound      = 127
)

// startError is why a command could not be started.
type startError struct {
	code int32
	err  error
}

func (e *startError) Error() string { return e.err.Error() }
func (e *startError) Unwrap() error { return e.err }

const (
	rootPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	userPath = "/usr/local/bin:/usr/bin:/bin"
)

// command returns what start asks for, with everything but its files.
func (s *Server) command(start *wire.ExecStart) (*exec.Cmd, error) {
	u, err := lookUpUser(s.o.Root, start.GetUser())
	if err != nil {
		return nil, err
	}
	dir, err := workingDir(start.GetCwd(), u.home)
	if err != nil {
		return nil, err
	}
	env := environment(u, s.identity.now().Env, start)
	path, err := findProgram(start.GetArgv()[0], dir, env["PATH"])
	if err != nil {
		return nil, err
	}
	cmd := &exec.Cmd{Path: path, Args: start.GetArgv(), Dir: dir, SysProcAttr: &syscall.SysProcAttr{}}
	for name, value := range env {
		cmd.Env = append(cmd.Env, name+"="+value)
	}
	slices.Sort(cmd.Env) // the same request, the same environment
	if os.Geteuid() == 0 || u.uid != uint32(os.Geteuid()) {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: u.uid, Gid: u.gid, Groups: u.groups}
	}
	return cmd, nil
}

// workingDir returns where a command starts: where it was asked to, which must
// exist, else in the home, else in "/".
func workingDir(cwd, home string) (string, error) {
	if cwd == "" {
		if fi, err := os.Stat(home); err != nil || !fi.IsDir() {
			return "/", nil
		}
		return home, nil
	}
	if !filepath.IsAbs(cwd) {
		cwd = filepath.Join(home, cwd)
	}
	fi, err := os.Stat(cwd)
	if err == nil && !fi.IsDir() {
		err = &fs.PathError{Op: "chdir", Path: cwd, Err: unix.ENOTDIR}
	}
	if err != nil {
		return "", &startError{codeNotExecutable, fmt.Errorf("change directory: %w", err)}
	}
	return cwd, nil
}

// environment is what the machine gives, over that what the user is, over that
// what the request says. PATH is the machine's if it names one.
func environment(u user, machine []string, start *wire.ExecStart) map[string]string {
	env := map[string]string{"PATH": userPath}
	if u.uid == 0 {
		env["PATH"] = rootPath
	}
	for _, nv := range machine {
		if name, value, ok := strings.Cut(nv, "="); ok && name != "" {
			env[name] = value
		}
	}
	env["HOME"], env["USER"], env["LOGNAME"], env["SHELL"] = u.home, u.name, u.name, u.shell
	if start.GetTty() != nil {
		env["TERM"] = "xterm"
		if term := start.GetTty().GetTerm(); term != "" {
			env["TERM"] = term
		}
	}
	for name, value := range start.GetEnv() {
		if name != "" && !strings.Contains(name, "=") {
			env[name] = value
		}
	}
	return env
}

// findProgram finds a program as execvp(3) does, but for its shell: by PATH if
// its name has no slash, else from dir.
func findProgram(name, dir, path string) (string, error) {
	if strings.Contains(name, "/") {
		p := name
		if !filepath.IsAbs(p) {
			p = filepath.Join(dir, p)
		}
		if err := executable(p); err != nil {
			return "", startFailure(name, err)
		}
		return p, nil
	}
	var denied error
	for _, d := range filepath.SplitList(path) {
		if !filepath.IsAbs(d) { // an empty one is the working directory
			d = filepath.Join(dir, d)
		}
		p := filepath.Join(d, name)
		err := executable(p)
		if err == nil && name != "" {
			return p, nil
		}
		if errors.Is(err, fs.ErrPermission) && denied == nil {
			denied = err
		}
	}
	if denied != nil {
		return "", startFailure(name, denied)
	}
	return "", &startError{codeNotFound, fmt.Errorf("%q: not found in PATH", name)}
}

func executable(path string) error {
	fi, err := os.Stat(path)
	switch {
	case err != nil:
		return err
	case fi.IsDir():
		return &fs.PathError{Op: "exec", Path: path, Err: unix.EISDIR}
	case fi.Mode()&0o111 == 0:
		return &fs.PathError{Op: "exec", Path: path, Err: unix.EACCES}
	}
	return nil
}

// startFailure gives the error of starting name its exit code.
func startFailure(name string, err error) error {
	code := int32(codeNotExecutable)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		code = codeNotFound
	}
	var pe *fs.PathError
	if errors.As(err, &pe) {
		err = pe.Err // the path says nothing that name does not
	}
	return &startError{code, fmt.Errorf("%q: %w", name, err)}
}
