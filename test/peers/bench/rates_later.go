//go:build !rates

package main

import "context"

func rates(context.Context) []row { return nil }
