package apt

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"banger/internal/errkind"
)

const ring = "/usr/share/keyrings/debian-archive-keyring.gpg"

func TestHostSources(t *testing.T) {
	etc := t.TempDir()
	if err := os.Mkdir(filepath.Join(etc, "sources.list.d"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"sources.list": "# comment\ndeb http://a.example/debian/ bookworm main contrib # more\n" +
			"deb-src http://a.example/debian bookworm main\n" +
			"deb [signed-by=" + ring + " check-valid-until=no arch=" + Architecture + ",riscv64] file:/srv/b trixie main\n" +
			"deb [arch=riscv64] http://riscv.example/debian bookworm main\n" +
			"deb [unclosed http://a.example/debian bookworm main\n" +
			"deb ftp://f.example/debian bookworm main\ndeb http://a.example/flat ./\ndeb\n",
		"sources.list.d/debian.sources": "Types: deb deb-src\nURIs: http://c.example/debian\n https://d.example/debian\n" +
			"Suites: bookworm bookworm-updates\nComponents: main\n# in between\nSigned-By: " + ring + "\n\n" +
			"Types: deb\nEnabled: no\nURIs: http://off.example\nSuites: x\nComponents: main\n\n\n" +
			"Types: deb-src\nURIs: http://src.example\nSuites: x\nComponents: main\n\n" +
			"Types: deb\nURIs: http://key.example\nSuites: x\nComponents: main\nSigned-By:\n -----BEGIN PGP-----\n .\n abc\n",
		"sources.list.d/ignored.list.save": "deb http://ignored.example x main\n",
	} {
		if err := os.WriteFile(filepath.Join(etc, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := HostSources(etc)
	if err != nil {
		t.Fatal(err)
	}
	both := []string{"bookworm", "bookworm-updates"}
	want := []Source{
		{URI: "http://a.example/debian", Suites: []string{"bookworm"}, Components: []string{"main", "contrib"}},
		{URI: "file:/srv/b", Suites: []string{"trixie"}, Components: []string{"main"}, SignedBy: ring, NoValidUntil: true},
		{URI: "http://c.example/debian", Suites: both, Components: []string{"main"}, SignedBy: ring},
		{URI: "https://d.example/debian", Suites: both, Components: []string{"main"}, SignedBy: ring},
		{URI: "http://key.example", Suites: []string{"x"}, Components: []string{"main"}},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("HostSources (-want +got):\n%s", d)
	}
	if got, err := HostSources(filepath.Join(etc, "none")); got != nil || err != nil {
		t.Errorf("HostSources of nothing = %v, %v", got, err)
	}
}

func TestResolve(t *testing.T) {
	have := keyrings
	keyrings = []string{filepath.Join(t.TempDir(), "ring")}
	defer func() { keyrings = have }()
	if err := os.WriteFile(keyrings[0], nil, 0o644); err != nil {
		t.Fatal(err)
	}
	src := func(uri string, suites ...string) Source {
		return Source{URI: uri, Suites: suites, Components: []string{"main"}}
	}
	debian := []Source{src("http://m/debian", "bookworm", "bookworm-updates"), src("http://s/debian-security", "bookworm-security")}
	key := " [signed-by=" + keyrings[0] + "]"
	for _, tt := range []struct {
		name   string
		host   []Source
		mirror string
		want   []string
	}{
		{"the suite itself", debian, "", []string{
			"deb http://m/debian bookworm main", "deb http://m/debian bookworm-updates main", "deb http://s/debian-security bookworm-security main",
		}},
		{"without updates", []Source{src("http://m/debian", "bookworm")}, "", []string{"deb http://m/debian bookworm main"}},
		{"another suite", []Source{src("http://m/debian", "trixie"), src("http://s/debian-security", "trixie-security")}, "", []string{
			"deb http://m/debian bookworm main", "deb http://m/debian bookworm-updates main", "deb http://s/debian-security bookworm-security main",
		}},
		{"a mirror", debian, "http://other/debian/", []string{
			"deb" + key + " http://other/debian bookworm main", "deb" + key + " http://other/debian bookworm-updates main",
			"deb http://s/debian-security bookworm-security main",
		}},
		{"a mirror and nothing else", nil, "file:/srv/debian", []string{
			"deb" + key + " file:/srv/debian bookworm main", "deb" + key + " file:/srv/debian bookworm-updates main",
		}},
	} {
		got, err := Resolve(tt.host, "bookworm", []string{"main"}, tt.mirror)
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
		}
		if d := cmp.Diff(strings.Join(tt.want, "\n")+"\n", Lines(got)); d != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, d)
		}
	}
	for _, mirror := range []string{"debian", "ftp://x/debian", "http:///debian", "file:debian", "http://x/ [trusted=yes]", "http://x/\ndeb evil"} {
		if got, err := Resolve(nil, "bookworm", []string{"main"}, mirror); errkind.Of(err) != errkind.Usage {
			t.Errorf("mirror %q = %v, %v", mirror, got, err)
		}
	}
	keyrings = []string{"/nonexistent"}
	if _, err := Resolve(nil, "bookworm", []string{"main"}, "http://other/debian"); errkind.Of(err) != errkind.Host || len(errkind.Hints(err)) != 1 {
		t.Errorf("without keys = %v", err)
	}
}

func TestParsePackage(t *testing.T) {
	text := "Package: linux-image-cloud-amd64\nVersion: 6.1.192-2\nSize: 1504\n" +
		"Depends: linux-image-6.1.0-56-cloud-amd64 (= 6.1.192-2), a | b\nDescription: Version: 9\n more\n\nPackage: other\n"
	want := Package{"linux-image-cloud-amd64", "6.1.192-2", 1504, []string{"linux-image-6.1.0-56-cloud-amd64", "a"}}
	if d := cmp.Diff(want, parsePackage(text)); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

// Nothing about trust comes over from the host.
func TestNetworkSettings(t *testing.T) {
	for line, want := range map[string]bool{
		`Acquire::http::Proxy "http://proxy:3142";`:             true,
		`Acquire::https::Verify-Peer "true";`:                   true,
		`Acquire::http::Proxy::mirror.example "DIRECT";`:        true,
		`Acquire::Retries "3";`:                                 true,
		`Acquire::AllowInsecureRepositories "1";`:               false,
		`APT::Get::AllowUnauthenticated "1";`:                   false,
		`APT::Update::Post-Invoke:: "rm -f /var/cache/apt/*";`:  false,
		`Acquire::http::Proxy "x"; Acquire::AllowInsecure "1";`: false,
		`Acquire::http "";`:                                     false,
	} {
		if got := networkSetting.MatchString(line); got != want {
			t.Errorf("%s is taken over: %v, want %v", line, got, want)
		}
	}
}

func FuzzSources(f *testing.F) {
	f.Add("deb [a=b] http://x y z\n")
	f.Add("deb file:/ x y\n") // once a source without a path
	f.Add("Types: deb\nURIs: http://x file:/y\nSuites: z\nComponents: main\n")
	f.Fuzz(func(t *testing.T, text string) {
		for _, s := range append(parseList(text), parseDeb822(text)...) {
			if !checkURI(s.URI) || len(s.Suites) == 0 || len(s.Components) == 0 {
				t.Errorf("source %+v", s)
			}
			// What comes out goes in again, as one line each.
			lines := Lines([]Source{s})
			if strings.Count(lines, "\n") != len(s.Suites) {
				t.Errorf("lines %q of %+v", lines, s)
			}
			if again := parseList(lines); len(again) > 0 && !slices.Contains(s.Suites, again[0].Suites[0]) {
				t.Errorf("%q is read as %+v", lines, again)
			}
		}
	})
}

// A host that has no Debian archive is told what to set; none is made up.
func TestResolveWithoutAnArchive(t *testing.T) {
	for _, host := range [][]Source{nil, {{URI: "http://u/ubuntu", Suites: []string{"noble"}, Components: []string{"main"}}}} {
		if got, err := Resolve(host, "bookworm", []string{"main"}, ""); errkind.Of(err) != errkind.Host {
			t.Errorf("Resolve of %v = %v, %v", host, got, err)
		}
	}
}
