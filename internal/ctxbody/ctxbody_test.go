package ctxbody

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"
)

// A client whose context ends while it sends nothing is heard of.
func TestServerHearsOfTheEnd(t *testing.T) {
	gone := make(chan struct{})
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(200)
		w.(http.Flusher).Flush()
		<-r.Context().Done()
		close(gone)
	}))
	srv.Config.Protocols = new(http.Protocols)
	srv.Config.Protocols.SetUnencryptedHTTP2(true)
	srv.Start()
	defer srv.Close()
	tr := &http.Transport{Protocols: srv.Config.Protocols}
	defer tr.CloseIdleConnections()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	idle, w := io.Pipe() // a request that never ends and never says more
	defer w.Close()
	r, err := http.NewRequestWithContext(ctx, "POST", srv.URL, idle)
	if err != nil {
		t.Fatal(err)
	}
	res, err := RoundTripper{tr}.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	cancel()
	select {
	case <-gone:
	case <-time.After(5 * time.Second):
		t.Error("the server goes on")
	}
}
