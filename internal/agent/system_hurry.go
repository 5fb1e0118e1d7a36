package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"banger/internal/atomicfile"
)

const (
	cgroupDir = "/sys/fs/cgroup"
	// hurryFile says what the weights were. It is there while the agent comes
	// first, so that one that is started again can end that.
	hurryFile = runDir + "/hurry.json"
	// hurryWeight is that of commands, over 100 of everything else: what they
	// leave is not nothing.
	hurryWeight = "1000"
)

// Hurry implements the method of [System]: the agent's threads go before all
// that is ordinary, and its control group, in which users' commands are, gets
// most of the processor.
func (guestSystem) Hurry(on bool) error {
	if on {
		return errors.Join(setPolicy(unix.SCHED_RR, 1), raiseWeights(cgroupDir, "/proc/self/cgroup", hurryFile))
	}
	return errors.Join(setPolicy(unix.SCHED_NORMAL, 0), restoreWeights(cgroupDir, hurryFile))
}

// setPolicy sets how the agent's threads are scheduled, but for the runtime's
// monitor: one of real time has no slack. What they make, above all processes of
// users, is ordinary in any case.
func setPolicy(policy, priority uint32) error {
	attr := &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: policy, Priority: priority}
	if policy != unix.SCHED_NORMAL {
		attr.Flags = unix.SCHED_FLAG_RESET_ON_FORK
	}
	threads, err := ownThreads()
	if err != nil {
		return err
	}
	for i, tid := range threads {
		if i == monitorIndex {
			continue
		}
		err := unix.SchedSetAttr(tid, attr, 0)
		if err != nil && !errors.Is(err, unix.ESRCH) { // it has ended
			return fmt.Errorf("set scheduling of thread %d: %w", tid, err)
		}
	}
	return nil
}

// raiseWeights gives the control group that self names, and those above it, the
// weight of whoever comes first, and notes in a file what they had. Groups
// without a weight it leaves alone.
func raiseWeights(dir, self, note string) error {
	if exists(note) {
		return nil // it holds what they had at first
	}
	group, err := unifiedGroup(self)
	if err != nil {
		return err
	}
	had := make(map[string]string)
	for ; group != "/"; group = path.Dir(group) {
		weight, err := os.ReadFile(weightFile(dir, group))
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		had[group] = strings.TrimSpace(string(weight))
	}
	if len(had) == 0 {
		return nil
	}
	data, err := json.Marshal(had)
	if err != nil {
		return err
	}
	if err := atomicfile.Replace(note, data, 0o600); err != nil {
		return err
	}
	for group := range had {
		if err := os.WriteFile(weightFile(dir, group), []byte(hurryWeight), 0); err != nil {
			return err
		}
	}
	return nil
}

// restoreWeights undoes raiseWeights, which need not have succeeded. It may be
// called again.
func restoreWeights(dir, note string) error {
	data, err := os.ReadFile(note)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var had map[string]string
	if err := json.Unmarshal(data, &had); err != nil {
		return fmt.Errorf("%s: %w", note, err)
	}
	var errs []error
	for group, weight := range had {
		errs = append(errs, os.WriteFile(weightFile(dir, group), []byte(weight), 0))
	}
	return errors.Join(append(errs, os.Remove(note))...)
}

func weightFile(dir, group string) string { return path.Join(dir, group, "cpu.weight") }

// unifiedGroup returns the path of the control group (version 2) that a file as
// /proc/self/cgroup tells of; "/" if there is none.
func unifiedGroup(self string) (string, error) {
	data, err := os.ReadFile(self)
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(data)) {
		if group, ok := strings.CutPrefix(strings.TrimSpace(line), "0::/"); ok {
			return path.Clean("/" + group), nil
		}
	}
	return "/", nil
}
