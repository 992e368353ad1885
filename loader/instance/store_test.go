// SPDX-License-Identifier: Apache-2.0

package instance

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tenon-build/tenon/loader/limit"
	"github.com/tenon-build/tenon/signer/strictjson"
)

func newStore(t *testing.T) *Store {
	t.Helper()
	return &Store{Dir: filepath.Join(t.TempDir(), "mortise")}
}

func locked(t *testing.T, s *Store, do func(l *Lock)) {
	t.Helper()
	l, err := s.Lock(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer l.Unlock()
	do(l)
}

func create(t *testing.T, s *Store, name string) *Record {
	t.Helper()
	r := bundled(name)
	locked(t, s, func(l *Lock) {
		if err := l.Create(r, day); err != nil {
			t.Fatal(err)
		}
	})
	return r
}

func update(t *testing.T, s *Store, name string, change func(r *Record)) *Record {
	t.Helper()
	r, err := s.Update(t.Context(), name, func(r *Record) error { change(r); return nil })
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// tree lists what lies below a directory, with modes.
func tree(t *testing.T, dir string) []string {
	t.Helper()
	var out []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		out = append(out, fmt.Sprintf("%s %s", info.Mode(), strings.TrimPrefix(path, filepath.Dir(dir)+"/")))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestStore(t *testing.T) {
	defer syscall.Umask(syscall.Umask(0)) // modes do not depend on it
	s := newStore(t)
	if list, err := s.List(); list != nil || err != nil {
		t.Errorf("%v, %v", list, err)
	}
	web, cache := create(t, s, "web"), create(t, s, "cache")
	if len(web.ID) != 32 || web.ID == cache.ID || web.State != Created || !web.Created.Equal(day) || web.BootID == "" {
		t.Errorf("%+v", web)
	}
	if got, err := s.Get("web"); err != nil || !reflect.DeepEqual(got, web) {
		t.Errorf("%v: got %+v, want %+v", err, got, web)
	}
	if data, err := os.ReadFile(filepath.Join(s.Path("web"), recordFile)); err != nil || strings.Contains(string(data), "null") {
		t.Errorf("%v, %s", err, data)
	}
	if list, err := s.List(); err != nil || !reflect.DeepEqual(list, []*Record{cache, web}) {
		t.Errorf("%v: %+v", err, list)
	}
	if got, want := tree(t, s.Dir), []string{"drwx------ mortise", "drwx------ mortise/cache", "-rw------- mortise/cache/record.json",
		"drwx------ mortise/web", "-rw------- mortise/web/record.json"}; !reflect.DeepEqual(got, want) {
		t.Errorf("got %q", got)
	}
	self := identify(t, os.Getpid())
	updated := update(t, s, "web", func(r *Record) {
		r.Supervisor, r.Held.CPUs = self, "2-3"
		if err := r.Transition(Loaded, day); err != nil {
			t.Error(err)
		}
	})
	if got, err := s.Get("web"); err != nil || got.State != Loaded || !reflect.DeepEqual(got, updated) {
		t.Errorf("%v: got %+v, want %+v", err, got, updated)
	}
	if err := os.WriteFile(filepath.Join(s.Path("web"), "console.log"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	locked(t, s, func(l *Lock) {
		if err := l.Create(bundled("web"), day); !errors.Is(err, ErrExists) || err.Error() != `instance "web": exists already` {
			t.Error(err)
		}
		var e *TransitionError
		if err := l.Remove(t.Context(), "web"); !errors.As(err, &e) {
			t.Error(err)
		}
		if err := l.Discard("web"); err == nil {
			t.Error("discarded")
		}
	})
	update(t, s, "web", func(r *Record) {
		if err := r.Fail("on fire", day); err != nil {
			t.Error(err)
		}
	})
	locked(t, s, func(l *Lock) {
		if err := l.Remove(t.Context(), "web"); !errors.Is(err, ErrHolding) {
			t.Error(err)
		}
	})
	update(t, s, "web", func(r *Record) { r.Held = Held{} })
	locked(t, s, func(l *Lock) {
		if err := errors.Join(l.Remove(t.Context(), "web"), l.Remove(t.Context(), "cache")); err != nil {
			t.Error(err)
		}
	})
	if got := tree(t, s.Dir); len(got) != 1 {
		t.Errorf("left %q", got)
	}
	if again := create(t, s, "web"); again.ID == web.ID {
		t.Error("the same ID")
	}
}

// Every call on an instance that is not there, and on names that cannot be.
func TestMissing(t *testing.T) {
	s := newStore(t)
	calls := map[string]func(name string) error{
		"get": func(name string) error { _, err := s.Get(name); return err },
		"update": func(name string) error {
			_, err := s.Update(t.Context(), name, func(*Record) error { panic("called") })
			return err
		},
		"remove": func(name string) (err error) {
			locked(t, s, func(l *Lock) { err = l.Remove(t.Context(), name) })
			return err
		},
		"discard": func(name string) (err error) {
			locked(t, s, func(l *Lock) { err = l.Discard(name) })
			return err
		},
		"create": func(name string) (err error) {
			locked(t, s, func(l *Lock) { err = l.Create(bundled(name), day) })
			return err
		},
	}
	for name, call := range calls {
		if name != "create" {
			for range 2 { // without the directory, where the call does not make it, and with it
				if err := call("web"); !errors.Is(err, ErrNotFound) || err.Error() != `instance "web": no such instance` {
					t.Errorf("%s: %v", name, err)
				}
				locked(t, s, func(*Lock) {})
			}
		}
		for _, bad := range []string{"", "..", scratch, "../mortise", "a\nb"} {
			if err := call(bad); !errors.Is(err, ErrName) || strings.Contains(err.Error(), "\n") {
				t.Errorf("%s %q: %v", name, bad, err)
			}
		}
		if err := os.Remove(s.Dir); err != nil {
			t.Error(err)
		}
	}
}

// A change that fails, or makes no sense, leaves what was there.
func TestUpdateRefuses(t *testing.T) {
	s := newStore(t)
	web := create(t, s, "web")
	mine := errors.New("mine")
	for _, test := range []struct {
		name   string
		change func(r *Record) error
		want   string
	}{
		{"fails", func(r *Record) error { r.State = Stopped; return mine }, "mine"},
		{"another name", func(r *Record) error { r.Name = "cache"; return nil }, `instance "web": its name and ID do not change`},
		{"another ID", func(r *Record) error { r.ID = full().ID; return nil }, `instance "web": its name and ID do not change`},
		{"no supervisor", func(r *Record) error { return r.Transition(Loaded, day) }, `instance "web": bad record: supervisor: missing, of an instance that is loaded`},
		{"too large", func(r *Record) error {
			for range 4000 {
				r.Held.Devices = append(r.Held.Devices, "0000:03:00.0")
			}
			r.Held.Devices = append(r.Held.Devices, r.Held.Devices...)
			return nil
		}, `instance "web": bad record: larger than 65536 bytes`},
	} {
		if _, err := s.Update(t.Context(), "web", test.change); err == nil || err.Error() != test.want {
			t.Errorf("%s: %v", test.name, err)
		}
	}
	if got, err := s.Get("web"); err != nil || !reflect.DeepEqual(got, web) {
		t.Errorf("%v, %+v", err, got)
	}
	bad := bundled("cache")
	bad.Bundle.Digest = "md5"
	locked(t, s, func(l *Lock) {
		if err := l.Create(bad, day); err == nil {
			t.Error("created")
		}
	})
	if got := tree(t, s.Dir); len(got) != 3 {
		t.Errorf("left %q", got)
	}
}

// What is damaged is one error, hides nothing, and can be discarded alone.
func TestDamaged(t *testing.T) {
	edit := func(old, new string) string { return strings.Replace(fullJSON, old, new, 1) }
	content := func(data string) func(path string) error {
		return func(path string) error {
			return errors.Join(os.Mkdir(path, 0o700), os.WriteFile(filepath.Join(path, recordFile), []byte(data), 0o600))
		}
	}
	within := func(do func(record string) error) func(path string) error {
		return func(path string) error {
			return errors.Join(content(fullJSON)(path), os.Remove(filepath.Join(path, recordFile)), do(filepath.Join(path, recordFile)))
		}
	}
	for name, test := range map[string]struct {
		make func(path string) error
		want string
	}{
		"empty":     {content(""), "unexpected end of JSON input"},
		"truncated": {content(fullJSON[:300]), "unexpected end of JSON input"},
		"garbage":   {content("\x7fELF\x00\n\n"), "invalid character"},
		"duplicate": {content(edit(`"state":"failed"`, `"state":"failed","state":"stopped"`)), `field "state" occurs twice`},
		"version":   {content(`{"version":2,"mood":"good"}`), "unsupported version 2: this program reads version 1"},
		"elsewhere": {content(fullJSON), `it is of "web"`},
		"large":     {content(strings.Repeat(" ", limit.Record) + fullJSON), "larger than"},
		"missing":   {func(path string) error { return os.Mkdir(path, 0o700) }, "no such file"},
		"file":      {func(path string) error { return os.WriteFile(path, nil, 0o600) }, "not a directory"},
		"link":      {func(path string) error { return os.Symlink("good", path) }, "not a directory"},
		"dangling":  {func(path string) error { return os.Symlink("nowhere", path) }, "not a directory"},
		"open":      {func(path string) error { return errors.Join(content(fullJSON)(path), os.Chmod(path, 0o770)) }, "can be written by others: mode 0770"},
		"mode": {func(path string) error {
			return errors.Join(content(fullJSON)(path), os.Chmod(path+"/"+recordFile, 0o666))
		}, "can be written by others: mode 0666"},
		"recordlink": {within(func(path string) error { return os.Symlink("../good/record.json", path) }), "symbolic links"},
		"recorddir":  {within(func(path string) error { return os.Mkdir(path, 0o700) }), "not a regular file"},
		"fifo":       {within(func(path string) error { return unix.Mkfifo(path, 0o600) }), "not a regular file"},
		"socket": {func(path string) error {
			t.Chdir(filepath.Dir(path)) // a socket's path must be short
			if err := os.Mkdir("socket", 0o700); err != nil {
				return err
			}
			l, err := net.Listen("unix", "socket/"+recordFile)
			if err == nil {
				t.Cleanup(func() { l.Close() })
			}
			return err
		}, "no such device"},
	} {
		s := newStore(t)
		good := create(t, s, "good")
		if err := test.make(s.Path(name)); err != nil {
			t.Fatal(name, err)
		}
		list, err := s.List()
		if len(list) != 1 || list[0].ID != good.ID {
			t.Errorf("%s hides: %v", name, list)
		}
		_, gotErr := s.Get(name)
		_, updateErr := s.Update(t.Context(), name, func(*Record) error { panic("called") })
		locked(t, s, func(l *Lock) {
			removeErr := l.Remove(t.Context(), name)
			createErr := l.Create(bundled(name), day)
			if !errors.Is(createErr, ErrExists) {
				t.Errorf("%s: created: %v", name, createErr)
			}
			for _, err := range []error{err, gotErr, updateErr, removeErr} {
				if !errors.Is(err, ErrRecord) || !strings.HasPrefix(err.Error(), `instance "`+name+`": bad record: `) ||
					!strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "\n") {
					t.Errorf("%s: %v", name, err)
				}
				if errors.Is(err, strictjson.ErrVersion) != (name == "version") {
					t.Errorf("%s: ErrVersion: %v", name, err)
				}
			}
			if err := l.Discard(name); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		})
		if got := tree(t, s.Dir); len(got) != 3 {
			t.Errorf("%s: left %q", name, got)
		}
	}
}

// Several bad records are several errors.
func TestListJoins(t *testing.T) {
	s := newStore(t)
	create(t, s, "good")
	for _, name := range []string{"b", "a", "white space"} {
		if err := os.Mkdir(s.Path(name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	list, err := s.List()
	joined, ok := err.(interface{ Unwrap() []error })
	if len(list) != 1 || !ok || len(joined.Unwrap()) != 3 || !strings.HasPrefix(err.Error(), `instance "a": `) {
		t.Errorf("%v, %v", list, err)
	}
}

// A directory that somebody else could change is not used, and not changed.
func TestUnsafeDirectory(t *testing.T) {
	foreign := "/" // of root
	if os.Geteuid() == 0 {
		foreign = t.TempDir()
		if err := os.Chown(foreign, 65534, 65534); err != nil {
			t.Fatal(err)
		}
	}
	real, link, file, open := t.TempDir(), filepath.Join(t.TempDir(), "link"), filepath.Join(t.TempDir(), "file"), t.TempDir()
	if err := errors.Join(os.Symlink(real, link), os.WriteFile(file, nil, 0o600), os.Chmod(open, 0o777)); err != nil {
		t.Fatal(err)
	}
	for dir, want := range map[string]string{link: "not a directory", file: "not a directory", open: "written by others: mode 0777", foreign: "belongs to user"} {
		s := &Store{Dir: dir}
		_, listErr := s.List()
		_, getErr := s.Get("web")
		_, updateErr := s.Update(t.Context(), "web", func(*Record) error { panic("called") })
		_, _, reconcileErr := s.Reconcile(t.Context(), day, none, nil)
		l, lockErr := s.Lock(t.Context())
		if l != nil {
			l.Unlock()
		}
		for i, err := range []error{listErr, getErr, updateErr, reconcileErr, lockErr} {
			if !errors.Is(err, ErrUnsafe) || errors.Is(err, ErrRecord) || !strings.HasPrefix(err.Error(), "unsafe: "+dir) || !strings.Contains(err.Error(), want) {
				t.Errorf("%s, call %d: %v", want, i, err)
			}
		}
	}
	s := &Store{Dir: filepath.Join(real, "missing", "mortise")}
	if _, err := s.Lock(t.Context()); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}

// A write that fails half-way leaves the old record and nothing else. The limit on
// the size of files stands for a full disk. It also holds for what package testing
// writes, so that a process of its own has it.
func TestFullDisk(t *testing.T) {
	const inside = "TENON_INSTANCE_FULL_DISK"
	if os.Getenv(inside) == "" {
		cmd := exec.Command(os.Args[0], "-test.run=^TestFullDisk$", "-test.v")
		cmd.Env = append(os.Environ(), inside+"=1")
		if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "--- PASS") {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	s := newStore(t)
	web := create(t, s, "web")
	before := tree(t, s.Dir)
	limited(t, func() {
		_, err := s.Update(t.Context(), "web", func(r *Record) error { r.Held.CPUs = "2-3"; return nil })
		if !errors.Is(err, unix.EFBIG) || !strings.HasPrefix(err.Error(), `instance "web": write `) {
			t.Error(err)
		}
		locked(t, s, func(l *Lock) {
			if err := l.Create(bundled("cache"), day); !errors.Is(err, unix.EFBIG) || strings.Contains(err.Error(), "\n") {
				t.Error(err)
			}
		})
	})
	if got := tree(t, s.Dir); !reflect.DeepEqual(got, before) {
		t.Errorf("left %q", got)
	}
	if got, err := s.Get("web"); err != nil || !reflect.DeepEqual(got, web) {
		t.Errorf("%v, %+v", err, got)
	}
	update(t, s, "web", func(r *Record) { r.Held.CPUs = "2-3" })
	create(t, s, "cache")
}

// limited runs do while files can have 100 bytes.
func limited(t *testing.T, do func()) {
	t.Helper()
	var old unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_FSIZE, &old); err != nil {
		t.Fatal(err)
	}
	signal.Ignore(unix.SIGXFSZ)
	if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: 100, Max: old.Max}); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &old); err != nil {
			t.Fatal(err)
		}
		signal.Reset(unix.SIGXFSZ)
	}()
	do()
}

// What a process that was killed left does no harm and goes away.
func TestLeftovers(t *testing.T) {
	s := newStore(t)
	create(t, s, "web")
	for _, dir := range []string{scratch, "web"} {
		if err := errors.Join(os.MkdirAll(s.Path(dir), 0o700), os.WriteFile(filepath.Join(s.Path(dir), ".record.json123"), []byte("{"), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	if list, err := s.List(); len(list) != 1 || err != nil {
		t.Errorf("%v, %v", list, err)
	}
	create(t, s, "cache")
	update(t, s, "web", func(r *Record) {})
	locked(t, s, func(l *Lock) {
		if err := errors.Join(l.Remove(t.Context(), "web"), l.Remove(t.Context(), "cache")); err != nil {
			t.Error(err)
		}
	})
	if got := tree(t, s.Dir); len(got) != 1 {
		t.Errorf("left %q", got)
	}
}

// Who waits for a lock can give up, and gets it when the other is done.
func TestLocksWait(t *testing.T) {
	s := newStore(t)
	create(t, s, "web")
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	locked(t, s, func(*Lock) {
		if _, err := s.Lock(ctx); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), s.Dir) {
			t.Error(err)
		}
		update(t, s, "web", func(*Record) {}) // does not need that lock
	})
	locked(t, s, func(*Lock) {})
	update(t, s, "web", func(*Record) {
		if _, err := s.Update(ctx, "web", func(*Record) error { panic("called") }); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), s.Path("web")) {
			t.Error(err)
		}
		if _, err := s.Get("web"); err != nil { // waits for nobody
			t.Error(err)
		}
	})

	// Who waited finds that it was removed.
	done, mine := make(chan error), errors.New("mine")
	_, err := s.Update(t.Context(), "web", func(*Record) error {
		go func() {
			_, err := s.Update(context.Background(), "web", func(*Record) error { panic("called") })
			done <- err
		}()
		time.Sleep(20 * time.Millisecond)
		return errors.Join(mine, os.RemoveAll(s.Path("web")))
	})
	if !errors.Is(err, mine) {
		t.Error(err)
	}
	if err := <-done; !errors.Is(err, ErrNotFound) {
		t.Error(err)
	}
}

// Who waited for an instance that was removed and created again waits for the new one.
func TestLockOfWhatWasReplaced(t *testing.T) {
	s := newStore(t)
	create(t, s, "web")
	done, mine := make(chan error, 1), errors.New("mine")
	var again *os.File
	_, err := s.Update(t.Context(), "web", func(r *Record) (err error) {
		go func() {
			_, err := s.Update(context.Background(), "web", func(*Record) error { return nil })
			done <- err
		}()
		time.Sleep(20 * time.Millisecond)
		if err := errors.Join(os.RemoveAll(s.Path("web")), os.Mkdir(s.Path("web"), 0o700)); err != nil {
			return err
		}
		if again, err = lock(t.Context(), func() (*os.File, error) { return s.Open("web") }); err != nil {
			return err
		}
		return errors.Join(r.write(again), mine)
	})
	if !errors.Is(err, mine) {
		t.Fatal(err)
	}
	select {
	case err := <-done:
		t.Errorf("it did not wait: %v", err)
	case <-time.After(50 * time.Millisecond):
		again.Close()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

// Who only looks sees an instance or none, while it is removed and created again.
func TestGetRaces(t *testing.T) {
	s := newStore(t)
	stop := make(chan bool)
	var looking sync.WaitGroup
	for range 2 {
		looking.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					if _, err := s.Get("web"); err != nil && !errors.Is(err, ErrNotFound) {
						t.Error(err)
					}
				}
			}
		})
	}
	for range 100 {
		create(t, s, "web")
		locked(t, s, func(l *Lock) {
			if err := l.Remove(t.Context(), "web"); err != nil {
				t.Error(err)
			}
		})
	}
	close(stop)
	looking.Wait()
}
