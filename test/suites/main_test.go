package main

import (
	"strings"
	"testing"
)

const printed = `=== RUN   TestVMMSuiteFake
=== RUN   TestVMMSuiteFake/Facts
=== RUN   TestVMMSuiteFake/PowersOff
    suite.go:266: it cannot
--- PASS: TestVMMSuiteFake (0.00s)
    --- PASS: TestVMMSuiteFake/Facts (0.00s)
    --- SKIP: TestVMMSuiteFake/PowersOff (0.00s)
=== RUN   TestOther/Facts
--- FAIL: TestOther/Facts (0.00s)
`

func TestTable(t *testing.T) {
	for name, tt := range map[string]struct {
		lab, want string
		good      bool
	}{
		"all passed": {strings.ReplaceAll(printed, "Fake", "Real"), `| VMM | Fake, host | Real, lab |
| --- | --- | --- |
| Facts | passed | passed |
| PowersOff | n/a | n/a |

n/a: Fake, host, PowersOff: it cannot

n/a: Real, lab, PowersOff: it cannot

`, true},
		"two at once": {"[a] === RUN   TestVMMSuiteA/Facts\n[b] === RUN   TestVMMSuiteB/Facts\n" +
			"[a]     x.go:1: not here\n[b] --- PASS: TestVMMSuiteB/Facts (0.00s)\n[a] --- SKIP: TestVMMSuiteA/Facts (0.00s)\n" +
			"[a] --- PASS: TestVMMSuiteA/PowersOff (0.00s)\n[b] --- PASS: TestVMMSuiteB/PowersOff (0.00s)\n", `| VMM | Fake, host | B, lab | A, lab |
| --- | --- | --- | --- |
| Facts | passed | passed | n/a |
| PowersOff | n/a | passed | passed |

n/a: Fake, host, PowersOff: it cannot

n/a: A, lab, Facts: not here

`, true},
		"one failed": {"--- FAIL: TestVMMSuiteReal/Facts (0.00s)\n", `| VMM | Fake, host | Real, lab |
| --- | --- | --- |
| Facts | passed | FAILED |
| PowersOff | n/a |  |

n/a: Fake, host, PowersOff: it cannot

`, false},
		"skipped without a word": {"    --- SKIP: TestVMMSuiteFake/Facts (0.00s)\n    --- PASS: TestVMMSuiteFake/PowersOff (0.00s)\n", `| VMM | Fake, host | Fake, lab |
| --- | --- | --- |
| Facts | passed | SKIPPED |
| PowersOff | n/a | passed |

n/a: Fake, host, PowersOff: it cannot

`, false},
	} {
		t.Run(name, func(t *testing.T) {
			all := Suites{}
			for _, from := range [][2]string{{"host", printed}, {"lab", tt.lab}} {
				if err := all.Read(from[0], strings.NewReader(from[1])); err != nil {
					t.Fatal(err)
				}
			}
			var out strings.Builder
			if good := all.Print(&out); good != tt.good || out.String() != tt.want {
				t.Errorf("Print = %v:\n%s\nwant %v:\n%s", good, out.String(), tt.good, tt.want)
			}
		})
	}
}

func TestNothingIsNotGood(t *testing.T) {
	if (Suites{}).Print(new(strings.Builder)) {
		t.Error("no suite at all, and all is well")
	}
}
