package ext4

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"banger/internal/errkind"
	"banger/internal/hostcmd"
)

const kept = "/kept" // of newGuests

// journal writes a block into the journal of an image, as a crash leaves it
// there, that is to replace the first of the file of [newGuests].
func journal(t *testing.T, path string, block []byte) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "block")
	if err := os.WriteFile(file, block, 0o600); err != nil {
		t.Fatal(err)
	}
	at := strings.TrimSpace(strings.Split(debugfs(t, path, "blocks "+kept), "\n")[1])
	debugfs(t, path, "journal_open", fmt.Sprintf("journal_write -b %s %s", at, file), "journal_close")
}

func readKept(t *testing.T, path string) string {
	t.Helper()
	f, err := openImage(t, path).Open(kept)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(io.NewSectionReader(f, 0, f.Size()))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestReplay(t *testing.T) {
	path, uid := newGuests(t)
	whole := readAll(t, path)
	if err := Replay(t.Context(), path, uid); err != nil {
		t.Errorf("Replay with nothing to do: %v", err)
	}
	if !bytes.Equal(readAll(t, path), whole) {
		t.Error("Replay changed a file system with nothing to do")
	}
	block := make([]byte, blockSize)
	copy(block, "in journal")
	journal(t, path, block)
	if got := readKept(t, path); got != "still here" {
		t.Errorf("before Replay it reads %q", got)
	}
	for range 2 {
		if err := Replay(t.Context(), path, uid); err != nil {
			t.Fatal(err)
		}
		if got := readKept(t, path); got != "in journal" {
			t.Errorf("after Replay it reads %q", got)
		}
	}
	if _, err := hostcmd.Run(t.Context(), "e2fsck", "-f", "-n", path); err != nil {
		t.Errorf("after Replay: %v", err)
	}
}

// A journal of which nothing can be made is no reason to lose a file.
func TestReplayDamaged(t *testing.T) {
	path, uid := newGuests(t)
	journal(t, path, make([]byte, blockSize))
	debugfs(t, path, "clri <8>")
	if err := Replay(t.Context(), path, uid); err != nil {
		t.Errorf("without a journal: %v", err)
	}
	if got := readKept(t, path); got != "still here" {
		t.Errorf("it reads %q", got)
	}

	path, uid = newGuests(t)
	journal(t, path, make([]byte, blockSize))
	debugfs(t, path, "clri <8>", "set_inode_field /kept block[1] 0xffffff")
	if err := Replay(t.Context(), path, uid); errkind.Of(err) != errkind.Conflict || !strings.Contains(err.Error(), "replay ext4 "+path) {
		t.Errorf("what cannot be put right: %v", err)
	}
}

func TestReplayRefuses(t *testing.T) {
	path, uid := newGuests(t)
	journal(t, path, make([]byte, blockSize))
	link := path + ".link"
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	if err := Replay(t.Context(), link, uid); err == nil || !strings.Contains(err.Error(), "symbolic link") {
		t.Errorf("Replay of a link: %v", err)
	}
	if err := Replay(t.Context(), path+".none", uid); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Replay of nothing: %v", err)
	}
	if os.Geteuid() == 0 {
		if err := Replay(t.Context(), path, uid+1); err == nil {
			t.Error("Replay as somebody else worked")
		}
	}
	super := readAll(t, path)[superOffset:]
	if binary.LittleEndian.Uint32(super[offIncompat:])&incompatRecover == 0 {
		t.Error("there is nothing to replay any more")
	}
	if err := errors.Join(os.Truncate(path, 0), os.Truncate(path, testSize)); err != nil {
		t.Fatal(err)
	}
	if err := Replay(t.Context(), path, uid); !errors.Is(err, ErrNoFileSystem) {
		t.Errorf("Replay of zeros: %v", err)
	}
}
