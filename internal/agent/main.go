package agent

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"strconv"
	"syscall"

	"banger/internal/version"
)

// Who started the agent that serves; also what Info tells as its role.
const (
	roleService = "service" // the distribution's init
	roleInit    = "init"    // the agent as PID 1
)

// serviceOOMScore keeps the kernel from choosing the agent when memory runs
// out: without it nobody can reach the machine to mend it. What it executes
// has 0.
const serviceOOMScore = -900

// Main is the program banger-agent; args is os.Args. It returns the exit
// code. As PID 1 of an initramfs that holds a boot bundle it boots the guest,
// whatever the arguments (the kernel passes on those that it does not know),
// and returns only when it could end the machine in no way.
func Main(args []string) int {
	if os.Getpid() == 1 && exists(bundleFile) {
		if err := boot(); err != nil {
			die(err)
		}
		return 1
	}
	switch {
	case len(args) == 3 && args[1] == "serve" && (args[2] == roleService || args[2] == roleInit):
		return serve(args[2])
	case len(args) == 2 && args[1] == sftpArgs[1]:
		return serveSFTP()
	case len(args) >= 2 && args[1] == supervisorArgs[1]:
		return superviseSession(args[2:])
	case len(args) == 2 && args[1] == "version":
		fmt.Println("banger-agent", version.Version)
		return 0
	}
	fmt.Fprintln(os.Stderr, "banger-agent runs in banger's guests, where it is started by the kernel; elsewhere it knows `banger-agent version`")
	return 2
}

// serve serves until SIGTERM or SIGINT.
func serve(role string) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	level := slog.LevelInfo
	if role == roleInit {
		level = slog.LevelWarn // on the console, which must be quiet
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level}))
	// systemd has set it already; elsewhere nobody has.
	score := []byte(strconv.Itoa(serviceOOMScore))
	if err := os.WriteFile("/proc/self/oom_score_adj", score, 0); err != nil {
		log.Warn("protect agent from lack of memory", "err", err)
	}
	// Started as /proc/self/exe it would be "exe" in the guest's ps.
	if err := os.WriteFile("/proc/self/comm", []byte("banger-agent"), 0); err != nil {
		log.Warn("set name of process", "err", err)
	}
	if err := calmMonitor(); err != nil {
		log.Debug("calm the runtime's monitor", "err", err) // an old kernel has no such file
	}
	// An agent before this one may have died in a hurry.
	if err := restoreWeights(cgroupDir, hurryFile); err != nil {
		log.Warn("end the hurry", "err", err)
	}
	b, err := readBundle(runBundle)
	if err == nil {
		err = Serve(ctx, ServeOptions{Bundle: b, Role: role, Log: log})
	}
	if err != nil && ctx.Err() == nil {
		log.Error("serve", "err", err)
		return 1
	}
	return 0
}

func exists(name string) bool {
	_, err := os.Lstat(name)
	return err == nil
}
