package wire

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
)

const (
	testToken = "0123456789abcdef0123456789abcdef"
	nonceA    = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	nonceB    = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
)

// events writes what a scanner finds in the parts as one text: data as it is,
// greetings as "<nonce>".
func events(t *testing.T, parts ...[]byte) string {
	t.Helper()
	s, err := NewScanner(testToken)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	for _, p := range parts {
		s.Scan(p, func(b []byte) {
			if len(b) == 0 {
				t.Error("data called without data")
			}
			out.Write(b)
		}, func(n string) { fmt.Fprintf(&out, "<%s>", n) })
	}
	return out.String()
}

func TestScan(t *testing.T) {
	gA, gB := string(Greeting(testToken, nonceA)), string(Greeting(testToken, nonceB))
	foreign := string(Greeting(strings.Repeat("f", TokenLen), nonceA))
	head := gA[:eager]
	tests := []struct{ name, in, want string }{
		{"nothing", "", ""},
		{"data", "abc\ndef\n", "abc\ndef\n"},
		{"a newline at the end is not held back", "x\n", "x\n"},
		{"greeting", gA, head + "<" + nonceA + ">"},
		{"between data", "ab" + gA + "cd", "ab" + head + "<" + nonceA + ">cd"},
		{"two", gA + gB, head + "<" + nonceA + "><" + nonceB + ">"},
		{"two, then data", gA + gA + "\nPRI\n", head + "<" + nonceA + "><" + nonceA + ">\nPRI\n"},
		{"two, data between", gA + "x" + gB, head + "<" + nonceA + ">x" + head + "<" + nonceB + ">"},
		{"after newlines", "\n\n" + gA, "\n\n" + head + "<" + nonceA + ">"},
		{"begun, then whole", gA[:20] + gA, gA[:20] + head + "<" + nonceA + ">"},
		{"begun in the nonce, then whole", gA[:50] + gA, gA[:50] + head + "<" + nonceA + ">"},
		{"without its last byte, then another", gA[:lineLen-1] + gB, head + "<" + nonceA + "><" + nonceB + ">"},
		{"another token", foreign, foreign},
		{"nonce too long", gA[:lineLen-1] + "a\n", gA[:lineLen-1] + "a\n"},
		{"nonce in capitals", gA[:lineLen-2] + "A\n", gA[:lineLen-2] + "A\n"},
		{"the rest of a greeting is held", "x" + gA[:40], "x" + head},
	}
	for _, tt := range tests {
		if got := events(t, []byte(tt.in)); got != tt.want {
			t.Errorf("%s: got %q, want %q", tt.name, got, tt.want)
		}
		var single [][]byte
		for i := range len(tt.in) {
			single = append(single, []byte{tt.in[i]})
		}
		if got := events(t, single...); got != tt.want {
			t.Errorf("%s, byte by byte: got %q, want %q", tt.name, got, tt.want)
		}
	}
}

// TestRekey changes the token at every byte of a stream: what came before is as
// with the old one, and greetings that are whole after it are found.
func TestRekey(t *testing.T) {
	near := testToken[:20] + strings.Repeat("0", 12) // begins as the old one does
	old := string(Greeting(testToken, nonceA))
	for _, token := range []string{strings.Repeat("f", TokenLen), near, testToken} {
		fresh := string(Greeting(token, nonceB))
		before := "ab\n" + old + "\ncd" + old[:40] + "ef"
		for cut := range len(before) + 1 {
			s, err := NewScanner(testToken)
			if err != nil {
				t.Fatal(err)
			}
			var out bytes.Buffer
			data := func(b []byte) { out.Write(b) }
			greeting := func(n string) { fmt.Fprintf(&out, "<%s>", n) }
			s.Scan([]byte(before[:cut]), data, greeting)
			if err := s.Rekey(token, data); err != nil {
				t.Fatal(err)
			}
			s.Scan([]byte(before[cut:]+"gh"+fresh+"ij"), data, greeting)
			want := before + "gh" + fresh[:eager] + "<" + nonceB + ">ij"
			if cut >= 3+lineLen || token == testToken {
				want = strings.Replace(want, old, old[:eager]+"<"+nonceA+">", 1)
			}
			if got := out.String(); got != want {
				t.Errorf("to %s after %d bytes: got %q, want %q", token, cut, got, want)
			}
		}
	}
}

// A greeting whose beginning came before the token was changed is one.
func TestRekeyAmid(t *testing.T) {
	near := testToken[:20] + strings.Repeat("0", 12)
	g := Greeting(near, nonceA)
	s, err := NewScanner(testToken)
	if err != nil {
		t.Fatal(err)
	}
	got := ""
	data := func(b []byte) { got += string(b) }
	greeting := func(n string) { got += "<" + n + ">" }
	s.Scan(g[:15], data, greeting)
	if err := s.Rekey("short", data); !errors.Is(err, ErrToken) {
		t.Errorf("Rekey = %v, want ErrToken", err)
	}
	if err := s.Rekey(near, data); err != nil {
		t.Fatal(err)
	}
	s.Scan(g[15:], data, greeting)
	if want := string(g[:eager]) + "<" + nonceA + ">"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestNewScannerRefuses(t *testing.T) {
	for _, token := range []string{"", "short", strings.Repeat("g", TokenLen), strings.Repeat("A", TokenLen), strings.Repeat("\n", TokenLen), testToken + "0"} {
		if _, err := NewScanner(token); !errors.Is(err, ErrToken) {
			t.Errorf("NewScanner(%q) = %v, want ErrToken", token, err)
		}
	}
}

func TestNewNonce(t *testing.T) {
	a, b := NewNonce(), NewNonce()
	if a == b || len(a) != TokenLen {
		t.Errorf("NewNonce = %q, then %q", a, b)
	}
	if want := string(Greeting(testToken, nonceA)[:eager]) + "<" + a + ">"; events(t, Greeting(testToken, a)) != want {
		t.Errorf("a greeting with nonce %q is not found", a)
	}
}

// FuzzScan: what is found does not depend on the split, nothing is lost or
// made up, and without the token there is no greeting.
func FuzzScan(f *testing.F) {
	g := Greeting(testToken, nonceA)
	f.Add([]byte("plain\n"), uint64(1), false)
	f.Add(g, uint64(2), false)
	f.Add(append(append([]byte("ab"), g...), g[:37]...), uint64(3), true)
	f.Add([]byte("\n0123456789abcdef0123456789abcdeX\n"), uint64(4), true)
	f.Fuzz(func(t *testing.T, in []byte, seed uint64, insert bool) {
		r := rand.New(rand.NewPCG(seed, 0))
		if insert {
			at := r.IntN(len(in) + 1)
			in = append(append(bytes.Clone(in[:at]), Greeting(testToken, nonceB)...), in[at:]...)
		}
		whole := events(t, in)
		var parts [][]byte
		for rest := in; len(rest) > 0; {
			n := 1 + r.IntN(len(rest))
			parts, rest = append(parts, rest[:n]), rest[n:]
		}
		if got := events(t, parts...); got != whole {
			t.Fatalf("split: %q, whole: %q", got, whole)
		}
		if insert && !strings.Contains(whole, "<"+nonceB+">") {
			t.Fatalf("greeting not found in %q", in)
		}
		if !bytes.Contains(in, []byte("\n"+testToken)) && len(whole) < len(in)-lineLen {
			t.Fatalf("%d bytes in, %d out", len(in), len(whole))
		}
	})
}
