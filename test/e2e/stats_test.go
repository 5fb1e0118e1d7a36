//go:build e2e

package e2e

import (
	"encoding/json"
	"testing"
)

// A machine that computes, writes and sends is seen to.
func TestStats(t *testing.T) {
	b := newBed(t)
	b.must("vm", "create", "web")
	look := func() map[string]any {
		t.Helper()
		var doc struct{ VMs []map[string]any }
		must(t, json.Unmarshal([]byte(b.must("vm", "stats", "--json", "web")), &doc))
		if len(doc.VMs) != 1 || doc.VMs[0]["guest"] == nil {
			t.Fatalf("%v", doc)
		}
		return doc.VMs[0]
	}
	before := look()
	b.must("vm", "exec", "web", "--", "sh", "-c",
		"head -c 20000000 /dev/urandom > /root/here; head -c 30000000 /dev/urandom > /there; sync; ping -c 5 -s 1000 $(ip route | awk '/default/ {print $3}') || true")
	after := look()
	for key, least := range map[string]float64{
		"cpu_seconds": 0.1, "uptime_seconds": 0.1, "net_out_bytes": 1000,
		"disk_written_bytes": 50e6, "root_disk_bytes": 30e6, "work_disk_bytes": 20e6,
	} {
		was, _ := before[key].(float64)
		is, _ := after[key].(float64)
		if is-was < least {
			t.Errorf("%s was %v and is %v", key, was, is)
		}
	}
	if rss, _ := after["resident_bytes"].(float64); rss < 20e6 {
		t.Errorf("%v bytes resident", rss)
	}
}
