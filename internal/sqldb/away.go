package sqldb

import (
	"database/sql/driver"
	"errors"
	"net"
)

// awayError is an error of [InTx] that speaks of the database and not of what
// was asked of it. Other packages read it by its method.
type awayError struct{ error }

func (e *awayError) Unwrap() error { return e.error }

// Unavailable reports true: the same transaction may succeed when the database
// is well again. Whether this one was committed is not certain.
func (e *awayError) Unavailable() bool { return true }

func markAway(err error) error {
	if err != nil && IsAway(err) {
		return &awayError{err}
	}
	return err
}

// IsAway reports whether err says that the database cannot work now: no
// connection, no room, a disk that fails, a lock that stays taken. Like
// [IsUnique] it reads the drivers' errors by their methods.
func IsAway(err error) bool {
	var state interface{ SQLState() string }
	if errors.As(err, &state) {
		s := state.SQLState()
		if len(s) != 5 {
			return false
		}
		switch s[:2] {
		case "08", "53", "58": // connection, room and memory, I/O
			return true
		}
		return s[:3] == "57P" // it stops, crashes or starts
	}
	var code interface{ Code() int }
	if errors.As(err, &code) {
		const busy, ioErr, full, cantOpen = 5, 10, 13, 14
		switch code.Code() & 0xff { // the rest tells more about the same
		case busy, ioErr, full, cantOpen:
			return true
		}
		return false
	}
	var broken *net.OpError
	return errors.Is(err, driver.ErrBadConn) || errors.As(err, &broken)
}
