package transfer

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"

	"banger/internal/guest/wire"
)

func dirItem(name string) *wire.CopyItem {
	return &wire.CopyItem{Msg: &wire.CopyItem_Dir{Dir: &wire.CopyDir{Name: []byte(name), Mode: 0o7777}}}
}

func linkItem(name, target string) *wire.CopyItem {
	return &wire.CopyItem{Msg: &wire.CopyItem_Link{Link: &wire.CopyLink{Name: []byte(name), Target: []byte(target)}}}
}

func holeItem(n int64) *wire.CopyItem { return &wire.CopyItem{Msg: &wire.CopyItem_Hole{Hole: n}} }

func totalItem(n int64) *wire.CopyItem {
	return &wire.CopyItem{Msg: &wire.CopyItem_Total{Total: &wire.CopyTotal{Bytes: n}}}
}

func sized(name string, size int64, data string) *wire.CopyItem {
	return fileItem(&wire.CopyFile{Name: []byte(name), SizeBytes: size, Data: []byte(data)})
}

func offerItem(n int, f *wire.CopyFile) *wire.CopyItem {
	files := slices.Repeat([]*wire.CopyFile{f}, n)
	return &wire.CopyItem{Msg: &wire.CopyItem_Offer{Offer: &wire.CopyOffer{Files: files}}}
}

// What a hostile end may send in a directory, and what comes of it.
func TestHostile(t *testing.T) {
	deep := slices.Repeat([]*wire.CopyItem{dirItem("d")}, maxDepth+1)
	for name, items := range map[string][]*wire.CopyItem{
		"dot dot":              {dirItem(""), sized("..", 1, "x")},
		"dot dot slash":        {dirItem(""), sized("../evil", 1, "x")},
		"absolute":             {dirItem(""), sized("/evil", 1, "x")},
		"slash inside":         {dirItem(""), sized("a/b", 1, "x")},
		"dot":                  {dirItem(""), sized(".", 1, "x")},
		"no name":              {dirItem(""), sized("", 1, "x")},
		"zero byte":            {dirItem(""), sized("a\x00b", 1, "x")},
		"long name":            {dirItem(""), sized(strings.Repeat("n", 256), 1, "x")},
		"directory dot dot":    {dirItem(""), dirItem(".."), sized("evil", 1, "x")},
		"link dot dot":         {dirItem(""), linkItem("../evil", "x")},
		"a part's name":        {dirItem(""), sized(stageName("x", 1, 1), 1, "x")},
		"twice":                {dirItem(""), sized("a", 1, "x"), sized("a", 1, "y")},
		"descending":           {dirItem(""), sized("b", 1, "x"), sized("a", 1, "y")},
		"through a link":       {dirItem(""), linkItem("l", "../outside"), dirItem("l"), sized("evil", 1, "x")},
		"file over its dir":    {dirItem(""), dirItem("d"), leaveItem(), sized("d", 1, "x")},
		"link to nothing":      {dirItem(""), linkItem("l", "")},
		"long link":            {dirItem(""), linkItem("l", strings.Repeat("x", 4096))},
		"link at the top":      {linkItem("", "outside")},
		"more than asked for":  {dirItem(""), leaveItem(), dirItem(""), leaveItem()},
		"another file":         {sized("", 1, "x"), sized("evil", 1, "x")},
		"too deep":             append([]*wire.CopyItem{dirItem("")}, deep...),
		"leave the top":        {leaveItem()},
		"longer than its size": {sized("", 2, "xx"), dataItem([]byte("x"))},
		"much longer":          {sized("", 2, "xxx")},
		"shorter":              {dirItem(""), sized("a", 3, "x"), sized("b", 1, "x")},
		"shorter at the end":   {sized("", 3, "x"), doneItem()},
		"negative size":        {sized("", -1, "")},
		"negative hole":        {sized("", 5, ""), holeItem(-1)},
		"long hole":            {sized("", 5, ""), holeItem(6)},
		"overflowing hole":     {sized("", math.MaxInt64, "x"), holeItem(math.MaxInt64)},
		"hole in a stream":     {fileItem(&wire.CopyFile{Unsized: true}), holeItem(1)},
		"end of no stream":     {sized("", 5, "x"), endItem()},
		"size and none":        {fileItem(&wire.CopyFile{Unsized: true, SizeBytes: 5})},
		"offset of nothing":    {fileItem(&wire.CopyFile{SizeBytes: 5, Offset: 3})},
		"negative offset":      {fileItem(&wire.CopyFile{SizeBytes: 5, Offset: -3})},
		"data of nothing":      {dataItem([]byte("x"))},
		"hole of nothing":      {holeItem(1)},
		"done at once":         {doneItem()},
		"done inside":          {dirItem(""), doneItem()},
		"two totals":           {totalItem(1), totalItem(1)},
		"no item":              {{}},
		"nil":                  {nil},
		"large offer":          {dirItem(""), offerItem(maxOffer+1, &wire.CopyFile{Name: []byte("x")})},
		"offer outside":        {dirItem(""), offerItem(1, &wire.CopyFile{Name: []byte("../outside/f"), SizeBytes: 3})},
		"negative offer":       {dirItem(""), offerItem(1, &wire.CopyFile{Name: []byte("x"), SizeBytes: -1})},
		"two offers at top":    {offerItem(2, &wire.CopyFile{SizeBytes: 3})},
		"gives up":             {dirItem(""), sized("a", 3, "x"), abortItem()},
	} {
		t.Run(name, func(t *testing.T) {
			t.Chdir(t.TempDir())
			put(t, "outside/f", []byte("old"))
			before := snapshot(t, ".")
			r, err := NewReceiver("dst", named("src"))
			must(t, err)
			defer r.Close()
			for _, it := range items {
				if _, err = r.Item(context.Background(), it); err != nil {
					break
				}
			}
			var pe *fs.PathError
			if !errors.Is(err, ErrInvalid) && !errors.Is(err, ErrAborted) && !errors.As(err, &pe) {
				t.Errorf("not refused: %v", err)
			}
			if r.Whole() {
				t.Error("taken for whole")
			}
			if _, err := r.Item(context.Background(), doneItem()); err == nil {
				t.Error("goes on after an error")
			}
			if name == "more than asked for" || name == "another file" || name == "two offers at top" || name == "longer than its size" {
				must(t, os.RemoveAll("dst")) // what came first was right
			}
			if diff := cmp.Diff(before, snapshot(t, ".")); diff != "" {
				t.Errorf("left: %s", diff)
			}
		})
	}
}

