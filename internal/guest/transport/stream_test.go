package transport

import (
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"

	"banger/internal/guest/wire"
)

// What stands after Firecracker's answer is the guest's, and an answer that is
// none ends the attempt.
func TestOpenHybrid(t *testing.T) {
	tests := []struct{ reply, wantErr string }{
		{"OK 1\nhello", ""},
		{"NO\n", `answered "NO"`},
		{"\n", `answered ""`},
		{strings.Repeat("x", 1000), "…"},
		{"", "EOF"},
	}
	for _, tt := range tests {
		path := filepath.Join(t.TempDir(), "s")
		l, err := net.Listen("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		asked := make(chan string, 1)
		go func() {
			c, err := l.Accept()
			if err != nil {
				return
			}
			defer c.Close()
			line := make([]byte, len("CONNECT 4294967295\n"))
			io.ReadFull(c, line)
			asked <- string(line)
			io.WriteString(c, tt.reply)
		}()
		c, err := openHybrid(t.Context(), path, 1<<32-1)
		if got := <-asked; got != "CONNECT 4294967295\n" {
			t.Errorf("asked %q", got)
		}
		l.Close()
		if tt.wantErr != "" {
			if err == nil || !strings.Contains(err.Error(), tt.wantErr) {
				t.Errorf("reply %q: %v", tt.reply, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("reply %q: %v", tt.reply, err)
			continue
		}
		if rest, err := io.ReadAll(c); string(rest) != "hello" || err != nil {
			t.Errorf("after the answer %q, %v", rest, err)
		}
		c.Close()
	}
}

// FuzzFill: what a guest sends changes nothing but what is read, and after the
// echo nothing of it is lost.
func FuzzFill(f *testing.F) {
	f.Add([]byte("junk"), []byte("\x00\x00\x04frame\n"))
	f.Add([]byte("\n0123456789abcdef"), []byte("\n"))
	f.Fuzz(func(t *testing.T, junk, rest []byte) {
		const token = "0123456789abcdef0123456789abcdef"
		guest, host := net.Pipe()
		defer host.Close()
		if strings.Contains(string(junk)+string(rest), "\n"+token[:wire.GreetingHead-1]) {
			return // somebody who knows the token; only its agent does
		}
		rest = append([]byte{0}, rest...) // as every frame that is not absurdly long
		go func() {
			defer guest.Close()
			greeting := make([]byte, 66)
			guest.Write(junk)
			io.ReadFull(guest, greeting)
			fmt.Fprintf(guest, "%s%s", greeting, rest)
		}()
		g, err := greet(t.Context(), host, token)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(g); err != nil || string(got) != string(rest) {
			t.Errorf("after the echo %q, %v, want %q", got, err, rest)
		}
	})
}
