package api

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"

	"connectrpc.com/connect"

	"banger/internal/errkind"
)

// answering answers the calls that the tests here make.
type answering struct {
	UnimplementedVMServiceHandler
	UnimplementedDaemonServiceHandler
}

func (answering) List(context.Context, *connect.Request[ListRequest]) (*connect.Response[ListResponse], error) {
	return connect.NewResponse(&ListResponse{}), nil
}

func (answering) Show(context.Context, *connect.Request[ShowRequest]) (*connect.Response[ShowResponse], error) {
	return nil, errkind.WithHint(errkind.New(errkind.NotFound, "no machine"), "banger vm list")
}

func (answering) Logs(_ context.Context, _ *connect.Request[LogsRequest], s *connect.ServerStream[LogsResponse]) error {
	if err := s.Send(&LogsResponse{Data: []byte("x")}); err != nil {
		return err
	}
	return errkind.New(errkind.Conflict, "log is gone")
}

func (answering) Status(context.Context, *connect.Request[StatusRequest]) (*connect.Response[StatusResponse], error) {
	return connect.NewResponse(&StatusResponse{Pid: 7}), nil
}

// serve answers with the server's interceptor; requests and answers go through
// change.
func serve(t *testing.T, log func(string, error), request, answer func(http.Header)) string {
	t.Helper()
	mux := http.NewServeMux()
	opt := connect.WithInterceptors(NewServerInterceptor(log))
	mux.Handle(NewVMServiceHandler(answering{}, opt))
	mux.Handle(NewDaemonServiceHandler(answering{}, opt))
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if request != nil {
			request(r.Header)
		}
		mux.ServeHTTP(&headerWriter{w, answer}, r)
	}))
	srv.EnableHTTP2 = true
	srv.Start()
	t.Cleanup(srv.Close)
	return srv.URL
}

type headerWriter struct {
	http.ResponseWriter
	change func(http.Header)
}

func (w *headerWriter) WriteHeader(code int) {
	if w.change != nil {
		w.change(w.Header())
	}
	w.ResponseWriter.WriteHeader(code)
}

func (w *headerWriter) Write(b []byte) (int, error) {
	if w.change != nil {
		w.change(w.Header())
	}
	return w.ResponseWriter.Write(b)
}

func (w *headerWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
func (w *headerWriter) Flush()                      { w.ResponseWriter.(http.Flusher).Flush() }

func TestCallsAndErrors(t *testing.T) {
	var mu sync.Mutex
	var logged []string
	url := serve(t, func(call string, err error) {
		mu.Lock()
		defer mu.Unlock()
		logged = append(logged, call+" "+string(errkind.Of(err)))
	}, nil, nil)
	c := NewVMServiceClient(http.DefaultClient, url, connect.WithInterceptors(NewClientInterceptor()))
	if _, err := c.List(t.Context(), connect.NewRequest(&ListRequest{})); err != nil {
		t.Fatal(err)
	}
	_, err := c.Show(t.Context(), connect.NewRequest(&ShowRequest{}))
	if errkind.Of(err) != errkind.NotFound || err.Error() != "no machine" || len(errkind.Hints(err)) != 1 {
		t.Errorf("Show = %v, kind %s, hints %q", err, errkind.Of(err), errkind.Hints(err))
	}
	s, err := c.Logs(t.Context(), connect.NewRequest(&LogsRequest{}))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if !s.Receive() || string(s.Msg().Data) != "x" || s.Receive() {
		t.Errorf("Logs sent %q", s.Msg().Data)
	}
	if err := s.Err(); errkind.Of(err) != errkind.Conflict || err.Error() != "log is gone" {
		t.Errorf("Logs = %v", err)
	}
	mu.Lock()
	defer mu.Unlock()
	if want := []string{VMServiceShowProcedure + " not_found", VMServiceLogsProcedure + " conflict"}; !slices.Equal(logged, want) {
		t.Errorf("logged %q, want %q", logged, want)
	}
}

// Another version is refused by both ends, with words on what to restart, but
// the daemon can still be asked what it is, and ended.
func TestVersions(t *testing.T) {
	set := func(v string) func(http.Header) {
		return func(h http.Header) {
			if h.Del(header); v != "" {
				h.Set(header, v)
			}
		}
	}
	tests := []struct {
		name            string
		request, answer func(http.Header)
	}{
		{"newer client", set("2"), nil},
		{"garbage client", set("one"), nil},
		{"client without a version", set(""), nil},
		{"newer daemon", nil, set("2")},
		{"daemon without a version", nil, set("")},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			url := serve(t, nil, tt.request, tt.answer)
			opt := connect.WithInterceptors(NewClientInterceptor())
			vms := NewVMServiceClient(http.DefaultClient, url, opt)
			_, err := vms.List(t.Context(), connect.NewRequest(&ListRequest{}))
			wantMismatch(t, err)
			s, err := vms.Logs(t.Context(), connect.NewRequest(&LogsRequest{}))
			if err == nil {
				s.Receive()
				err = s.Err()
				s.Close()
			}
			wantMismatch(t, err)
			st, err := NewDaemonServiceClient(http.DefaultClient, url, opt).Status(t.Context(), connect.NewRequest(&StatusRequest{}))
			if err != nil || st.Msg.Pid != 7 {
				t.Errorf("Status = %v, %v", st, err)
			}
		})
	}
}

func wantMismatch(t *testing.T, err error) {
	t.Helper()
	if errkind.Of(err) != errkind.Conflict || len(errkind.Hints(err)) != 2 {
		t.Errorf("%v, kind %s, hints %q", err, errkind.Of(err), errkind.Hints(err))
	}
}

func TestUnknownCallAndNoDaemon(t *testing.T) {
	url := serve(t, nil, nil, nil)
	opt := connect.WithInterceptors(NewClientInterceptor())
	_, err := NewImageServiceClient(http.DefaultClient, url, opt).ListImages(t.Context(), connect.NewRequest(&ListImagesRequest{}))
	if err == nil {
		t.Error("a service that is not there answered")
	}
	_, err = NewVMServiceClient(http.DefaultClient, url, opt).Start(t.Context(), connect.NewRequest(&StartRequest{}))
	if err != nil {
		t.Fatal(err)
	}
	_, err = NewVMServiceClient(http.DefaultClient, "http://127.0.0.1:1", opt).List(t.Context(), connect.NewRequest(&ListRequest{}))
	if !errors.Is(err, ErrLost) {
		t.Errorf("without a daemon: %v", err)
	}
}
