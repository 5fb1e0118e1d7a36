package api

import (
	"encoding/json"
	"math"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"banger/internal/guest/wire"
)

func TestMarshalVM(t *testing.T) {
	pid := int32(42)
	got, err := Marshal(&VM{
		Id: "01234567", Name: "web", State: "running", VcpuCount: 2, MemoryBytes: 1 << 40,
		CreatedAt: timestamppb.New(time.Date(2026, 1, 2, 3, 4, 5, 600_000_000, time.FixedZone("", 3600))),
		Labels:    map[string]string{"b": "<&>", "a": "ü\x01\""},
		Handles:   &Handles{Pid: &pid},
	})
	if err != nil {
		t.Fatal(err)
	}
	want := `{
  "id": "01234567",
  "name": "web",
  "state": "running",
  "state_reason": "",
  "image": "",
  "kernel": "",
  "driver": "",
  "vcpu_count": 2,
  "memory_bytes": 1099511627776,
  "disk_bytes": 0,
  "guest_ip": "",
  "mac": "",
  "vsock_cid": 0,
  "api_sock_path": "",
  "vsock_path": "",
  "log_path": "",
  "metrics_path": "",
  "dns_name": "",
  "vm_dir": "",
  "system_overlay": "",
  "work_disk_path": "",
  "last_error": "",
  "created_at": "2026-01-02T02:04:05.6Z",
  "started_at": null,
  "labels": {
    "a": "ü\u0001\"",
    "b": "<&>"
  },
  "ephemeral": false,
  "handles": {
    "pid": 42,
    "tap_device": null,
    "base_loop": null,
    "cow_loop": null,
    "dm_name": null,
    "dm_dev": null
  },
  "network": "",
  "cgroup": "",
  "template": "",
  "purpose": "",
  "auto_pause_seconds": 0
}
`
	if d := cmp.Diff(want, string(got)); d != "" {
		t.Errorf("Marshal of a machine (-want +got):\n%s", d)
	}
}

func TestMarshal(t *testing.T) {
	tests := []struct {
		msg  proto.Message
		want string // compacted
	}{
		{&ListResponse{}, `{"vms":[]}`},
		{&VM{}, `"labels":{},`},
		{&VM{}, `"handles":null`},
		{&ShutdownResponse{}, `{}`},
		{&StopRequest{Grace: durationpb.New(1500 * time.Millisecond)}, `{"vm":"","grace":1.5}`},
		{&StopRequest{}, `{"vm":"","grace":null}`},
		{&BuildImageRequest{Recipe: []byte{0, 255}}, `"recipe":"AP8="`},
		{&ListImagesResponse{Images: []*Image{{Packages: []*Package{{Name: "bash", Version: "5"}}}, {}}}, `"packages":[{"name":"bash","version":"5"}]`},
		{&RunResponse{}, `{"progress":null,"vm":null,"exec":null,"cleanup":null,"notice":null,"trace":null}`},
		{&RunResponse{Msg: &RunResponse_Cleanup{Cleanup: &Cleanup{Warning: "w"}}}, `"cleanup":{"warning":"w"}`},
		{&wire.PowerRequest{Action: wire.PowerRequest_ACTION_REBOOT}, `{"action":"ACTION_REBOOT"}`},
		{&wire.PowerRequest{Action: 99}, `{"action":99}`},
		{&wire.InfoResponse{UptimeSeconds: 0.25, Protocol: math.MaxUint32}, `"protocol":4294967295`},
		{&wire.InfoResponse{UptimeSeconds: math.Inf(1)}, `"uptime_seconds":null`},
	}
	for _, tt := range tests {
		got, err := Marshal(tt.msg)
		if err != nil {
			t.Errorf("Marshal(%v): %v", tt.msg, err)
			continue
		}
		if c := compact(t, got); !strings.Contains(c, tt.want) {
			t.Errorf("Marshal(%v) = %s, want %s in it", tt.msg, c, tt.want)
		}
	}
	if b, err := Marshal(&VM{CreatedAt: &timestamppb.Timestamp{Nanos: -1}}); err == nil {
		t.Errorf("a time that is none was written: %s", b)
	}
	if b, err := Marshal(&StopRequest{Grace: &durationpb.Duration{Seconds: 1, Nanos: -1}}); err == nil {
		t.Errorf("a duration that is none was written: %s", b)
	}
}

func compact(t *testing.T, doc []byte) string {
	t.Helper()
	var b strings.Builder
	for line := range strings.Lines(string(doc)) {
		b.WriteString(strings.TrimSpace(line))
	}
	if !json.Valid(doc) {
		t.Errorf("no JSON: %s", doc)
	}
	return strings.ReplaceAll(b.String(), `": `, `":`)
}

// Whatever a message holds, its JSON form is JSON and gives its text back.
func FuzzMarshal(f *testing.F) {
	f.Add("web", "key", "value\x00", int64(-1), []byte{1})
	f.Add("\u2028", "", "\xff", int64(math.MinInt64), []byte(nil))
	f.Fuzz(func(t *testing.T, name, key, value string, n int64, data []byte) {
		doc, err := Marshal(&VM{Name: name, MemoryBytes: n, Labels: map[string]string{key: value}})
		if err != nil {
			t.Fatal(err)
		}
		var back struct {
			Name   string
			Bytes  int64 `json:"memory_bytes"`
			Labels map[string]string
		}
		if err := json.Unmarshal(doc, &back); err != nil {
			t.Fatalf("%v in %s", err, doc)
		}
		if back.Bytes != n || utf8.ValidString(name) && back.Name != name {
			t.Errorf("%q, %d came back as %q, %d", name, n, back.Name, back.Bytes)
		}
		if utf8.ValidString(key) && utf8.ValidString(value) && back.Labels[key] != value {
			t.Errorf("label %q=%q came back as %q", key, value, back.Labels)
		}
		if doc, err = Marshal(&LogsResponse{Data: data}); err != nil || !json.Valid(doc) {
			t.Errorf("%s, %v", doc, err)
		}
	})
}
