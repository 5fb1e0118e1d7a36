// Package ext4 makes ext4 file systems in image files, with e2fsprogs and
// without mounting, and reads them, trusting nothing in them.
package ext4

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"banger/internal/errkind"
	"banger/internal/hostcmd"
)

const (
	blockSize = 4096
	inodeSize = 256
	// inodeBytes is for how many bytes of file system there is an inode, if
	// nothing else is said; e2fsprogs' own default.
	inodeBytes = 16384
	// growthBlocks is up to where a file system can grow by the descriptors
	// set aside for it: 1 TiB. Beyond that the kernel finds another way
	// (meta_bg), so this is no limit.
	growthBlocks = 1 << 40 / blockSize
)

// features are said outright, so that a file system is the same whatever the
// host's mke2fs.conf holds, and can be mounted by every kernel since 4.0.
const features = "none,ext_attr,dir_index,filetype,extent,64bit,flex_bg,sparse_super,large_file,huge_file,dir_nlink,extra_isize,metadata_csum"

// Options say what file system to make. SizeBytes is required.
type Options struct {
	SizeBytes int64  // a multiple of 4096
	From      string // directory whose tree it holds, owners, modes, devices and extended attributes included; empty: an empty root owned by root
	Label     string // at most 16 bytes
	UUID      string // empty: a random one. With one, two runs over the same tree give the same layout
	// ReadOnly leaves out what only writing needs: the journal and room to
	// grow.
	ReadOnly   bool
	InodeBytes int64 // bytes of file system for each inode; 0: 16384
	Unix       int64 // time of its making in seconds since 1970; 0: now
}

// Make makes a file system in a new file at path, sparse, with mode 0600. What
// it holds of the disk is what was put in and less than 1 MiB of its own:
// tables that are all zeros are left as holes and marked as such, so that no
// guest ever writes them. There must be no file at path; on an error there is
// none.
func Make(ctx context.Context, path string, o Options) (err error) {
	argv, err := o.argv(path)
	if err != nil {
		return fmt.Errorf("make ext4 %s: %w", path, err)
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("make ext4: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("make ext4 %s: %w", path, explain(err)), os.Remove(path))
		}
	}()
	if err := errors.Join(f.Truncate(o.SizeBytes), f.Close()); err != nil {
		return err
	}
	_, err = hostcmd.Cmd{Argv: argv, Env: o.env(), Tied: true}.Run(ctx)
	return err
}

// MakeEmpty makes an empty file system of the given size, as [Make] does.
func MakeEmpty(ctx context.Context, path string, sizeBytes int64) error {
	return Make(ctx, path, Options{SizeBytes: sizeBytes})
}

func (o Options) argv(path string) ([]string, error) {
	if o.SizeBytes < minSize || o.SizeBytes%blockSize != 0 {
		return nil, fmt.Errorf("size of %d bytes is no multiple of %d from %d on", o.SizeBytes, blockSize, minSize)
	}
	// nodiscard and prezeroed: the file is new and all hole.
	ext, feat := []string{"nodiscard", "assume_storage_prezeroed=1", "root_owner=0:0"}, features
	if !o.ReadOnly {
		feat += ",has_journal,resize_inode"
		// A limit at or below the size is an error to mke2fs.
		if o.SizeBytes/blockSize < growthBlocks/2 {
			ext = append(ext, "resize="+strconv.FormatInt(growthBlocks, 10))
		}
	}
	if o.UUID != "" {
		ext = append(ext, "hash_seed="+o.UUID)
	}
	ratio := o.InodeBytes
	if ratio == 0 {
		ratio = inodeBytes
	}
	argv := []string{
		"mkfs.ext4", "-q", "-F", "-b", strconv.Itoa(blockSize), "-I", strconv.Itoa(inodeSize),
		"-i", strconv.FormatInt(ratio, 10), "-m", "0", "-O", feat, "-E", strings.Join(ext, ","), "-L", o.Label,
	}
	if o.UUID != "" {
		argv = append(argv, "-U", o.UUID)
	}
	if o.From != "" {
		argv = append(argv, "-d", o.From)
	}
	path, err := filepath.Abs(path) // never taken for an option
	return append(argv, path), err
}

func (o Options) env() []string {
	if o.Unix == 0 {
		return nil
	}
	t := strconv.FormatInt(o.Unix, 10)
	// The second is what e2fsprogs before 1.47.1 reads.
	return append(hostcmd.Env(), "SOURCE_DATE_EPOCH="+t, "E2FSPROGS_FAKE_TIME="+t)
}

// explain gives an error the kind and hint that its cause has.
func explain(err error) error {
	if errkind.Of(err) == errkind.Host {
		return errkind.WithHint(err, "apt-get install -y e2fsprogs")
	}
	return err
}

// Fit returns a size that is enough for a file system that holds the tree at
// dir, with slackBytes to spare.
func Fit(dir string, slackBytes int64) (int64, error) {
	var blocks, inodes int64
	seen := make(map[[2]uint64]bool) // hard links
	err := filepath.WalkDir(dir, func(name string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(name, &st); err != nil {
			return &os.PathError{Op: "lstat", Path: name, Err: err}
		}
		key := [2]uint64{st.Dev, st.Ino}
		if st.Nlink > 1 && !d.IsDir() && seen[key] {
			return nil
		}
		seen[key] = true
		inodes++
		// One more for attributes, extents or a directory's index.
		blocks += (st.Size+blockSize-1)/blockSize + 1
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("measure %s: %w", dir, err)
	}
	size := blocks*blockSize + inodes*inodeSize
	// mke2fs sets inodes aside by the size, not by the need.
	size = max(size+size/inodeBytes*inodeSize, inodes*inodeBytes) + size/32 + slackBytes
	return max(size, minSize) / blockSize * blockSize, nil
}
