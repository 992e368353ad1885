// SPDX-License-Identifier: Apache-2.0

// Package passwd resolves the user of an image.
//
// In: the user of an image configuration, and the image's own /etc/passwd and /etc/group. Out: who
// that is, as runc has it. Refused: names that are not in the files, numbers out of range.
package passwd

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Identity is who an app runs as.
type Identity struct {
	UID, GID uint32
	Groups   []uint32 // all, GID included
	Home     string
}

// Resolve resolves the user of an image configuration (user, uid,
// user:group or uid:gid; empty is root) with the image's own passwd and group
// files, as runc does: a number is never taken for a name, a uid without an
// entry is fine and has gid 0, and a group that is given replaces those of the
// group file.
func Resolve(spec string, passwd, group []byte) (*Identity, error) {
	userArg, groupArg, _ := strings.Cut(spec, ":")
	if userArg == "" {
		userArg = "0"
	}
	uid, numeric, err := parseID(userArg)
	if err != nil {
		return nil, fmt.Errorf("user: %w", err)
	}
	users := parsePasswd(passwd)
	i := slices.IndexFunc(users, func(u user) bool {
		return numeric && u.uid == uid || !numeric && u.name == userArg
	})
	if i < 0 && !numeric {
		return nil, fmt.Errorf("user %q is not in /etc/passwd", userArg)
	}
	found := user{uid: uid}
	if i >= 0 {
		found = users[i]
	}
	id := &Identity{UID: found.uid, GID: found.gid, Home: found.home}
	if id.Home == "" {
		id.Home = "/"
	}
	groups := parseGroup(group)
	if groupArg != "" {
		id.GID, err = resolveGroup(groupArg, groups)
		id.Groups = []uint32{id.GID}
		return id, err
	}
	id.Groups = []uint32{id.GID}
	for _, g := range groups {
		if i >= 0 && g.gid != id.GID && slices.Contains(g.members, found.name) {
			id.Groups = append(id.Groups, g.gid)
		}
	}
	return id, nil
}

func resolveGroup(arg string, groups []group) (uint32, error) {
	gid, numeric, err := parseID(arg)
	if err != nil {
		return 0, fmt.Errorf("group: %w", err)
	}
	if numeric {
		return gid, nil
	}
	i := slices.IndexFunc(groups, func(g group) bool { return g.name == arg })
	if i < 0 {
		return 0, fmt.Errorf("group %q is not in /etc/group", arg)
	}
	return groups[i].gid, nil
}

// user is a line of /etc/passwd.
type user struct {
	name     string
	uid, gid uint32
	home     string
}

// group is a line of /etc/group.
type group struct {
	name    string
	gid     uint32
	members []string
}

// parsePasswd passes over lines without a valid uid and gid: with zeros in
// their place, as runc has it, they would mean root.
func parsePasswd(file []byte) []user {
	var users []user
	for line := range strings.Lines(string(file)) {
		f := strings.Split(strings.TrimSpace(line), ":")
		f = append(f, make([]string, 7)...) // fields at the end may be missing
		uid, ok, err := parseID(f[2])
		gid, ok2, err2 := parseID(f[3])
		if ok && ok2 && err == nil && err2 == nil {
			users = append(users, user{name: f[0], uid: uid, gid: gid, home: f[5]})
		}
	}
	return users
}

// parseGroup passes over lines without a valid gid.
func parseGroup(file []byte) []group {
	var groups []group
	for line := range strings.Lines(string(file)) {
		f := strings.Split(strings.TrimSpace(line), ":")
		f = append(f, make([]string, 4)...)
		if gid, ok, err := parseID(f[2]); ok && err == nil {
			groups = append(groups, group{name: f[0], gid: gid, members: strings.FieldsFunc(f[3], func(r rune) bool { return r == ',' })})
		}
	}
	return groups
}

// parseID parses a uid or gid. It says whether s is a number at all, and fails
// if it is one out of the range 0 to 2^31-1 that runc allows.
func parseID(s string) (id uint32, numeric bool, err error) {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		return 0, false, nil
	}
	if n < 0 || n > 1<<31-1 {
		return 0, true, fmt.Errorf("id %d is out of range", n)
	}
	return uint32(n), true, nil
}
