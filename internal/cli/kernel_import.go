package cli

import (
	"archive/tar"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"

	"github.com/spf13/cobra"

	"banger/internal/api"
)

const importHelp = `Take over a kernel of your own: a bzImage or an ELF vmlinux, for x86-64.

Its modules come from a directory such as /lib/modules/6.1.0-9-amd64, or from a
tar of lib/modules/VERSION. Without them everything that a machine needs must be
built in.`

const importExamples = `  banger kernel import mine /boot/vmlinuz-6.1.0 --modules /lib/modules/6.1.0
  banger kernel import tiny ./arch/x86/boot/bzImage`

func (a *app) kernelImport() *cobra.Command {
	var modules string
	c := &cobra.Command{
		Use:     "import [flags] NAME FILE",
		Short:   "Take over a kernel of your own",
		Long:    importHelp,
		Example: importExamples,
		Args:    exactly(2, "a name and a file"),
		RunE: func(c *cobra.Command, args []string) error {
			k, err := a.importKernel(c.Context(), args[0], args[1], modules)
			if err != nil {
				return cannot("import kernel "+args[0], err)
			}
			return a.printKernel(k)
		},
	}
	c.Flags().StringVar(&modules, "modules", "", "its modules: `DIR` or a tar")
	return c
}

func (a *app) importKernel(ctx context.Context, name, file, modules string) (*api.Kernel, error) {
	// Opened before anything is sent: a mistyped name costs nothing.
	image, err := openFile(file)
	if err != nil {
		return nil, err
	}
	defer image.Close()
	var mods io.ReadCloser = io.NopCloser(eof{})
	if modules != "" {
		if mods, err = openModules(modules); err != nil {
			return nil, err
		}
	}
	defer mods.Close()
	ctx, cancel := a.limit(ctx)
	defer cancel()
	p := a.progress()
	defer p.stop()
	c, err := a.connect(ctx, p)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	p.stage("import kernel " + name)
	stream := c.Kernel.ImportKernel(ctx)
	err = stream.Send(&api.ImportKernelRequest{Msg: &api.ImportKernelRequest_Name{Name: name}})
	if err == nil {
		err = sendAll(image, func(b []byte) error {
			return stream.Send(&api.ImportKernelRequest{Msg: &api.ImportKernelRequest_Image{Image: b}})
		})
	}
	if err == nil {
		err = sendAll(mods, func(b []byte) error {
			return stream.Send(&api.ImportKernelRequest{Msg: &api.ImportKernelRequest_Modules{Modules: b}})
		})
	}
	// A stream that the daemon ended tells why below; what could not be read
	// here is an error of ours, and must not look like the end.
	var re *readError
	if errors.As(err, &re) {
		return nil, re.err
	}
	resp, err := stream.CloseAndReceive()
	if err != nil {
		return nil, err
	}
	return resp.Msg.Kernel, nil
}

type eof struct{}

func (eof) Read([]byte) (int, error) { return 0, io.EOF }

// readError is one of what we read, not of the stream that it is sent to.
type readError struct{ err error }

func (e *readError) Error() string { return e.err.Error() }

func sendAll(r io.Reader, send func([]byte) error) error {
	buf := make([]byte, chunk)
	for {
		n, err := r.Read(buf)
		if n > 0 {
			if err := send(buf[:n]); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return &readError{err}
		}
	}
}

// openFile opens a regular file.
func openFile(name string) (*os.File, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, usage("%w", err)
	}
	fi, err := f.Stat()
	if err == nil && !fi.Mode().IsRegular() {
		err = errors.New(name + " is no file")
	}
	if err != nil {
		f.Close()
		return nil, usage("%w", err)
	}
	return f, nil
}

// openModules returns a tar of a kernel's modules.
func openModules(name string) (io.ReadCloser, error) {
	fi, err := os.Stat(name)
	if err != nil {
		return nil, usage("%w", err)
	}
	if !fi.IsDir() {
		return openFile(name)
	}
	dir, err := filepath.Abs(name)
	if err == nil {
		dir, err = filepath.EvalSymlinks(dir)
	}
	if err != nil {
		return nil, usage("%w", err)
	}
	r, w := io.Pipe()
	go func() { w.CloseWithError(writeModules(w, dir)) }()
	return r, nil
}

// writeModules writes what is in dir as lib/modules/VERSION, dir's own name:
// files and directories. Links, which lead to the kernel's sources, are left
// out.
func writeModules(w io.Writer, dir string) error {
	t := tar.NewWriter(w)
	prefix := path.Join("lib/modules", filepath.Base(dir))
	err := filepath.WalkDir(dir, func(file string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() && !d.Type().IsRegular() {
			return err
		}
		rel, err := filepath.Rel(dir, file)
		if err != nil {
			return err
		}
		fi, err := d.Info()
		if err != nil {
			return err
		}
		h, err := tar.FileInfoHeader(fi, "")
		if err != nil {
			return err
		}
		h.Name = path.Join(prefix, filepath.ToSlash(rel))
		h.Uid, h.Gid, h.Uname, h.Gname = 0, 0, "", ""
		if d.IsDir() {
			h.Name += "/"
		}
		if err := t.WriteHeader(h); err != nil || d.IsDir() {
			return err
		}
		f, err := os.Open(file)
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = io.Copy(t, f)
		return err
	})
	if err != nil {
		return err
	}
	return t.Close()
}
