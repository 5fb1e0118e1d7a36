package cli

import (
	"bytes"
	"encoding/json"
	"unicode/utf8"

	"banger/internal/api"
)

// A logWriter writes parts of a session's log in one of the forms in which it
// is printed.
type logWriter interface {
	write(*api.SessionLogsResponse) error
	// end is called once, after the last part, with how reading ended, and
	// returns that, or why nothing more could be written.
	end(error) error
}

// logWriter returns the writer that is asked for: of both streams or of one,
// of a log that is followed or not.
func (a *app) logWriter(both, follow bool) logWriter {
	switch {
	case a.json && follow:
		return jsonLines{a}
	case a.json:
		return &jsonLog{app: a}
	case both:
		return &markedLog{app: a}
	}
	return plainLog{a}
}

// plainLog is the bytes as they are.
type plainLog struct{ *app }

func (w plainLog) write(m *api.SessionLogsResponse) error { return w.print(m.GetContent()) }
func (w plainLog) end(err error) error                    { return err }

// markedLog has the stream's name before each line.
type markedLog struct {
	*app
	stream  string // of what was written last
	midLine bool   // which did not end a line
}

func (w *markedLog) write(m *api.SessionLogsResponse) error {
	var b []byte
	if w.midLine && m.GetStream() != w.stream {
		b = append(b, '\n')
		w.midLine = false
	}
	for line := range bytes.Lines(m.GetContent()) {
		if !w.midLine {
			b = append(b, m.GetStream()+" | "...)
		}
		b = append(b, line...)
		w.midLine = line[len(line)-1] != '\n'
	}
	w.stream = m.GetStream()
	return w.print(b)
}

func (w *markedLog) end(err error) error { return err }

// logPart is one part of a log in JSON.
type logPart struct {
	Session       string  `json:"session"`
	Stream        string  `json:"stream"`
	Path          string  `json:"path"`
	Content       *string `json:"content"`        // nil: it is no UTF-8
	ContentBase64 []byte  `json:"content_base64"` // nil: it is
	Offset        int64   `json:"offset"`
	Mark          bool    `json:"mark"`
}

func encodeLogPart(m *api.SessionLogsResponse) ([]byte, error) {
	p := logPart{Session: m.GetSession(), Stream: m.GetStream(), Path: m.GetPath(), Offset: m.GetOffset(), Mark: m.GetMark()}
	if utf8.Valid(m.GetContent()) {
		text := string(m.GetContent())
		p.Content = &text
	} else {
		p.ContentBase64 = m.GetContent()
	}
	return json.Marshal(p)
}

// jsonLines is a document on a line for each part.
type jsonLines struct{ *app }

func (w jsonLines) write(m *api.SessionLogsResponse) error {
	doc, err := encodeLogPart(m)
	if err != nil {
		return err
	}
	return w.print(append(doc, '\n'))
}

func (w jsonLines) end(err error) error { return err }

// jsonLog is one document, however long. There is none if nothing was read
// but an error.
type jsonLog struct {
	*app
	begun bool
}

func (w *jsonLog) write(m *api.SessionLogsResponse) error {
	doc, err := encodeLogPart(m)
	if err != nil {
		return err
	}
	before := ",\n    "
	if !w.begun {
		w.begun = true
		before = "{\n  \"logs\": [\n    "
	}
	return w.print(append([]byte(before), doc...))
}

func (w *jsonLog) end(err error) error {
	var perr error
	switch {
	case w.begun && !isOutput(err):
		perr = w.print([]byte("\n  ]\n}\n"))
	case err == nil:
		perr = w.print([]byte("{\n  \"logs\": []\n}\n"))
	}
	if perr != nil {
		return perr
	}
	return err
}
