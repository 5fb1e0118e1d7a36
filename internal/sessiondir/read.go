package sessiondir

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// A Query says what of the logs is wanted.
type Query struct {
	Streams []Stream // one, or both

	// Tail is how many lines before the end to begin with: 0 is from the
	// beginning, negative is none of what is there. A last line without a
	// newline is one. Of both streams it is the lines of both together.
	Tail int

	// Since, if not zero, begins at the first line that was written then or
	// later, as far as the index tells: about 10 ms, or coarser if little is
	// written at a time. With Tail, what begins later counts. What comes while
	// following is given whatever its time.
	Since time.Time

	// From has where to begin in a stream, as a logical offset, whatever Tail
	// and Since say. If it has that of one of two, Tail and Since are about the
	// other one alone.
	From map[Stream]int64
}

// A Chunk is a part of one stream.
type Chunk struct {
	Stream Stream
	Offset int64  // logical, of the first byte of Data
	Data   []byte // not empty, at most 64 KiB; valid during the call alone

	// Time is when the first byte was written, as far as the index tells; zero
	// if it does not.
	Time time.Time

	// Mark says that Data is not of the stream, but a line of its own about
	// bytes that are missing, with a newline in front if the chunk before ended
	// within a line. The stream goes on at Offset.
	Mark bool
}

// Read gives what of the logs there is now; logs that are not there are empty.
//
// One stream is given byte by byte, in chunks that are parted anywhere. Both
// are merged by line, in the order in which the lines were begun, in chunks of
// whole lines: only a line of more than 64 KiB comes in several, with nothing
// between them. A last line that has no newline is given as it is. Without an
// index the lines of stdout come first.
//
// If bytes are missing within what is wanted, or before, a mark says so. What
// cannot be read is left out, with a mark, and told by the error, a
// [ReadError], when all else has been given. An error of emit ends it at once.
//
// It may be called concurrently, also with the writer.
func Read(ctx context.Context, d Dir, q Query, emit func(Chunk) error) error {
	r, err := open(ctx, d, q, emit)
	if err != nil {
		return err
	}
	defer r.close()
	if err := r.rest(ctx); err != nil {
		return err
	}
	return r.errors()
}

// Follow gives what there is, as [Read] does, and goes on with what comes. wait
// is called when all was read: it returns when there may be something new, and
// reports whether the session has ended, after which nothing comes. Follow
// returns when all of an ended session was given, when wait or emit fails, or
// when something cannot be read.
//
// Of both streams, a line that is not finished is held back until it is, until
// 64 KiB of it are there, or until the session ends. The other stream does not
// wait for it, and if more of a long line is long in coming, lines of the other
// come between its parts.
//
// A reader that was so slow that bytes went before it came to them is told by a
// mark. It is given nothing twice.
func Follow(ctx context.Context, d Dir, q Query, wait func(context.Context) (ended bool, err error), emit func(Chunk) error) error {
	r, err := open(ctx, d, q, emit)
	if err != nil {
		return err
	}
	defer r.close()
	for ended := false; ; {
		if err := r.news(ctx); err != nil {
			return err
		}
		if err := r.errors(); err != nil || ended {
			return errors.Join(r.rest(ctx), r.errors())
		}
		if ended, err = wait(ctx); err != nil {
			return err
		}
	}
}

// A reader gives one stream or both. Its methods return the errors of emit and
// ctx, at once; errors returns the others.
type reader interface {
	news(context.Context) error // what there is and what has come meanwhile
	rest(context.Context) error // what there was when last looked, all of it
	errors() error
	close()
}

// open returns a reader of what a query asks for.
func open(ctx context.Context, d Dir, q Query, emit func(Chunk) error) (reader, error) {
	var out, err bool
	for _, s := range q.Streams {
		switch s {
		case Stdout:
			out = true
		case Stderr:
			err = true
		default:
			return nil, fmt.Errorf("read logs: there is no stream %q", s)
		}
	}
	switch {
	case out && err:
		return openMerged(ctx, d, q, emit)
	case out || err:
		return openSingle(ctx, d, q, emit)
	}
	return nil, errors.New("read logs: no stream is asked for")
}

// A single reads one stream.
type single struct {
	src  *source
	emit func(Chunk) error
	buf  []byte
}

func openSingle(ctx context.Context, d Dir, q Query, emit func(Chunk) error) (reader, error) {
	s := &single{src: openSource(d, q.Streams[0]), emit: emit, buf: make([]byte, chunkSize)}
	if err := s.src.toStart(ctx, q); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

func (s *single) rest(ctx context.Context) error {
	for {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		p := s.src.read(s.buf)
		if len(p.data) == 0 {
			return nil
		}
		if err := s.emit(s.src.chunk(p)); err != nil {
			return err
		}
	}
}

func (s *single) news(ctx context.Context) error {
	for {
		if err := s.rest(ctx); err != nil {
			return err
		}
		if !s.src.look() {
			return nil
		}
	}
}

func (s *single) errors() error { return errors.Join(s.src.errs...) }

func (s *single) close() { s.src.close() }

// chunk is a piece as it is given.
func (s *source) chunk(p piece) Chunk {
	return Chunk{Stream: s.stream, Offset: p.offset, Data: p.data, Time: s.entry(p.offset).at(), Mark: p.mark}
}
