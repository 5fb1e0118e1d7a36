// Package ctxbody ends an HTTP stream with its request's context.
//
// Once an answer has begun, net/http's HTTP/2 looks at the context no more
// while it waits for more of the request: the server would never hear that a
// client with nothing to send has gone, and what it does for it would go on.
package ctxbody

import (
	"context"
	"io"
	"net/http"
)

// Bind closes the body of res, and with it the stream on both sides, when ctx
// ends.
func Bind(ctx context.Context, res *http.Response) {
	raw := res.Body
	res.Body = &body{raw, context.AfterFunc(ctx, func() { raw.Close() })}
}

// RoundTripper binds every answer of Base to its request's context.
type RoundTripper struct {
	Base http.RoundTripper // required
}

// RoundTrip makes the request; see [http.RoundTripper].
func (t RoundTripper) RoundTrip(r *http.Request) (*http.Response, error) {
	res, err := t.Base.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	Bind(r.Context(), res)
	return res, nil
}

type body struct {
	io.ReadCloser
	stop func() bool
}

func (b *body) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil {
		b.stop()
	}
	return n, err
}

func (b *body) Close() error {
	b.stop()
	return b.ReadCloser.Close()
}
