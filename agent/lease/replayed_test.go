// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package lease

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

// A watch without a version may begin with states from before the last read, if the API server lags
// behind.
func TestOldEventsNeverShowThatTheHolderLives(t *testing.T) {
	renewed := func(version string, seconds int) Record {
		return Record{UID: "uid", Version: version, Holder: "b_u", Hold: "h1", RenewTime: time.Unix(int64(seconds), 0), Duration: 30 * time.Second}
	}
	var o Observer
	o.Read(at(1), renewed("10", 50))
	for _, old := range []Record{renewed("8", 40), renewed("9", 45), renewed("10", 50)} {
		o.Watched(at(2), old)
		assert.False(t, o.alive)
	}
	o.Read(at(3), renewed("10", 50))
	assert.False(t, o.alive, "the read shows the state of the first read")
	o.Watched(at(4), renewed("11", 55))
	assert.True(t, o.alive)
	o.Watched(at(5), renewed("9", 45))
	assert.True(t, o.alive, "the holder has renewed since the first read")
}

// After a restore of etcd, the versions may be smaller than before.
func TestReadMakesSmallerVersionsCountAgain(t *testing.T) {
	renewed := func(version string, seconds int) Record {
		return Record{UID: "uid", Version: version, Holder: "b_u", Hold: "h1", RenewTime: time.Unix(int64(seconds), 0), Duration: 30 * time.Second}
	}
	var o Observer
	o.Read(at(1), renewed("1000", 50))
	o.Blind()
	o.Read(at(2), renewed("7", 40))
	o.Watched(at(3), renewed("8", 60))
	assert.True(t, o.alive)

	o = Observer{}
	o.Read(at(1), renewed("x9", 50))
	o.Watched(at(2), renewed("x10", 60))
	assert.True(t, o.alive, "versions that are no numbers have no order")
}
