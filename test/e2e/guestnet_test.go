//go:build e2e

package e2e

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"banger/test/netns"
)

// serveHTTP answers in a namespace, on every address, with the address of
// whoever asks.
func serveHTTP(t *testing.T, ns *netns.NS, addr string) {
	t.Helper()
	var ln net.Listener
	err := ns.Do(func() (err error) {
		ln, err = net.Listen("tcp4", addr)
		return err
	})
	must(t, err)
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host, _, _ := net.SplitHostPort(r.RemoteAddr)
		fmt.Fprintln(w, "you are", host)
	})}
	go func() { _ = srv.Serve(ln) }()
	t.Cleanup(func() { srv.Close() })
}

// guest runs a shell's line in a machine and returns its output and whether it
// ended with 0.
func (b *bed) guest(name, line string) (string, bool) {
	b.t.Helper()
	r := b.run("vm", "exec", name, "--", "sh", "-c", line)
	return string(r.stdout) + string(r.stderr), r.code == 0
}

func (b *bed) guestCan(name, line, want string) {
	b.t.Helper()
	if out, ok := b.guest(name, line); !ok || !strings.Contains(out, want) {
		b.t.Errorf("in %s: %s: %t\n%s\nwant %q", name, line, ok, out, want)
	}
}

func (b *bed) guestCannot(name, line string) {
	b.t.Helper()
	start := time.Now()
	if out, ok := b.guest(name, line); ok {
		b.t.Errorf("in %s: %s: it could\n%s", name, line, out)
	}
	b.t.Logf("in %s: %s: refused after %s", name, line, time.Since(start).Round(time.Millisecond))
}

// Eight machines at the same time: addresses of their own, names that work for
// each other and the host, the world through NAT, and nothing without a network.
func TestEightMachines(t *testing.T) {
	b := newBed(t, `memory = "96M"`)
	b.useResolver()
	serveHTTP(t, b.internet, netns.Outside+":80")
	var wg sync.WaitGroup
	name := func(i int) string { return fmt.Sprintf("m%d", i) }
	for i := range 8 {
		wg.Go(func() {
			if r := b.run("vm", "create", name(i)); r.code != 0 {
				t.Errorf("create %s: %s", name(i), r.stderr)
			}
		})
	}
	wg.Wait()
	if t.Failed() {
		return
	}
	addrs := make(map[string]string)
	for i := range 8 {
		ip := fmt.Sprint(b.show(name(i))["guest_ip"])
		if other := addrs[ip]; other != "" || net.ParseIP(ip) == nil {
			t.Errorf("%s has %q, as %s has", name(i), ip, other)
		}
		addrs[ip] = name(i)
		if got := b.host.Output(t, "dig", "+short", "-p", "42069", "@127.0.0.1", name(i)+".vm"); strings.TrimSpace(got) != ip {
			t.Errorf("the host is told that %s.vm is %q, want %s", name(i), got, ip)
		}
		b.host.Output(t, "ping", "-c", "1", "-W", "5", ip)
	}
	for i := range 8 {
		wg.Go(func() {
			var all []string
			for j := range 8 {
				all = append(all, "ping -c 1 -W 5 "+name(j)+".vm")
			}
			b.guestCan(name(i), strings.Join(all, " && "), "1 packets received")
		})
	}
	wg.Wait()
	b.guestCan("m0", "wget -qO- http://"+netns.Outside+"/", "you are "+netns.HostAddr)
	b.guestCan("m0", "wget -qO- http://web.example/", "you are "+netns.HostAddr)
	b.killDaemon() // the next one, which a command starts, takes over all eight
	// No command of banger's may run while the guest looks, which would start
	// the daemon again: what it finds is asked of its own server. It waits until
	// the daemon, which answers on the gateway, has gone.
	gateway := strings.Fields(b.must("vm", "exec", "m1", "--", "ip", "route", "show", "default"))[2]
	b.must("vm", "exec", "m1", "--", "sh", "-c", fmt.Sprintf(`mkdir -p /www
		nslookup m0.vm %[1]s || exit
		(
			n=0
			while nslookup m0.vm %[1]s; do
				n=$((n + 1))
				[ $n -lt 300 ] || exit
				sleep 0.1
			done
			nslookup web.example > /www/answer
			wget -qO- http://web.example/ >> /www/answer
		) > /dev/null 2>&1 &
		httpd -h /www`, gateway))
	b.killDaemon()
	ip := fmt.Sprint(keyOf(addrs, "m1"))
	b.eventually("a name is resolved while no daemon runs", 30*time.Second, func() bool {
		out, _ := b.httpGet("http://" + ip + "/answer")
		return strings.Contains(out, "you are")
	})
	for i := range 8 {
		wg.Go(func() { b.must("vm", "delete", name(i)) })
	}
	wg.Wait()
	b.wants(0, "1\n", "", "vm", "run", "--network", "none", "--", "sh", "-c", "ip -o link | wc -l")
	for _, line := range []string{"wget -qO- http://" + netns.Outside + "/", "ping -c 1 -W 2 m1.vm"} {
		if r := b.run("vm", "run", "--network", "none", "--", "sh", "-c", line); r.code == 0 {
			t.Errorf("without a network: %s: %s", line, r.stdout)
		}
	}
}