// A directory here that is a link to elsewhere is not gone through, neither is
// one that the copy itself has brought earlier.
func TestHostileSecondCopy(t *testing.T) {
	t.Chdir(t.TempDir())
	put(t, "outside/f", []byte("old"))
	must(t, os.Mkdir("dst", 0o755))
	first := []*wire.CopyItem{dirItem(""), linkItem("d", "../../outside"), linkItem("f", "../../outside/f"), leaveItem(), doneItem()}
	second := []*wire.CopyItem{dirItem(""), dirItem("d"), sized("f", 1, "x")}
	third := []*wire.CopyItem{dirItem(""), sized("f", 1, "x"), leaveItem(), doneItem()}
	for i, items := range [][]*wire.CopyItem{first, second, third} {
		r, err := NewReceiver("dst", named("src"))
		must(t, err)
		for _, it := range items {
			if _, err = r.Item(context.Background(), it); err != nil {
				break
			}
		}
		must(t, r.Close())
		if refused := err != nil; refused != (i == 1) {
			t.Errorf("copy %d: %v", i, err)
		}
	}
	got := snapshot(t, "outside")
	if len(got) != 1 {
		t.Errorf("outside: %v", got)
	}
	if b, err := os.ReadFile("outside/f"); err != nil || string(b) != "old" {
		t.Errorf("outside/f: %q, %v", b, err)
	}
}

