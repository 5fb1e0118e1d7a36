package agent

import (
	"encoding/binary"
	"fmt"
	"io"
)

// The agent and a session's supervisor speak in frames over the supervisor's
// socket: one byte of kind, four of length (big endian), and the data. The first
// frame is a hello, and says in JSON what the connection is for.
const (
	frameHello = 'h'

	// To the supervisor, in a connection that sends or is attached.
	frameData   = 'd' // for the command's input
	frameEOF    = 'e' // its end
	frameCancel = 'c' // sending: give up what is not written yet
	frameResize = 'w' // attached: rows and columns, two bytes each (big endian)
	// Attached, or in a connection that controls.
	frameSignal = 's' // "TERM"
	frameStop   = 't' // a [stopOrder] in JSON

	// From it.
	frameOK      = 'k' // what was asked for is done, or may begin
	frameWritten = 'n' // so many bytes of the last frameData, eight bytes
	frameRefused = 'x' // and why; the end
	frameTaken   = 'g' // attached: somebody took the place, and who; the end
)

// maxFrame bounds the data of a frame.
const maxFrame = chunk

type frame struct {
	kind byte
	data []byte
}

const frameHead = 5

func readFrame(r io.Reader) (frame, error) {
	var head [frameHead]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return frame{}, err
	}
	n := binary.BigEndian.Uint32(head[1:])
	if n > maxFrame {
		return frame{}, fmt.Errorf("a frame of %d bytes", n)
	}
	f := frame{kind: head[0], data: make([]byte, n)}
	if _, err := io.ReadFull(r, f.data); err != nil {
		return frame{}, noEOF(err)
	}
	return f, nil
}

// noEOF makes an end in the middle look like one.
func noEOF(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

func writeFrame(w io.Writer, kind byte, data []byte) error {
	b := make([]byte, frameHead, frameHead+len(data))
	b[0] = kind
	binary.BigEndian.PutUint32(b[1:], uint32(len(data)))
	_, err := w.Write(append(b, data...))
	return err
}

// hello is what a connection to a supervisor is for.
type hello struct {
	Purpose  string // purposeSend, …
	Name     string // of who attaches
	Take     bool   // the place of who is attached
	ReadOnly bool   // attaches without a claim on the input
}

const (
	purposeSend    = "send"
	purposeAttach  = "attach"
	purposeControl = "control"
)

// stopOrder is how a session is to end.
type stopOrder struct {
	GraceNS int64
	// Failure is what the session failed of, by being stopped; empty: it did
	// not fail.
	Failure string
}
