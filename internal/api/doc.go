// Package api is what banger and bangerd say to each other: the messages,
// their JSON form, how errors travel, and the version both must speak.
//
// Messages and services are generated from proto/banger/api/v1. The two ends
// are in api/client and api/server.
package api
