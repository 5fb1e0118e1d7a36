package wire

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// full returns a bundle that uses every field.
func full() Bundle {
	return Bundle{
		Hostname:  "web-1",
		MachineID: strings.Repeat("0a", 16),
		Token:     strings.Repeat("f1", 16),
		Root:      Mount{Serial: "root", FSType: "ext4"},
		Mounts: []Mount{
			{Serial: "work", Target: "/root", FSType: "ext4", Fill: true, SizeBytes: 1 << 30},
			{Serial: "modules", Target: "/lib/modules/6.1", FSType: "ext4", ReadOnly: true},
		},
		Init:           "/sbin/init",
		Env:            []string{"A=b", "EMPTY="},
		NICs:           []NIC{{MAC: "52:54:00:12:34:56", Addrs: []string{"10.0.0.2/24", "fd00::2/64"}, Gateway: "10.0.0.1"}},
		Hosts:          map[string]string{"db.vm": "10.0.0.3"},
		Resolvers:      []string{"10.0.0.1", "fd00::1"},
		AuthorizedKeys: []string{"ssh-ed25519 AAAA me@host"},
		SSHHostKeys:    map[string]string{"ssh_host_ed25519_key": "secret\n", "ssh_host_ed25519_key.pub": "public\n"},
	}
}

// template returns a bundle with all that a template's may have.
func template() Bundle {
	b := full()
	b.Template, b.AuthorizedKeys, b.SSHHostKeys = true, nil, nil
	b.NICs = []NIC{{MAC: "52:54:00:12:34:56"}}
	return b
}

func TestBundleRoundTrip(t *testing.T) {
	for _, want := range []Bundle{full(), template()} {
		data, err := want.Encode()
		if err != nil {
			t.Fatal(err)
		}
		got, err := DecodeBundle(data)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Error(d)
		}
	}
}

// What all machines of a template would share is no template's.
func TestTemplateRefused(t *testing.T) {
	for name, change := range map[string]func(*Bundle){
		"no token":        func(b *Bundle) { b.Token = "" },
		"no machine id":   func(b *Bundle) { b.MachineID = "" },
		"no host name":    func(b *Bundle) { b.Hostname = "" },
		"no root":         func(b *Bundle) { b.Root = Mount{} },
		"address":         func(b *Bundle) { b.NICs[0].Addrs = []string{"10.0.0.2/24"} },
		"gateway":         func(b *Bundle) { b.NICs[0].Gateway = "10.0.0.1" },
		"authorised key":  func(b *Bundle) { b.AuthorizedKeys = full().AuthorizedKeys },
		"host key":        func(b *Bundle) { b.SSHHostKeys = full().SSHHostKeys },
		"filled root":     func(b *Bundle) { b.Root.Fill = true },
		"negative size":   func(b *Bundle) { b.Mounts[0].SizeBytes = -1 },
		"relative target": func(b *Bundle) { b.Mounts[0].Target = "root" },
	} {
		b := template()
		change(&b)
		data, err := json.Marshal(b) // Encode would not
		if err != nil {
			t.Fatal(err)
		}
		if _, err := DecodeBundle(data); err == nil {
			t.Errorf("%s: DecodeBundle took it", name)
		}
		if _, err := b.Encode(); err == nil {
			t.Errorf("%s: Encode took it", name)
		}
	}
}

