// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package lease

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

// A restore of etcd (without etcdutl --bump-revision) forgets the versions since the backup.
// Afterwards etcd assigns the same versions to other states.
func TestStandbySeesChangesDespiteVersionsReusedByEtcd(t *testing.T) {
	held := func(hold string, renewed int) Record {
		return Record{UID: "uid", Version: "7", Holder: "b_u", Hold: hold, RenewTime: time.Unix(int64(renewed), 0), Duration: 30 * time.Second}
	}
	for name, c := range map[string]struct{ before, after Record }{
		"free, then held":   {stored(free(), "7"), held("h1", 1)},
		"another hold":      {held("h1", 1), held("h2", 1)},
		"the holder renews": {held("h1", 1), held("h1", 2)},
	} {
		t.Run(name, func(t *testing.T) {
			var o Observer
			o.Read(at(1), c.before)
			o.Blind()
			o.Read(at(100), c.after)
			r, _ := o.Record()
			assert.Equal(t, c.after, r)
			free, sees := o.FreeAt(30 * time.Second)
			assert.True(t, sees)
			assert.Equal(t, at(130), free, "the holder of the restored Lease gets its whole duration")
		})
	}
}
