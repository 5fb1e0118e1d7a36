package agent

import (
	"errors"
	"math"
	"strings"

	"golang.org/x/crypto/ssh"

	"banger/internal/guest/wire"
)

// What clients ask for, as RFC 4254 and OpenSSH's PROTOCOL lay it out.

// Limits of what a client may say about its terminal and environment.
const (
	maxSSHTerm  = 64      // bytes of a terminal's name
	maxSSHEnv   = 64      // variables
	maxSSHValue = 4 << 10 // bytes of one
)

type (
	ptyRequest struct { // section 6.2
		Term                      string
		Cols, Rows, Width, Height uint32
		Modes                     string
	}
	envRequest  struct{ Name, Value string }               // 6.4
	execRequest struct{ Command string }                   // 6.5
	nameRequest struct{ Name string }                      // 6.5, 6.9: subsystem, signal
	sizeRequest struct{ Cols, Rows, Width, Height uint32 } // 6.7
	exitStatus  struct{ Status uint32 }                    // 6.10
	exitSignal  struct {                                   // 6.10
		Signal     string
		Core       bool
		Error, Tag string
	}
	forwardRequest struct { // 7.1
		Addr string
		Port uint32
	}
	forwardReply struct{ Port uint32 }
	tcpChannel   struct { // 7.2: both kinds
		Addr       string
		Port       uint32
		OriginAddr string
		OriginPort uint32
	}
	unixChannel struct { // PROTOCOL, 2.4
		Path     string
		Reserved string
		Unused   uint32
	}
)

// parsePTY reads a request for a terminal. The modes that a client wants it to
// have are not set: they are those of a terminal that was just opened.
func parsePTY(payload []byte) (*wire.Terminal, error) {
	var r ptyRequest
	if err := ssh.Unmarshal(payload, &r); err != nil {
		return nil, err
	}
	if len(r.Term) > maxSSHTerm || strings.ContainsFunc(r.Term, func(c rune) bool { return c <= ' ' || c >= 0x7f || c == '=' || c == '/' }) {
		return nil, errors.New("this is no terminal's name")
	}
	return &wire.Terminal{Term: r.Term, Size: &wire.WindowSize{Rows: r.Rows, Cols: r.Cols}}, nil
}

// parseEnv reads a variable, and reports whether a client may set it: the
// locale alone, as with Debian's sshd.
func parseEnv(payload []byte) (name, value string, ok bool) {
	var r envRequest
	if err := ssh.Unmarshal(payload, &r); err != nil {
		return "", "", false
	}
	rest, lc := strings.CutPrefix(r.Name, "LC_")
	if r.Name != "LANG" && (!lc || strings.Trim(rest, "ABCDEFGHIJKLMNOPQRSTUVWXYZ_") != "") {
		return "", "", false
	}
	return r.Name, r.Value, len(r.Name)+len(r.Value) <= maxSSHValue && !strings.ContainsRune(r.Value, 0)
}

// parseForward reads a request to listen.
func parseForward(payload []byte) (forwardRequest, error) {
	var r forwardRequest
	if err := ssh.Unmarshal(payload, &r); err != nil {
		return r, err
	}
	if r.Port > math.MaxUint16 {
		return r, errors.New("there is no such port")
	}
	return r, nil
}