func TestBundleRefused(t *testing.T) {
	tests := map[string]func(*Bundle){
		"no token":             func(b *Bundle) { b.Token = "" },
		"short token":          func(b *Bundle) { b.Token = "abc" },
		"token with capitals":  func(b *Bundle) { b.Token = strings.Repeat("AB", 16) },
		"no machine id":        func(b *Bundle) { b.MachineID = "" },
		"no host name":         func(b *Bundle) { b.Hostname = "" },
		"host name with dot":   func(b *Bundle) { b.Hostname = "a.b" },
		"host name with line":  func(b *Bundle) { b.Hostname = "a\nb" },
		"host name too long":   func(b *Bundle) { b.Hostname = strings.Repeat("a", 64) },
		"no root":              func(b *Bundle) { b.Root = Mount{} },
		"root with target":     func(b *Bundle) { b.Root.Target = "/x" },
		"read-only root":       func(b *Bundle) { b.Root.ReadOnly = true },
		"long serial":          func(b *Bundle) { b.Root.Serial = strings.Repeat("s", 21) },
		"relative target":      func(b *Bundle) { b.Mounts[0].Target = "root" },
		"target with dots":     func(b *Bundle) { b.Mounts[0].Target = "/a/../b" },
		"mount on root":        func(b *Bundle) { b.Mounts[0].Target = "/" },
		"negative size":        func(b *Bundle) { b.Mounts[0].SizeBytes = -1 },
		"mount without type":   func(b *Bundle) { b.Mounts[0].FSType = "" },
		"read-only and filled": func(b *Bundle) { b.Mounts[0].ReadOnly = true },
		"relative init":        func(b *Bundle) { b.Init = "init" },
		"environment":          func(b *Bundle) { b.Env = []string{"NOVALUE"} },
		"environment, UTF-8":   func(b *Bundle) { b.Env = []string{"A=\xff"} },
		"MAC":                  func(b *Bundle) { b.NICs[0].MAC = "zz" },
		"address, no prefix":   func(b *Bundle) { b.NICs[0].Addrs = []string{"10.0.0.2"} },
		"gateway":              func(b *Bundle) { b.NICs[0].Gateway = "gw" },
		"resolver with line":   func(b *Bundle) { b.Resolvers = []string{"10.0.0.1\noptions x"} },
		"resolver with zone":   func(b *Bundle) { b.Resolvers = []string{"fe80::1%eth0"} },
		"host with space":      func(b *Bundle) { b.Hosts = map[string]string{"a b": "10.0.0.1"} },
		"host's address":       func(b *Bundle) { b.Hosts = map[string]string{"a": "here"} },
		"key of two lines":     func(b *Bundle) { b.AuthorizedKeys = []string{"a\nb"} },
		"host key's name":      func(b *Bundle) { b.SSHHostKeys = map[string]string{"../../etc/passwd": "x"} },
		"host key empty":       func(b *Bundle) { b.SSHHostKeys = map[string]string{"ssh_host_rsa_key": ""} },
		"too large":            func(b *Bundle) { b.AuthorizedKeys = []string{strings.Repeat("k", MaxBundle)} },
	}
	for name, change := range tests {
		b := full()
		change(&b)
		if _, err := b.Encode(); err == nil {
			t.Errorf("%s: Encode took it", name)
		} else if strings.Contains(err.Error(), strings.Repeat("f1", 16)) {
			t.Errorf("%s: the error tells the token: %v", name, err)
		}
	}
}

func TestDecodeBundleRefused(t *testing.T) {
	data, err := full().Encode()
	if err != nil {
		t.Fatal(err)
	}
	for name, in := range map[string][]byte{
		"empty":          nil,
		"no JSON":        []byte("hello"),
		"truncated":      data[:len(data)-1],
		"data behind":    append(bytes.Clone(data), "{}"...),
		"unknown field":  bytes.Replace(data, []byte(`"hostname"`), []byte(`"future":1,"hostname"`), 1),
		"lacks all":      []byte("{}"),
		"template":       []byte(`{"template":true}`),
		"not so much a":  bytes.Replace(data, []byte(`"hostname"`), []byte(`"template":1,"hostname"`), 1),
		"with keys":      bytes.Replace(data, []byte(`"hostname"`), []byte(`"template":true,"hostname"`), 1),
		"size in words":  bytes.Replace(data, []byte(`1073741824`), []byte(`"1G"`), 1),
		"size too large": bytes.Replace(data, []byte(`1073741824`), []byte(`99999999999999999999`), 1),
		"too large":      append(bytes.Clone(data), bytes.Repeat([]byte(" "), MaxBundle)...),
	} {
		if b, err := DecodeBundle(in); err == nil {
			t.Errorf("%s: decoded as %+v", name, b)
		}
	}
}

func TestValidHostKeyName(t *testing.T) {
	for name, want := range map[string]bool{
		"ssh_host_rsa_key": true, "ssh_host_ed25519_key.pub": true, "ssh_host_ed25519_sk_key": true,
		"": false, "ssh_host__key": false, "ssh_host_key": false, "ssh_host_/_key": false,
		"ssh_host_rsa_key.pub.pub": false, "sshd_config": false, "ssh_host_rsa_key\n": false,
	} {
		if got := ValidHostKeyName(name); got != want {
			t.Errorf("ValidHostKeyName(%q) = %v, want %v", name, got, want)
		}
	}
}

func FuzzDecodeBundle(f *testing.F) {
	data, err := full().Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add([]byte(`{"hostname":"a"}`))
	if data, err = template().Encode(); err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add([]byte(`{"root":{"serial":"\u0000"}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		b, err := DecodeBundle(data)
		if err != nil {
			if d := cmp.Diff(Bundle{}, b); d != "" {
				t.Fatalf("an error and a bundle: %s", d)
			}
			return
		}
		// What was taken can be written again, and means the same.
		again, err := b.Encode()
		if err != nil {
			t.Fatalf("Encode of a decoded bundle: %v", err)
		}
		c, err := DecodeBundle(again)
		if err != nil {
			t.Fatalf("DecodeBundle of %s: %v", again, err)
		}
		if again2, err := c.Encode(); err != nil || !bytes.Equal(again, again2) {
			t.Fatalf("%s became %s (%v)", again, again2, err)
		}
	})
}
