//go:build failpoints

package main

func init() { passOn = append(passOn, "BANGER_FAILPOINTS") }
