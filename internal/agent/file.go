package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"connectrpc.com/connect"
	"golang.org/x/sys/unix"

	"banger/internal/atomicfile"
	"banger/internal/guest/wire"
)

// WriteFile implements the method of the protocol. The file is written beside
// its place and renamed when all of it is on the disk; a stream that breaks
// leaves nothing.
func (s service) WriteFile(_ context.Context, st *connect.ClientStream[wire.WriteFileRequest]) (*connect.Response[wire.WriteFileResponse], error) {
	if !st.Receive() {
		return nil, orInvalid(st.Err(), "file without a path")
	}
	meta := st.Msg().GetMeta()
	if meta.GetPath() == "" {
		return nil, connect.NewError(connect.CodeInvalidArgument, errors.New("file without a path"))
	}
	path, err := s.path(meta.GetPath())
	if err != nil {
		return nil, fileError(err)
	}
	n, err := writeStaged(path, os.FileMode(meta.GetMode()&0o777), func(w io.Writer) (int64, error) {
		return receiveData(st, w)
	})
	if err != nil {
		return nil, fileError(err)
	}
	return connect.NewResponse(&wire.WriteFileResponse{BytesWritten: n}), nil
}

func receiveData(st *connect.ClientStream[wire.WriteFileRequest], w io.Writer) (total int64, err error) {
	for st.Receive() {
		data, ok := st.Msg().GetMsg().(*wire.WriteFileRequest_Data)
		if !ok {
			return total, connect.NewError(connect.CodeInvalidArgument, errors.New("file with two paths"))
		}
		n, err := w.Write(data.Data)
		total += int64(n)
		if err != nil {
			return total, err
		}
	}
	return total, st.Err()
}

// writeStaged makes path hold what write writes, whole or not at all. A link
// at path stays, and what it leads to is written.
func writeStaged(path string, perm os.FileMode, write func(io.Writer) (int64, error)) (n int64, err error) {
	if at, err := filepath.EvalSymlinks(path); err == nil {
		path = at
	}
	if fi, err := os.Stat(path); err == nil && fi.IsDir() {
		return 0, &fs.PathError{Op: "write", Path: path, Err: unix.EISDIR}
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".banger-*.tmp")
	if err != nil {
		return 0, err
	}
	defer func() {
		if err != nil {
			f.Close() // closed already on some paths; the first error counts
			os.Remove(f.Name())
		}
	}()
	if n, err = write(f); err != nil {
		return n, err
	}
	if err := f.Chmod(perm); err != nil {
		return n, err
	}
	if err := f.Sync(); err != nil {
		return n, err
	}
	if err := f.Close(); err != nil {
		return n, err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return n, err
	}
	return n, atomicfile.SyncDir(filepath.Dir(path))
}

// ReadFile implements the method of the protocol.
func (s service) ReadFile(_ context.Context, req *connect.Request[wire.ReadFileRequest], st *connect.ServerStream[wire.ReadFileResponse]) error {
	if req.Msg.GetPath() == "" {
		return connect.NewError(connect.CodeInvalidArgument, errors.New("file without a path"))
	}
	path, err := s.path(req.Msg.GetPath())
	if err != nil {
		return fileError(err)
	}
	f, err := openRegular(path)
	if err != nil {
		return fileError(err)
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return fileError(err)
	}
	info := &wire.FileInfo{SizeBytes: fi.Size(), Mode: uint32(fi.Mode().Perm())}
	if err := st.Send(&wire.ReadFileResponse{Msg: &wire.ReadFileResponse_Info{Info: info}}); err != nil {
		return err
	}
	buf := make([]byte, chunk)
	for {
		n, err := f.Read(buf)
		if n > 0 {
			if err := st.Send(&wire.ReadFileResponse{Msg: &wire.ReadFileResponse_Data{Data: buf[:n]}}); err != nil {
				return err
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fileError(err)
		}
	}
}

// path makes what a client names absolute: relative paths begin at root's home.
func (s *Server) path(p string) (string, error) {
	if filepath.IsAbs(p) {
		return p, nil
	}
	u, err := lookUpUser(s.o.Root, "")
	if err != nil {
		return "", err
	}
	return filepath.Join(u.home, p), nil
}

var errNotRegular = errors.New("not a regular file")

// openRegular opens a regular file for reading. It does not hang on a FIFO.
func openRegular(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, err
	}
	fi, err := f.Stat()
	if err == nil && !fi.Mode().IsRegular() {
		err = fmt.Errorf("open %s: %w", path, errNotRegular)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// fileError gives an error the code that tells its cause to the daemon.
func fileError(err error) error {
	code := connect.CodeInternal
	var ce *connect.Error
	switch {
	case errors.As(err, &ce):
		return err
	case errors.Is(err, fs.ErrNotExist):
		code = connect.CodeNotFound
	case errors.Is(err, fs.ErrPermission), errors.Is(err, unix.EROFS):
		code = connect.CodePermissionDenied
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		code = connect.CodeResourceExhausted
	case errors.Is(err, errNotRegular), errors.Is(err, unix.EISDIR), errors.Is(err, unix.ENOTDIR):
		code = connect.CodeFailedPrecondition
	}
	return connect.NewError(code, err)
}

// orInvalid returns err, or if a stream ended in peace, that it should not have.
func orInvalid(err error, why string) error {
	if err == nil || errors.Is(err, io.EOF) {
		return connect.NewError(connect.CodeInvalidArgument, errors.New(why))
	}
	return err
}
