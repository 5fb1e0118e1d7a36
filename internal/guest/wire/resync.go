package wire

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
)

// Protocol is the version of the protocol, as Info tells it.
const Protocol = 1

// PortName is the name of the virtio-serial port that the agent serves.
const PortName = "banger.agent"

// TokenLen is the length of a token and of a nonce: so many lower-case
// hexadecimal digits.
const TokenLen = 32

// EndNonce is the nonce of the line with which an agent ends a connection of
// its own accord. A virtio-serial port cannot be closed so that the host sees
// it; without this line the host would wait for ever.
const EndNonce = "00000000000000000000000000000000"

// A greeting is "\n", token, nonce, "\n".
const (
	lineLen   = 1 + 2*TokenLen + 1
	nonceFrom = 1 + TokenLen
	// eager is how much of what may be a greeting is passed on as data all
	// the same. Something must be: a frame may end in "\n" and nothing come
	// after it. Something must be held back, too, or the token itself would
	// be taken for data. That data which is no greeting ends in "\n" and
	// eight digits of the token has a chance of 1 in 2^32, or less.
	eager = 1 + 8
)

// GreetingHead is how many bytes of a greeting a [Scanner] may pass on as data
// before it knows it for one.
const GreetingHead = eager

// ErrToken says that a token has not the form that greetings need.
var ErrToken = errors.New("token is not 32 lower-case hexadecimal digits")

// Greeting returns the line that begins a connection: the host sends it, with
// a nonce that it never used before, and the agent sends it back. Both may
// find any bytes before it, left from earlier connections on the same stream.
// Once a connection has begun, another such line ends it.
func Greeting(token, nonce string) []byte {
	line := make([]byte, 0, lineLen)
	line = append(line, '\n')
	line = append(line, token...)
	line = append(line, nonce...)
	return append(line, '\n')
}

// NewNonce returns a nonce for one connection.
func NewNonce() string {
	var b [TokenLen / 2]byte
	rand.Read(b[:]) // never fails (crypto/rand)
	return hex.EncodeToString(b[:])
}

// A Scanner finds the greetings of one token in a stream of any bytes. What it
// finds does not depend on how the stream is split over reads. It keeps less
// than one greeting in memory. The zero value is not usable.
type Scanner struct {
	token  string
	held   []byte // a greeting's beginning
	passed int    // so much of held is done with
	// fresh: nothing has come since the last greeting. What may be another is
	// then held back from its first byte: a greeting sent again must not spoil
	// what the first one began. Neither side of an HTTP/2 connection begins
	// with "\n" or a digit of a token, so nothing real waits.
	fresh bool
}

// NewScanner returns a scanner for greetings with token, or [ErrToken].
func NewScanner(token string) (*Scanner, error) {
	if !validToken(token) {
		return nil, ErrToken
	}
	return &Scanner{token: token, held: make([]byte, 0, lineLen)}, nil
}

// Rekey makes s find the greetings of another token from the next byte on, or
// returns [ErrToken] and changes nothing. What was held back as the beginning
// of a greeting, and cannot begin one with the new token, is data.
func (s *Scanner) Rekey(token string, data func([]byte)) error {
	if !validToken(token) {
		return ErrToken
	}
	s.token = token
	for i, c := range s.held {
		if 0 < i && i < nonceFrom && c != token[i-1] {
			if len(s.held) > s.passed {
				s.fresh = false
				data(s.held[s.passed:])
			}
			s.held, s.passed = s.held[:0], 0 // no greeting begins within
			break
		}
	}
	return nil
}

func validToken(token string) bool {
	for i := range len(token) {
		if !isHex(token[i]) {
			return false
		}
	}
	return len(token) == TokenLen
}

// Scan reads the next bytes of the stream and calls, in the order of the
// stream, greeting with the nonce of each greeting and data with what is none.
// The first nine bytes of a greeting are data, too, unless it follows another.
// The slices that data gets are not empty and valid during the call.
func (s *Scanner) Scan(b []byte, data func([]byte), greeting func(nonce string)) {
	from := 0 // of what is in b and neither passed on nor held back
	pass := func(b []byte) {
		if len(b) > 0 {
			s.fresh = false
			data(b)
		}
	}
	for i, c := range b {
		if !s.fits(c) {
			if len(s.held) > s.passed {
				pass(s.held[s.passed:]) // all of b before it was passed on
				from = i
			}
			s.held, s.passed = s.held[:0], 0
			if c != '\n' { // a greeting has none within
				s.fresh = false
				continue
			}
		}
		s.held = append(s.held, c)
		if !s.fresh && len(s.held) <= eager {
			s.passed = len(s.held)
			continue
		}
		pass(b[from:i])
		from = i + 1
		if len(s.held) == lineLen {
			nonce := string(s.held[nonceFrom : nonceFrom+TokenLen])
			// Its end may begin the next, if it was cut short by one byte.
			s.held, s.passed, s.fresh = s.held[:1], 1, true
			greeting(nonce)
		}
	}
	pass(b[from:])
}

// fits reports whether c goes on with what is held as a greeting would.
func (s *Scanner) fits(c byte) bool {
	switch n := len(s.held); {
	case n == 0, n == lineLen-1:
		return c == '\n'
	case n < nonceFrom:
		return c == s.token[n-1]
	default:
		return isHex(c)
	}
}

func isHex(c byte) bool { return c >= '0' && c <= '9' || c >= 'a' && c <= 'f' }
