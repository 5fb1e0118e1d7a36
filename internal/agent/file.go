package agent

import (
	"errors"
	"fmt"
	"io"
	"os"

	"connectrpc.com/connect"
	"golang.org/x/sys/unix"
)

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

// orInvalid returns err, or if a stream ended in peace, that it should not have.
func orInvalid(err error, why string) error {
	if err == nil || errors.Is(err, io.EOF) {
		return connect.NewError(connect.CodeInvalidArgument, errors.New(why))
	}
	return err
}
