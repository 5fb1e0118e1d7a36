package agent

import (
	"context"
	"errors"
	"io/fs"

	"connectrpc.com/connect"

	"banger/internal/guest/wire"
)

// ListSessions implements the method of the protocol.
func (s service) ListSessions(_ context.Context, req *connect.Request[wire.ListSessionsRequest]) (*connect.Response[wire.ListSessionsResponse], error) {
	ids := req.Msg.Ids
	if len(ids) == 0 {
		var err error
		if ids, err = s.sessions.ids(); err != nil {
			return nil, connect.NewError(connect.CodeInternal, err)
		}
	}
	res := &wire.ListSessionsResponse{}
	for _, id := range ids {
		if err := checkID(id); err != nil {
			return nil, err
		}
		st, err := s.sessions.read(id)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, connect.NewError(connect.CodeInternal, err)
		}
		res.Sessions = append(res.Sessions, st)
	}
	return connect.NewResponse(res), nil
}
