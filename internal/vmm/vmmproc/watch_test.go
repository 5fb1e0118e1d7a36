package vmmproc

import (
	"os/exec"
	"testing"
)

func TestWatch(t *testing.T) {
	c := exec.Command("sleep", "1000")
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	closed, err := NewWatch(c.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan bool)
	go func() { ended <- closed.Wait() }()
	closed.Close()
	closed.Close()
	if <-ended {
		t.Error("Wait of a watch that was closed reports an end")
	}
	w, err := NewWatch(c.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	go func() { ended <- w.Wait() }()
	if err := c.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if !<-ended {
		t.Error("Wait reports no end of a process that was killed")
	}
	if err := c.Wait(); err == nil {
		t.Error("a killed process ended well")
	}
	if _, err := NewWatch(c.Process.Pid); err == nil {
		t.Error("NewWatch of a process that is gone succeeded")
	}
}
