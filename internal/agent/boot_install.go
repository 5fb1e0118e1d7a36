package agent

import (
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"banger/internal/guest/wire"
)

// Where the agent stands in the running guest: in memory, for root alone.
const (
	runDir     = "/run/banger"
	runAgent   = runDir + "/agent"
	runBundle  = runDir + "/bundle.json"
	unitName   = "banger-agent.service"
	unitDir    = "/run/systemd/system"
	unitWanted = unitDir + "/sysinit.target.wants"
)

// unit starts the agent under systemd.
//
//   - It is wanted by sysinit.target and without default dependencies, so that
//     it starts as soon as a command has what it needs: the file systems, and
//     the files that tmpfiles.d asks for (which first empties /tmp). Waiting
//     for basic.target costs seconds in software emulation and gives nothing.
//   - Commands run in its control group. So: a restart of the agent leaves them
//     alone (KillMode), as does the death of one by lack of memory (OOMPolicy);
//     they have no limit of their own on tasks, and may make groups (Delegate).
//     While the rest of the system still starts, they come first.
//   - It logs to the journal: on the console it would be cut off as soon as a
//     getty takes the terminal.
const unit = `[Unit]
Description=banger agent
DefaultDependencies=no
After=local-fs.target systemd-tmpfiles-setup-dev.service systemd-tmpfiles-setup.service
IgnoreOnIsolate=yes
StartLimitIntervalSec=0

[Service]
ExecStart=` + runAgent + ` serve ` + roleService + `
Restart=always
KillMode=process
OOMPolicy=continue
OOMScoreAdjust=-900
StartupCPUWeight=1000
TasksMax=infinity
Delegate=yes
LimitNOFILE=65536:524288
StandardOutput=journal
StandardError=journal
SyslogIdentifier=banger-agent
`

// install puts the agent's bundle, and for systemd the agent itself and its
// unit, into the fresh /run. Otherwise the agent's parent starts its own
// executable again, and no trace of systemd may be there: its directories in
// /run are how programs tell that it runs (sd_booted(3)).
func install(t *tree, b wire.Bundle, systemd bool) error {
	data, err := b.Encode()
	if err != nil {
		return err
	}
	dir, err := t.openDir(runDir, 0o700)
	if err != nil {
		return err
	}
	defer dir.Close()
	if err := t.write(runBundle, data, 0o600); err != nil || !systemd {
		return err
	}
	if err := copyAgent(dir); err != nil {
		return fmt.Errorf("install agent: %w", err)
	}
	if b.EndByReboot {
		if err := rebootToEnd(t); err != nil {
			return err
		}
	}
	if err := t.write(unitDir+"/"+unitName, []byte(unit), 0o644); err != nil {
		return err
	}
	wants, err := t.openDir(unitWanted, 0o755)
	if err != nil {
		return err
	}
	defer wants.Close()
	if err := unix.Symlinkat("../"+unitName, int(wants.Fd()), unitName); err != nil {
		return fmt.Errorf("enable %s: %w", unitName, err)
	}
	return nil
}

// rebootToEnd makes systemd end a machine that is to power off or halt by a
// reboot: its VMM would live on.
func rebootToEnd(t *tree) error {
	for _, unit := range []string{"systemd-poweroff.service", "systemd-halt.service"} {
		dir := unitDir + "/" + unit + ".d"
		d, err := t.openDir(dir, 0o755)
		if err != nil {
			return err
		}
		d.Close()
		if err := t.write(dir+"/banger.conf", []byte("[Unit]\nSuccessAction=reboot-force\n"), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// copyAgent copies this program to the directory for the time after the
// initramfs.
func copyAgent(dir *os.File) error {
	from, err := os.Open("/proc/self/exe")
	if err != nil {
		return err
	}
	defer from.Close()
	to, err := openAt(dir, "agent", unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL)
	if err != nil {
		return err
	}
	defer to.Close()
	if _, err := io.Copy(to, from); err != nil {
		return err
	}
	return to.Chmod(0o755)
}
