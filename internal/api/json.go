package api

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// Marshal writes a message as people and scripts get it by --json: one
// document, indented by two spaces, with a newline at its end.
//
// Fields have their names in the protocol and come in the order of their
// numbers. Every field is there: lists and maps are never null, what is absent
// (a message, an optional field, a member of a oneof that is not set) is.
// Integers are JSON numbers (protojson, for one, writes those of 64 bits as
// strings), times RFC 3339 in UTC, durations seconds, bytes base64. A time or
// duration that is none is an error.
func Marshal(m proto.Message) ([]byte, error) {
	w := jsonWriter{}
	if err := w.message(m.ProtoReflect()); err != nil {
		return nil, fmt.Errorf("encode %s: %w", m.ProtoReflect().Descriptor().Name(), err)
	}
	return append(w.buf, '\n'), nil
}

// jsonWriter appends JSON values to buf.
type jsonWriter struct {
	buf   []byte
	depth int // of what is open
}

func (w *jsonWriter) raw(s string) { w.buf = append(w.buf, s...) }

func (w *jsonWriter) newline() {
	w.raw("\n" + strings.Repeat("  ", w.depth))
}

// group writes n values between open and close, each on a line of its own.
func (w *jsonWriter) group(open, end string, n int, value func(i int) error) error {
	w.raw(open)
	w.depth++
	for i := range n {
		if i > 0 {
			w.raw(",")
		}
		w.newline()
		if err := value(i); err != nil {
			return err
		}
	}
	w.depth--
	if n > 0 {
		w.newline()
	}
	w.raw(end)
	return nil
}

func (w *jsonWriter) message(m protoreflect.Message) error {
	switch v := m.Interface().(type) {
	case *timestamppb.Timestamp:
		if err := v.CheckValid(); err != nil {
			return err
		}
		return w.string(v.AsTime().UTC().Format(time.RFC3339Nano))
	case *durationpb.Duration:
		if err := v.CheckValid(); err != nil {
			return err
		}
		return w.float(float64(v.Seconds) + float64(v.Nanos)/1e9)
	}
	fields := m.Descriptor().Fields()
	order := make([]protoreflect.FieldDescriptor, fields.Len())
	for i := range order {
		order[i] = fields.Get(i)
	}
	slices.SortFunc(order, func(a, b protoreflect.FieldDescriptor) int { return int(a.Number()) - int(b.Number()) })
	return w.group("{", "}", len(order), func(i int) error {
		w.raw(strconv.Quote(string(order[i].Name())) + ": ")
		return w.field(m, order[i])
	})
}

func (w *jsonWriter) field(m protoreflect.Message, f protoreflect.FieldDescriptor) error {
	switch {
	case f.IsList():
		l := m.Get(f).List()
		return w.group("[", "]", l.Len(), func(i int) error { return w.value(f, l.Get(i)) })
	case f.IsMap():
		return w.mapping(f, m.Get(f).Map())
	case f.HasPresence() && !m.Has(f):
		w.raw("null")
		return nil
	}
	return w.value(f, m.Get(f))
}

// mapping writes a map, sorted by its keys as text.
func (w *jsonWriter) mapping(f protoreflect.FieldDescriptor, m protoreflect.Map) error {
	values := make(map[string]protoreflect.Value, m.Len())
	m.Range(func(k protoreflect.MapKey, v protoreflect.Value) bool {
		values[k.String()] = v
		return true
	})
	keys := slices.Sorted(maps.Keys(values))
	return w.group("{", "}", len(keys), func(i int) error {
		if err := w.string(keys[i]); err != nil {
			return err
		}
		w.raw(": ")
		return w.value(f.MapValue(), values[keys[i]])
	})
}

func (w *jsonWriter) value(f protoreflect.FieldDescriptor, v protoreflect.Value) error {
	switch x := v.Interface().(type) {
	case bool:
		w.buf = strconv.AppendBool(w.buf, x)
	case int32, int64:
		w.buf = strconv.AppendInt(w.buf, v.Int(), 10)
	case uint32, uint64:
		w.buf = strconv.AppendUint(w.buf, v.Uint(), 10)
	case float32, float64:
		return w.float(v.Float())
	case string:
		return w.string(x)
	case []byte:
		return w.string(base64.StdEncoding.EncodeToString(x))
	case protoreflect.EnumNumber:
		if d := f.Enum().Values().ByNumber(x); d != nil {
			return w.string(string(d.Name()))
		}
		w.buf = strconv.AppendInt(w.buf, int64(x), 10)
	case protoreflect.Message:
		return w.message(x)
	}
	return nil
}

// float writes a number; JSON has none that are infinite or not a number.
func (w *jsonWriter) float(x float64) error {
	if math.IsNaN(x) || math.IsInf(x, 0) {
		w.raw("null")
		return nil
	}
	b, err := json.Marshal(x)
	w.buf = append(w.buf, b...)
	return err
}

func (w *jsonWriter) string(s string) error {
	var b strings.Builder
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(s); err != nil {
		return err
	}
	w.raw(strings.TrimSuffix(b.String(), "\n"))
	return nil
}