func keyOf(m map[string]string, value string) string {
	for k, v := range m {
		if v == value {
			return k
		}
	}
	return ""
}

// httpGet asks from the host's namespace.
func (b *bed) httpGet(url string) (out string, err error) {
	err = b.host.Do(func() error {
		host := strings.TrimPrefix(url, "http://")
		host, path, _ := strings.Cut(host, "/")
		c, err := net.DialTimeout("tcp4", host+":80", 5*time.Second)
		if err != nil {
			return err
		}
		defer c.Close()
		if err := c.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
			return err
		}
		fmt.Fprintf(c, "GET /%s HTTP/1.0\r\n\r\n", path)
		data, err := io.ReadAll(c)
		out = string(data)
		return err
	})
	return out, err
}

// useResolver has the daemons to come find a name server in the internet, which
// knows web.example.
func (b *bed) useResolver() {
	b.t.Helper()
	path := filepath.Join(b.root, "resolv.conf")
	must(b.t, os.WriteFile(path, []byte("nameserver "+netns.InternetAddr+"\n"), 0o644))
	b.resolvConf = path
	var conn net.PacketConn
	err := b.internet.Do(func() (err error) {
		conn, err = net.ListenPacket("udp4", netns.InternetAddr+":53")
		return err
	})
	must(b.t, err)
	b.t.Cleanup(func() { conn.Close() })
	go func() {
		buf := make([]byte, 1500)
		for {
			n, from, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			if a := answerTo(buf[:n]); a != nil {
				_, _ = conn.WriteTo(a, from)
			}
		}
	}()
}

// answerTo answers a DNS query (RFC 1035, section 4) for A with [netns.Outside],
// and any other with nothing.
func answerTo(q []byte) []byte {
	if len(q) < 17 {
		return nil
	}
	end := 12
	for end < len(q) && q[end] != 0 {
		end += int(q[end]) + 1
	}
	if end+5 > len(q) {
		return nil
	}
	isA := q[end+2] == 1
	a := append([]byte{}, q[:2]...)
	a = append(a, 0x81, 0x80, 0, 1, 0, 0, 0, 0, 0, 0)
	a = append(a, q[12:end+5]...)
	if isA {
		a[7] = 1
		a = append(a, 0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4)
		a = append(a, net.ParseIP(netns.Outside).To4()...)
	}
	return a
}

