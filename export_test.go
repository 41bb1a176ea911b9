package armature

import (
	"net/http"
	"time"
)

// CheckEvery shortens the time between two rounds of checks that nobody asked for.
func (s *Service) CheckEvery(d time.Duration) { s.health.interval = d }

// AdminHandler is what the admin server serves, for tests in virtual time.
func (s *Service) AdminHandler() http.Handler { return s.adminHandler() }

// Exported for the tests.
var (
	ParseLevelChange = parseLevelChange
	Redact           = redact
	Scrub            = scrub
)
