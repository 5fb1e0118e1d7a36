package cli

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	"banger/internal/api"
	"banger/internal/api/client"
)

func (a *app) vmShow() *cobra.Command {
	return &cobra.Command{
		Use:               "show VM",
		Short:             "Show everything about a machine",
		Example:           "  banger vm show web\n  banger vm show --json web",
		Args:              exactly(1, "one machine"),
		ValidArgsFunction: a.completeVMs(false),
		RunE: func(c *cobra.Command, args []string) error {
			return cannot("show "+args[0], a.showVM(c.Context(), args[0]))
		},
	}
}

func (a *app) showVM(ctx context.Context, ref string) error {
	var v *api.VM
	err := a.ask(ctx, func(ctx context.Context, c *client.Client) error {
		resp, err := c.VM.Show(ctx, connect.NewRequest(&api.ShowRequest{Vm: ref}))
		if err == nil {
			v = resp.Msg.Vm
		}
		return err
	})
	if err != nil {
		return err
	}
	if a.json {
		return a.printDoc(v)
	}
	return a.printFacts(vmFacts(v, time.Now()))
}

func vmFacts(v *api.VM, now time.Time) facts {
	var f facts
	f.add("name", v.Name)
	f.add("id", v.Id)
	state := v.State
	if v.StateReason != "" {
		state += " (" + v.StateReason + ")"
	}
	f.add("state", state)
	f.add("last error", v.LastError)
	if v.Ephemeral {
		f.add("ephemeral", "deleted when the call ends that made it")
	}
	if v.Purpose == "template" {
		f.add("purpose", "banger's own: it becomes a template, and ends by itself")
	}
	f.add("image", v.Image)
	f.add("kernel", v.Kernel)
	f.add("template", v.Template)
	f.add("driver", v.Driver)
	f.add("cpus", strconv.Itoa(int(v.VcpuCount)))
	f.add("memory", size(v.MemoryBytes))
	f.add("disk", size(v.DiskBytes))
	f.add("network", v.Network)
	f.add("address", v.GuestIp)
	if v.GuestIp != "" {
		f.add("DNS name", v.DnsName)
	}
	f.add("created", moment(v.CreatedAt, now))
	f.add("started", moment(v.StartedAt, now))
	f.add("auto-pause", autoPauseText(v.AutoPauseSeconds))
	f.add("labels", labelText(v.Labels))
	if pid := v.GetHandles().Pid; pid != nil {
		f.add("process", fmt.Sprint(*pid))
	}
	f.add("directory", v.VmDir)
	f.add("console log", v.LogPath)
	return f
}

func autoPauseText(seconds float64) string {
	if seconds == 0 {
		return ""
	}
	return "when not used for " + time.Duration(seconds*float64(time.Second)).String()
}

func labelText(labels map[string]string) string {
	var kv []string
	for _, k := range slices.Sorted(maps.Keys(labels)) {
		kv = append(kv, k+"="+labels[k])
	}
	return strings.Join(kv, "\n")
}