// What a guest claims to be is not believed, and the host is out of its reach.
func TestGuestsAreKeptInTheirPlace(t *testing.T) {
	b := newBed(t, `memory = "96M"`)
	serveHTTP(t, b.host, "0.0.0.0:8080")
	serveHTTP(t, b.internet, "169.254.169.254:80")
	serveHTTP(t, b.internet, netns.Outside+":80")
	for _, name := range []string{"victim", "peer", "rogue"} {
		b.must("vm", "create", name)
	}
	victim, peer := fmt.Sprint(b.show("victim")["guest_ip"]), fmt.Sprint(b.show("peer")["guest_ip"])
	rogue, mac := fmt.Sprint(b.show("rogue")["guest_ip"]), fmt.Sprint(b.show("victim")["mac"])
	gateway := strings.Fields(b.must("vm", "exec", "peer", "--", "ip", "route", "show", "default"))[2]
	own := fmt.Sprint(b.show("rogue")["mac"])
	ping := "ping -c 1 -W 1 "
	for _, filter := range []string{"1", "0"} {
		b.host.Output(t, "sh", "-c", "echo "+filter+" > /proc/sys/net/bridge/bridge-nf-call-iptables")
		t.Logf("bridge-nf-call-iptables is %s", filter)
		b.guestCan("rogue", ping+peer, "1 packets received")
		// Another's MAC.
		b.guestCannot("rogue", fmt.Sprintf("ip link set eth0 address %s; ip route add default via %s 2>/dev/null; %s", mac, gateway, ping+peer))
		b.guestCan("rogue", fmt.Sprintf("ip link set eth0 address %s; ip route replace default via %s; %s", own, gateway, ping+peer), "1 packets received")
		// Another's IP, beside its own and in its place.
		b.guestCannot("rogue", fmt.Sprintf("ip addr add %s/32 dev eth0; ping -I %s -c 1 -W 1 %s; r=$?; ip addr del %s/32 dev eth0; exit $r", victim, victim, peer, victim))
		// Another's ARP: who was told by the rogue still finds the victim.
		b.guestCan("peer", ping+victim, "1 packets received")
		_, _ = b.guest("rogue", fmt.Sprintf("ip addr add %s/32 dev eth0; arping -A -c 2 -I eth0 %s; arping -U -c 2 -I eth0 %s; ip addr del %s/32 dev eth0", victim, victim, victim, victim))
		if out, _ := b.guest("peer", "cat /proc/net/arp"); strings.Contains(lineWith(out, victim+" "), own) {
			t.Errorf("the rogue's ARP was believed: %s", out)
		}
		b.guestCan("peer", ping+victim, "1 packets received")
		// The host and the cloud's credentials: refused at once, not dropped.
		for _, addr := range []string{gateway + ":8080", netns.HostAddr + ":8080", "169.254.169.254", gateway + ":22"} {
			start := time.Now()
			out, ok := b.guest("rogue", "timeout 20 wget -O- http://"+addr+"/")
			if took := time.Since(start); ok || took > 5*time.Second || !strings.Contains(out, "can't connect") {
				t.Errorf("%s: reached: %t, after %s: %s", addr, ok, took, out)
			}
		}
		b.guestCan("rogue", "wget -qO- http://"+netns.Outside+"/", "you are "+netns.HostAddr)
		b.guestCan("rogue", "nslookup victim.vm "+gateway, victim)
	}
	if got := fmt.Sprint(b.show("rogue")["guest_ip"]); got != rogue {
		t.Errorf("the record says %s now", got)
	}
}

func lineWith(text, part string) string {
	for line := range strings.Lines(text) {
		if strings.Contains(line, part) {
			return line
		}
	}
	return ""
}

// A tap that somebody deletes costs a machine its network, and is told; the
// machine goes on, and has a network again after a restart.
func TestTapDeleted(t *testing.T) {
	b := newBed(t)
	b.must("vm", "create", "web")
	tap := b.tap("web")
	b.host.IP(t, "link", "del", tap)
	b.eventually("the loss is told", 5*time.Second, func() bool {
		return strings.Contains(fmt.Sprint(b.show("web")["state_reason"]), "tap was deleted")
	})
	b.wants(0, "here\n", "", "vm", "exec", "web", "--", "echo", "here")
	b.must("vm", "restart", "web")
	if s := b.show("web"); s["state_reason"] != "" {
		t.Errorf("after a restart: %v", s["state_reason"])
	}
	// While no daemon looks, the next one finds out.
	tap = b.tap("web")
	b.killDaemon()
	b.host.IP(t, "link", "del", tap)
	b.eventually("the loss is told by the next daemon", 5*time.Second, func() bool {
		return strings.Contains(fmt.Sprint(b.show("web")["state_reason"]), "tap was deleted")
	})
	b.must("vm", "restart", "web")
	b.host.Output(t, "ping", "-c", "1", "-W", "5", fmt.Sprint(b.show("web")["guest_ip"]))
}

