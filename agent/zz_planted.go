package agent

var PLANTED bool
