package firecracker

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"banger/internal/errkind"
)

// serve returns a client of an API that is served by h.
func serve(t *testing.T, h http.HandlerFunc) *client {
	t.Helper()
	sock := filepath.Join(fakeSpec(t).Dir, "sock")
	l, err := net.Listen("unix", sock)
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: h}
	go srv.Serve(l) // ends with Close
	t.Cleanup(func() { srv.Close() })
	c := newClient(sock, func(net.Conn) error { return nil })
	t.Cleanup(c.Close)
	return c
}

// Each call says what the API takes (src/firecracker/swagger/firecracker.yaml).
func TestCalls(t *testing.T) {
	var got string
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		got = strings.TrimSpace(r.Method + " " + r.URL.Path + " " + string(body))
		w.WriteHeader(http.StatusNoContent)
	})
	ctx := t.Context()
	for want, err := range map[string]func() error{
		`PUT /machine-config {"vcpu_count":2,"mem_size_mib":256,"smt":false,"track_dirty_pages":false}`: func() error { return c.setMachine(ctx, machineConfig{VCPUs: 2, MemoryMiB: 256}) },
		`PUT /boot-source {"kernel_image_path":"/k","initrd_path":"/i","boot_args":"a b"}`:              func() error { return c.setBootSource(ctx, bootSource{"/k", "/i", "a b"}) },
		`PUT /drives/disk0 {"drive_id":"disk0","path_on_host":"r","is_root_device":false,"is_read_only":false,"cache_type":"Writeback","io_engine":"Async"}`: func() error {
			return c.setDrive(ctx, drive{ID: "disk0", Path: "r", Cache: cacheWriteback, IOEngine: "Async"})
		},
		`PUT /network-interfaces/net0 {"iface_id":"net0","host_dev_name":"t0","guest_mac":"02:00:00:00:00:01"}`: func() error { return c.setNIC(ctx, networkInterface{"net0", "t0", "02:00:00:00:00:01"}) },
		`PUT /vsock {"guest_cid":3,"uds_path":"run/agent.sock"}`:                                                func() error { return c.setVsock(ctx, vsockDevice{3, "run/agent.sock"}) },
		`PUT /entropy {}`:                    func() error { return c.setEntropy(ctx, entropyDevice{}) },
		`PUT /metrics {"metrics_path":"/m"}`: func() error { return c.setMetrics(ctx, metricsConfig{"/m"}) },
		`PUT /logger {"log_path":"/l","level":"Info","show_level":true}`: func() error {
			return c.setLogger(ctx, loggerConfig{Path: "/l", Level: "Info", ShowLevel: true})
		},
		`PUT /actions {"action_type":"InstanceStart"}`: func() error { return c.start(ctx) },
		`PUT /actions {"action_type":"FlushMetrics"}`:  func() error { return c.flushMetrics(ctx) },
		`PATCH /vm {"state":"Paused"}`:                 func() error { return c.pause(ctx) },
		`PATCH /vm {"state":"Resumed"}`:                func() error { return c.resume(ctx) },
		`PUT /snapshot/create {"snapshot_type":"Diff","snapshot_path":"s","mem_file_path":"m"}`: func() error {
			return c.createSnapshot(ctx, snapshotCreate{snapshotDiff, "s", "m"})
		},
		`PUT /snapshot/load {"snapshot_path":"s","mem_backend":{"backend_type":"File","backend_path":"m"},"resume_vm":true,"network_overrides":[{"iface_id":"net0","host_dev_name":"t1"}]}`: func() error {
			return c.loadSnapshot(ctx, snapshotLoad{State: "s", Memory: memoryBackend{memoryFile, "m"}, Resume: true, Overrides: []networkOverride{{"net0", "t1"}}})
		},
	} {
		if err := err(); err != nil {
			t.Errorf("%s: %v", want, err)
		}
		if got != want {
			t.Errorf("the call was\n%s, want\n%s", got, want)
		}
	}
}

func TestAnswers(t *testing.T) {
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		answers := map[string]string{
			"/":               `{"id":"a1","state":"Paused","vmm_version":"1.12.1","app_name":"Firecracker"}`,
			"/version":        `{"firecracker_version":"1.12.1"}`,
			"/machine-config": `{"vcpu_count":2,"mem_size_mib":256,"smt":false,"cpu_template":"None"}`,
			"/vm/config":      `{"balloon":null,"drives":[{"drive_id":"disk0","rate_limiter":null,"path_on_host":"r","cache_type":"Writeback"}],"vsock":{"guest_cid":3,"uds_path":"run/agent.sock"}}`,
		}
		io.WriteString(w, answers[r.URL.Path])
	})
	info, err := c.describe(t.Context())
	if want := (instanceInfo{"Firecracker", "a1", statePaused, "1.12.1"}); err != nil || info != want {
		t.Errorf("describe = %+v, %v", info, err)
	}
	if v, err := c.version(t.Context()); err != nil || v != "1.12.1" {
		t.Errorf("version = %q, %v", v, err)
	}
	if m, err := c.machine(t.Context()); err != nil || m != (machineConfig{VCPUs: 2, MemoryMiB: 256}) {
		t.Errorf("machine = %+v, %v", m, err)
	}
	got, err := c.config(t.Context())
	want := vmConfig{Drives: []drive{{ID: "disk0", Path: "r", Cache: cacheWriteback}}, Vsock: &vsockDevice{3, "run/agent.sock"}}
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("config: %v (-want +got):\n%s", err, diff)
	}
}

// Whatever a VMM that was broken into answers, it is an error, and a short one.
func TestHostileAnswers(t *testing.T) {
	long := strings.Repeat("x", 4<<20)
	for name, h := range map[string]http.HandlerFunc{
		"endless": func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, long) },
		"long fault": func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(400)
			io.WriteString(w, `{"fault_message":"`+long[:1<<19]+`"}`)
		},
		"no reason": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500); io.WriteString(w, "<html>") },
		"escapes": func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(400)
			io.WriteString(w, `{"fault_message":"\u001b[31m\nno"}`)
		},
		"no JSON":     func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "hello") },
		"wrong types": func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, `{"state":[]}`) },
		"sends us away": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://192.0.2.1/", http.StatusFound)
		},
		"long header": func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("X", long[:1<<20]) },
	} {
		t.Run(name, func(t *testing.T) {
			_, err := serve(t, h).describe(t.Context())
			if err == nil {
				t.Fatal("describe succeeded")
			}
			if text := err.Error(); len(text) > 2*maxFault || strings.ContainsAny(text, "\n\x1b") || !strings.HasPrefix(text, "GET /: ") {
				t.Errorf("describe = %q", text[:min(len(text), 3*maxFault)])
			}
		})
	}
}

func TestCallEnds(t *testing.T) {
	c := serve(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	why := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(why)
	if _, err := c.describe(ctx); !errors.Is(err, why) {
		t.Errorf("describe = %v, want that it was cancelled", err)
	}
	c.scale = 0.001
	if _, err := c.describe(t.Context()); !errors.Is(err, errNoAnswer) || errkind.Of(err) != errkind.Timeout {
		t.Errorf("describe = %v of kind %s, want that there was no answer", err, errkind.Of(err))
	}
	c.scale = 1
	c.Close()
	if _, err := c.describe(t.Context()); !errors.Is(err, errClosed) {
		t.Errorf("describe = %v, want that the client is closed", err)
	}
}