// Rules that somebody flushed, a bridge that somebody deleted and another way
// out are put right without being asked.
func TestNetworkIsKept(t *testing.T) {
	b := newBed(t)
	serveHTTP(t, b.internet, netns.Outside+":80")
	b.must("vm", "create", "web")
	reach := "wget -qO- http://" + netns.Outside + "/"
	b.guestCan("web", reach, "you are "+netns.HostAddr)
	for _, harm := range [][]string{
		{"nft", "flush", "ruleset"},
		{"ip", "link", "del", "banger-" + b.paths.Tag},
		{"sh", "-c", "echo 0 > /proc/sys/net/ipv4/conf/" + netns.Uplink + "/forwarding"},
	} {
		b.host.Output(t, harm...)
		b.eventually(fmt.Sprint("the network is back after ", harm), 30*time.Second, func() bool {
			out, ok := b.guest("web", "timeout 2 "+reach)
			return ok && strings.Contains(out, "you are "+netns.HostAddr)
		})
	}
}

// tap returns the name of a running machine's tap.
func (b *bed) tap(name string) string {
	b.t.Helper()
	h, _ := b.show(name)["handles"].(map[string]any)
	tap, _ := h["tap_device"].(string)
	if tap == "" {
		b.t.Fatalf("machine %s has no tap: %v", name, h)
	}
	return tap
}

// A subnet that somebody has taken meanwhile is chosen anew while nothing runs;
// one that the configuration demands is an error that names the route.
func TestSubnetCollides(t *testing.T) {
	b := newBed(t)
	b.must("vm", "create", "web")
	first := fmt.Sprint(b.show("web")["guest_ip"])
	b.must("vm", "stop", "web")
	b.host.IP(t, "route", "add", first+"/32", "via", netns.InternetAddr)
	b.must("vm", "start", "web")
	second := fmt.Sprint(b.show("web")["guest_ip"])
	if second == first || second[strings.LastIndex(second, "."):] != first[strings.LastIndex(first, "."):] {
		t.Errorf("address %s, was %s: want another subnet and the same host part", second, first)
	}
	b.host.Output(t, "ping", "-c", "1", "-W", "5", second)
	b.must("vm", "stop", "web")
	b.must("daemon", "stop")
	b.configure(fmt.Sprintf("cache = %q", cacheDir), `image = "busybox"`, `memory = "192M"`, `subnet = "198.51.100.0/24"`)
	b.wants(5, "", "198.51.100.0/24", "vm", "start", "web")
	b.configure(fmt.Sprintf("cache = %q", cacheDir), `image = "busybox"`, `memory = "192M"`)
}

// A bridge or a table of our name that somebody else made is left alone, and
// named with the line that removes it.
func TestSomebodyElsesBridge(t *testing.T) {
	b := newBed(t)
	b.must("vm", "create", "--no-start", "web")
	bridge := "banger-" + b.paths.Tag
	for _, tt := range []struct{ make, remove []string }{
		{[]string{"ip", "link", "add", bridge, "type", "veth"}, []string{"ip", "link", "delete", bridge}},
		{[]string{"ip", "link", "add", bridge, "type", "bridge"}, []string{"ip", "link", "delete", bridge}},
		{[]string{"nft", "add", "table", "inet", "banger_" + b.paths.Tag}, []string{"nft", "delete", "table", "inet", "banger_" + b.paths.Tag}},
	} {
		b.host.Output(t, tt.make...)
		b.wants(4, "", "hint: "+strings.Join(tt.remove, " "), "vm", "start", "web")
		b.host.Output(t, tt.remove...) // which fails if it is gone
	}
	b.must("vm", "start", "web")
}
