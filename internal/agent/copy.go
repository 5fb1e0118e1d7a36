package agent

import (
	"context"
	"errors"
	"io/fs"
	"path/filepath"
	"strings"

	"connectrpc.com/connect"
	"golang.org/x/sys/unix"

	"banger/internal/guest/wire"
	"banger/internal/transfer"
)

type copyStream = connect.BidiStream[wire.CopyRequest, wire.CopyResponse]

// Copy implements the method of the protocol. What cannot be read or written
// is told as a message: the call itself fails only if the stream does.
func (s service) Copy(ctx context.Context, st *copyStream) error {
	first, err := st.Receive()
	if err != nil {
		return orInvalid(err, "copy without a start")
	}
	start := first.GetStart()
	if len(start.GetSources()) == 0 && len(start.GetNames()) == 0 {
		return connect.NewError(connect.CodeInvalidArgument, errors.New("copy of nothing"))
	}
	home, err := lookUpUser(s.o.Root, "")
	if err != nil {
		return refuseCopy(st, err)
	}
	if len(start.GetSources()) > 0 {
		return sendCopy(ctx, st, start, home.home)
	}
	return receiveCopy(ctx, st, start, home.home)
}

// sendCopy sends what the host wants to have.
func sendCopy(ctx context.Context, st *copyStream, start *wire.CopyStart, home string) error {
	var sources []string
	for _, b := range start.GetSources() {
		sources = append(sources, under(home, string(b)))
	}
	out := &copyOut{st: st}
	err := transfer.Send(ctx, out, sources, transfer.SendOptions{Resume: start.GetResume()})
	if err == nil || out.broken != nil {
		return out.broken
	}
	return refuseCopy(st, err)
}

// copyOut is the way to the host's end.
type copyOut struct {
	st     *copyStream
	broken error // of the stream
}

func (o *copyOut) Send(it *wire.CopyItem) error {
	if it.GetAbort() {
		return nil // why, is told instead
	}
	o.broken = o.st.Send(&wire.CopyResponse{Msg: &wire.CopyResponse_Item{Item: it}})
	return o.broken
}

func (o *copyOut) Have() (*wire.CopyHave, error) {
	req, err := o.st.Receive()
	if err != nil {
		o.broken = err
		return nil, err
	}
	return req.GetHave(), nil
}

// receiveCopy puts what the host sends where it wants it.
func receiveCopy(ctx context.Context, st *copyStream, start *wire.CopyStart, home string) error {
	o := transfer.ReceiveOptions{Special: true, Sync: true, Resume: start.GetResume()}
	for _, b := range start.GetNames() {
		o.Names = append(o.Names, string(b))
	}
	r, err := transfer.NewReceiver(under(home, string(start.GetTarget())), o)
	if err != nil {
		return refuseCopy(st, err)
	}
	defer r.Close() // what it could fail at, a later copy finds out
	for !r.Whole() {
		req, err := st.Receive()
		if err != nil {
			return orInvalid(err, "copy without an end")
		}
		have, err := r.Item(ctx, req.GetItem())
		if err != nil {
			return refuseCopy(st, err)
		}
		if have == nil {
			continue
		}
		if err := st.Send(&wire.CopyResponse{Msg: &wire.CopyResponse_Have{Have: have}}); err != nil {
			return err
		}
	}
	return st.Send(&wire.CopyResponse{Msg: &wire.CopyResponse_Stored{Stored: true}})
}

// under makes what a client names absolute: relative paths begin at home. It
// leaves the rest as it is, for slashes at the end mean something.
func under(home, path string) string {
	if filepath.IsAbs(path) {
		return path
	}
	return strings.TrimSuffix(home, "/") + "/" + path
}

// refuseCopy tells why a copy does not go on.
func refuseCopy(st *copyStream, err error) error {
	f := &wire.CopyFailure{Reason: copyReason(err), Message: strings.ToValidUTF8(err.Error(), "\uFFFD")}
	return st.Send(&wire.CopyResponse{Msg: &wire.CopyResponse_Failed{Failed: f}})
}

func copyReason(err error) wire.CopyFailure_Reason {
	is := func(targets ...error) bool {
		for _, t := range targets {
			if errors.Is(err, t) {
				return true
			}
		}
		return false
	}
	switch {
	case is(fs.ErrNotExist):
		return wire.CopyFailure_REASON_NOT_FOUND
	case is(unix.ENOSPC, unix.EDQUOT, unix.EFBIG):
		return wire.CopyFailure_REASON_FULL
	case is(fs.ErrPermission, unix.EROFS):
		return wire.CopyFailure_REASON_DENIED
	case is(transfer.ErrInvalid):
		return wire.CopyFailure_REASON_INVALID
	case is(transfer.ErrKind, transfer.ErrBusy, unix.EISDIR, unix.ENOTDIR, unix.EEXIST, unix.ENOTEMPTY, unix.ETXTBSY):
		return wire.CopyFailure_REASON_CONFLICT
	}
	return wire.CopyFailure_REASON_UNSPECIFIED
}