func TestHostileWriter(t *testing.T) {
	for name, items := range map[string][]*wire.CopyItem{
		"directory":  {dirItem("")},
		"link":       {linkItem("", "x")},
		"two files":  {sized("", 1, "x"), sized("", 1, "x")},
		"longer":     {sized("", 1, "x"), dataItem([]byte("y"))},
		"shorter":    {sized("", 2, "x"), doneItem()},
		"no file":    {doneItem()},
		"early data": {dataItem([]byte("x"))},
		"hole":       {sized("", 1, ""), holeItem(2)},
		"negative":   {sized("", -2, "")},
		"wrong end":  {sized("", 2, "x"), endItem()},
		"offset":     {fileItem(&wire.CopyFile{SizeBytes: 3, Offset: 1})},
		"offer":      {offerItem(1, nil)},
		"gives up":   {abortItem()},
		"nil":        {nil},
	} {
		var out bytes.Buffer
		w := NewWriter(&out, nil)
		var err error
		for _, it := range items {
			if _, err = w.Item(context.Background(), it); err != nil {
				break
			}
		}
		if err == nil || w.Whole() || out.Len() > 1 {
			t.Errorf("%s: %v, %d bytes", name, err, out.Len())
		}
	}
	w := NewWriter(io.Discard, nil)
	for _, it := range []*wire.CopyItem{sized("", 9, "x"), holeItem(7), dataItem([]byte("y")), doneItem()} {
		if _, err := w.Item(context.Background(), it); err != nil {
			t.Error(err)
		}
	}
	if !w.Whole() || w.done != 9 {
		t.Errorf("%d bytes of 9", w.done)
	}
}

// FuzzReceiver feeds a receiver with items, each behind its length in a byte.
func FuzzReceiver(f *testing.F) {
	seed := func(items ...*wire.CopyItem) {
		var b []byte
		for _, it := range items {
			m, err := proto.Marshal(it)
			if err != nil || len(m) > 255 {
				f.Fatal(err, len(m))
			}
			b = append(append(b, byte(len(m))), m...)
		}
		f.Add(b)
	}
	seed(totalItem(3), dirItem(""), sized("a", 3, "abc"), linkItem("l", "../out"), leaveItem(), doneItem())
	seed(dirItem(""), linkItem("l", "../.."), dirItem("l"), sized("f", 1, "x"))
	seed(sized("", 9, "x"), holeItem(3), dataItem([]byte("12345")), doneItem())
	seed(dirItem(""), offerItem(3, &wire.CopyFile{Name: []byte("x"), SizeBytes: 7}), dirItem(".."), sized("evil", 0, ""))
	seed(fileItem(&wire.CopyFile{Unsized: true}), dataItem([]byte("x")), endItem(), doneItem())
	f.Fuzz(func(t *testing.T, b []byte) {
		dir := t.TempDir()
		for _, target := range []string{"dir", "new"} {
			put(t, dir+"/dir/src/sub/f", []byte("old"))
			put(t, dir+"/outside", []byte("old"))
			must(t, os.Symlink("../../outside", dir+"/dir/src/z"))
			feed(t, dir+"/"+target, b)
			if got, err := os.ReadFile(dir + "/outside"); err != nil || string(got) != "old" {
				t.Errorf("outside: %q, %v", got, err)
			}
			for _, name := range names(t, dir) { // files with holes may be too large to read
				if first, _, _ := strings.Cut(name, "/"); first != "dir" && first != "outside" && first != "new" && !isStage(first) {
					t.Errorf("made %q", name)
				}
			}
			must(t, os.RemoveAll(dir+"/dir"))
			must(t, os.RemoveAll(dir+"/new"))
		}
	})
}

// feed gives a receiver what b holds, and checks what it keeps of it.
func feed(t *testing.T, target string, b []byte) {
	r, err := NewReceiver(target, ReceiveOptions{Names: []string{"src"}, Resume: len(b)%2 == 0})
	must(t, err)
	defer r.Close()
	for len(b) > 0 {
		n := min(int(b[0])+1, len(b))
		it := &wire.CopyItem{}
		if proto.Unmarshal(b[1:n], it) != nil {
			return
		}
		b = b[n:]
		if _, err := r.Item(context.Background(), it); err != nil {
			if len(parts(t, filepath.Dir(target))) > 0 {
				t.Errorf("a part is left after %v", err)
			}
			return
		}
	}
}
