package cli

import (
	"bytes"
	"context"
	"io"
	"sync/atomic"

	"banger/internal/api/client"
)

// How much input is read at once, and how many of those parts wait for a
// connection at most: about a megabyte, of keys and of what is piped in. A
// terminal gives at most 4096 bytes at once (N_TTY_BUF_SIZE of Linux).
const (
	keyChunk, keyParts   = 4 << 10, 256
	pipeChunk, pipeParts = chunk, 16
)

// detachKeys are what Ctrl-\ is: a byte, or where a program has made the
// terminal tell keys apart better, kitty's keyboard protocol and xterm's
// modifyOtherKeys.
var detachKeys = [][]byte{{0x1c}, []byte("\x1b[92;5u"), []byte("\x1b[27;5;92~")}

// sessionInput is our input on its way to a session, over as many connections
// as that takes. What comes while there is none waits.
type sessionInput struct {
	keys     bool // it comes from a terminal that hands each key through
	mute     bool // nothing of it goes to the session
	detach   func()
	parts    chan inputPart
	next     inputPart // has been begun to be sent; feed's alone
	leaving  atomic.Bool
	farewell func() // is called when all has been sent; set before leaving
}

// inputPart is a part of the input, or its end.
type inputPart struct {
	data []byte
	end  bool
	bye  bool // nothing comes after it: we leave
}

func newSessionInput(keys, mute bool, detach func()) *sessionInput {
	n := pipeParts
	if keys {
		n = keyParts
	}
	return &sessionInput{keys: keys, mute: mute, detach: detach, parts: make(chan inputPart, n)}
}

// read reads r to its end, or until we leave. It may stay behind in a read.
// Keys that nobody takes for long get lost: among those that come after them
// may be Ctrl-\.
func (in *sessionInput) read(r io.Reader) {
	size := pipeChunk
	if in.keys {
		size = keyChunk
	}
	for !in.leaving.Load() {
		buf := make([]byte, size)
		n, err := r.Read(buf)
		if n > 0 && in.take(buf[:n]) {
			return
		}
		if err != nil {
			in.put(inputPart{end: true})
			return
		}
	}
}

// take takes what was read, and reports whether we leave.
func (in *sessionInput) take(data []byte) (leave bool) {
	if in.keys {
		for _, key := range detachKeys {
			if i := bytes.Index(data, key); i >= 0 {
				data, leave = data[:i], true
			}
		}
		leave = leave || in.mute && bytes.IndexByte(data, 3) >= 0 // Ctrl-C (ASCII ETX)
	}
	if len(data) > 0 {
		in.put(inputPart{data: data})
	}
	if leave {
		in.detach()
	}
	return leave
}

func (in *sessionInput) put(p inputPart) {
	switch {
	case in.mute:
	case in.keys:
		select {
		case in.parts <- p:
		default:
		}
	default:
		in.parts <- p
	}
}

// feed sends the input over one connection, until stop is called. One feed at a
// time. Input that was on its way when a connection broke is sent again over
// the next, if it is known not to have been sent.
func (in *sessionInput) feed(ctx context.Context, cmd *client.Attachment) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for in.send(ctx, cmd) == nil {
		}
	}()
	return func() { cancel(); <-done }
}

// send sends the next part.
func (in *sessionInput) send(ctx context.Context, cmd *client.Attachment) error {
	if p := in.next; p.data == nil && !p.end && !p.bye {
		select {
		case in.next = <-in.parts:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	var err error
	switch p := in.next; {
	case p.bye:
		err = cmd.Leave()
		in.farewell()
	case p.end:
		err = cmd.CloseStdin()
	default:
		_, err = cmd.Write(p.data)
	}
	if err == nil {
		in.next = inputPart{}
	}
	return err
}

// leave has sent called when all that came before was sent. What there is no
// room for is not waited for.
func (in *sessionInput) leave(sent func()) {
	if in.leaving.Swap(true) {
		return
	}
	in.farewell = sent
	select {
	case in.parts <- inputPart{bye: true}:
	default:
	}
}

func (in *sessionInput) isLeaving() bool { return in.leaving.Load() }
