// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tenon-build/tenon/testdata/e2e"
)

func TestMain(m *testing.M) { e2e.Main(m) }

// TestE2ERedis is the main job: a real image, answered over a forwarded port,
// stopped cleanly with the app's own exit status.
func TestE2ERedis(t *testing.T) {
	bundle, _ := e2e.Build(t, "oci:"+e2e.Required(t, "TENON_REDIS_IMAGE"))
	port := e2e.FreePort(t)
	r := e2e.Start(t, bundle, "-p", fmt.Sprintf("%d:6379", port), "-e", "TZ=UTC")
	r.Expect(t, "the app is healthy")
	conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	replies := bufio.NewReader(conn)
	for _, c := range []struct{ send, want string }{
		{"PING\r\n", "+PONG\r\n"},
		{"SET tenon mortise\r\n", "+OK\r\n"},
		{"GET tenon\r\n", "$7\r\n"},
		{"", "mortise\r\n"},
	} {
		fmt.Fprint(conn, c.send)
		if got, err := replies.ReadString('\n'); got != c.want {
			t.Errorf("%q: got %q, %v, want %q", c.send, got, err, c.want)
		}
	}
	if code := r.SignalAndWait(t, syscall.SIGINT); code != 0 {
		t.Errorf("exit status %d, redis ends with 0 on SIGTERM\n%s", code, r)
	}
	if !strings.Contains(r.String(), "Redis is now ready to exit") {
		t.Errorf("redis did not stop by itself:\n%s", r)
	}
}

// TestE2ENginx boots the other recipe: it must serve, and stop by its own
// signal.
func TestE2ENginx(t *testing.T) {
	bundle, _ := e2e.Build(t, "oci:"+e2e.Required(t, "TENON_NGINX_IMAGE"))
	port := e2e.FreePort(t)
	r := e2e.Start(t, bundle, "-p", fmt.Sprintf("%d:80", port))
	r.Expect(t, "the app is healthy")
	resp, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d/", port))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK || !strings.Contains(string(body), "Welcome to nginx") {
		t.Errorf("got %s, %v: %.200s", resp.Status, err, body)
	}
	if code := r.SignalAndWait(t, syscall.SIGTERM); code != 0 || !strings.Contains(r.String(), "SIGQUIT") {
		t.Errorf("exit status %d, nginx ends with 0 on SIGQUIT\n%s", code, r)
	}
}

// TestE2EExitStatus checks that run ends as docker run does.
func TestE2EExitStatus(t *testing.T) {
	bundle := e2e.Probe(t)
	for _, c := range []struct {
		name, probe string
		code        int
		stderr      string
	}{
		{"zero", "exit:0", 0, ""},
		{"own status", "exit:42", 42, ""},
		{"killed by a signal", "signal:9", 137, ""},
		{"children left behind", "orphans", 0, ""},
		{"kernel panic", "panic", 125, "tenon: error: "},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := e2e.Run(t, bundle, "-e", "PROBE="+c.probe)
			if o.Code != c.code || !strings.Contains(o.Stderr, c.stderr) {
				t.Errorf("want exit status %d: %s", c.code, o)
			}
		})
	}
	t.Run("stubborn app is ended", func(t *testing.T) {
		r := e2e.Start(t, bundle, "--stop-timeout", "1s", "-e", "PROBE=stubborn")
		r.Expect(t, "WAITING")
		if code := r.SignalAndWait(t, syscall.SIGTERM); code != 137 {
			t.Errorf("exit status %d, want 137 as after docker stop: %s", code, r)
		}
	})
	t.Run("no QEMU outlives tenon", func(t *testing.T) {
		r := e2e.Start(t, bundle, "-e", "PROBE=stubborn")
		r.Expect(t, "WAITING")
		children := strings.Fields(e2e.Execute(exec.Command("pgrep", "-P", strconv.Itoa(r.Cmd.Process.Pid))).Stdout)
		if len(children) == 0 {
			t.Fatal("tenon has no child")
		}
		r.SignalAndWait(t, syscall.SIGKILL)
		for range 50 {
			gone := true
			for _, pid := range children {
				n := e2e.Must(strconv.Atoi(pid))
				gone = gone && syscall.Kill(n, 0) == syscall.ESRCH
			}
			if gone {
				return
			}
			time.Sleep(100 * time.Millisecond)
		}
		t.Errorf("still running: %v", children)
	})
}

// TestE2ERunRefuses checks bad input of run: one line, status 125, no boot.
func TestE2ERunRefuses(t *testing.T) {
	bundle := e2e.Probe(t)
	for _, c := range []struct {
		name string
		args []string
		want string
	}{
		{"unsigned", []string{"run", "--cert", e2e.Keys(t) + "/ca.crt", bundle}, "the bundle is not signed"},
		{"for nobody's trust", []string{"run", bundle}, "nothing says whom to trust"},
		{"too little memory", []string{"run", "--allow-unsigned", "-m", "16M", bundle}, "of memory, not 16"},
		{"too many CPUs", []string{"run", "--allow-unsigned", "--cpus", "3", bundle}, "takes 1 to 2 CPUs, not 3"},
		{"undeclared parameter", []string{"run", "--allow-unsigned", "-e", "LD_PRELOAD=/evil.so", bundle}, "LD_PRELOAD is not a parameter"},
		{"wrong type", []string{"run", "--allow-unsigned", "-e", "COUNT=many", bundle}, `COUNT: "many" is not of type int`},
		{"no bundle", []string{"run", "--allow-unsigned", "/nonexistent"}, "no such file"},
		{"port in use", []string{"run", "--allow-unsigned", "-p", usedPort(t) + ":80", bundle}, "QEMU failed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := e2e.Tenon(t, c.args...)
			if o.Code != 125 || !strings.Contains(o.Stderr, c.want) || strings.Count(o.Stderr, "tenon: error: ") != 1 {
				t.Errorf("want status 125 and one line with %q: %s", c.want, o)
			}
		})
	}
}

func usedPort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
}

// TestE2EForward checks a server of the probe over a forwarded port.
func TestE2EForward(t *testing.T) {
	port := e2e.FreePort(t)
	r := e2e.Start(t, e2e.Probe(t), "-e", "PROBE=serve", "-p", fmt.Sprintf("%d:8080", port))
	r.Expect(t, "the app runs")
	var got string
	for range 100 { // until it listens, QEMU accepts and closes
		conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
		b, _ := io.ReadAll(conn)
		conn.Close()
		if got = string(b); got != "" {
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	if got != "hello from probe\n" {
		t.Errorf("got %q", got)
	}
}
