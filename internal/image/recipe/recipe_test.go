package recipe

import (
	"slices"
	"strings"
	"testing"

	"banger/internal/errkind"
)

const tiny = `
suite = "bookworm"
components = ["main"]
method = "extract"
packages = ["busybox-static"]
kernel = "debian-cloud"
`

func TestKnownRecipes(t *testing.T) {
	names := knownNames()
	if !slices.Contains(names, "debian-bookworm") || !slices.Contains(names, "busybox") {
		t.Errorf("known are %q", names)
	}
	for _, name := range names {
		text, ok := known(name)
		if !ok {
			t.Errorf("%s is not known", name)
		}
		if r, err := Parse(text); err != nil || r.Description == "" || len(r.hash) != 64 {
			t.Errorf("%s: %+v, %v", name, r, err)
		}
		if slices.Contains(strings.Fields(string(text)), "http") {
			t.Errorf("%s names a mirror", name)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	for _, tt := range []struct{ text, says string }{
		{"", "missing"},
		{"suite = ", "line 1"},
		{tiny + "mirror = \"http://x\"\n", `"mirror"`},
		{strings.Replace(tiny, "bookworm", "-o x", 1), "-o x"},
		{strings.Replace(tiny, "busybox-static", "--hook=x", 1), "--hook=x"},
		{strings.Replace(tiny, "busybox-static", "./evil.deb", 1), "./evil.deb"},
		{strings.Replace(tiny, "busybox-static", "a,b", 1), "a,b"},
		{strings.Replace(tiny, "busybox-static", "?essential", 1), "?essential"},
		{strings.Replace(tiny, "extract", "shell", 1), "shell"},
		{strings.Replace(tiny, "debian-cloud", "../x", 1), "../x"},
		{strings.Replace(tiny, `["busybox-static"]`, "[]", 1), "packages"},
		{strings.Replace(tiny, `["main"]`, `"main"`, 1), "line"},
		{tiny + "init = \"sbin/init\"\n", "sbin/init"},
		{tiny + "remove = [\"/\"]\n", `"/"`},
		{tiny + "remove = [\"/a/../../b\"]\n", "/a/../../b"},
		{tiny + "exclude = [\"/a b\"]\n", "/a b"},
		{tiny + "exclude = [\"/a\\ninclude=x\"]\n", "include=x"},
		{tiny + "mask = [\"../x.service\"]\n", "../x.service"},
		{tiny + "[[file]]\npath = \"etc/x\"\n", "etc/x"},
		{tiny + "[[file]]\npath = \"/etc/x\"\nmode = \"9\"\n", "9"},
		{tiny + "[[file]]\npath = \"/etc/x\"\nmode = \"77777\"\n", "77777"},
		{tiny + "[[link]]\npath = \"/x\"\n", "target"},
		{tiny + strings.Repeat("#", maxRecipe), "over"},
	} {
		_, err := Parse([]byte(tt.text))
		if errkind.Of(err) != errkind.Usage || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("Parse(%.200q) = %v, want a usage error with %q", tt.text, err, tt.says)
		}
	}
	if _, err := Parse([]byte(tiny)); err != nil {
		t.Error(err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(tiny))
	for _, name := range knownNames() {
		text, _ := known(name)
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		r, err := Parse(text)
		if err != nil {
			return
		}
		// These stand on a command line, after a comma or an equals sign.
		for _, v := range slices.Concat(r.Packages, r.Components, []string{r.Suite, r.Kernel}) {
			if v == "" || strings.ContainsAny(v, ", \n/=") || v[0] == '-' {
				t.Errorf("%q went through", v)
			}
		}
		for _, v := range slices.Concat(r.Exclude, r.Keep, r.Remove) {
			if v[0] != '/' {
				t.Errorf("path %q went through", v)
			}
		}
	})
}
