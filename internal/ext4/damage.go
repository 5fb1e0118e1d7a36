package ext4

import (
	"errors"
	"fmt"
)

// ErrDamaged is what is wrong with a part of a file system that makes no sense.
var ErrDamaged = errors.New("damaged")

// damaged is an [ErrDamaged] that says what makes no sense.
func damaged(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrDamaged, fmt.Sprintf(format, args...))
}

// DamagedError says which part of a file cannot be read. It is an [ErrDamaged].
type DamagedError struct {
	Path string
	// From and To are bytes of the file, To not among them. There may be more
	// to read from To on.
	From, To int64
	Err      error // what makes no sense there, an ErrDamaged
}

func (e *DamagedError) Error() string {
	return fmt.Sprintf("read %s: bytes %d to %d: %v", e.Path, e.From, e.To-1, e.Err)
}

// Unwrap returns e.Err.
func (e *DamagedError) Unwrap() error { return e.Err }
