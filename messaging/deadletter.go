package messaging

import (
	"encoding/json"
	"errors"
	"os"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// Header names of a dead letter, besides those the message had.
const (
	HeaderDeadTopic    = "deadlettertopic"    // where the message came from
	HeaderDeadGroup    = "deadlettergroup"    // whose handler failed
	HeaderDeadAttempts = "deadletterattempts" // how often the handler was called
	HeaderDeadErrors   = "deadlettererrors"   // JSON array of Failure, oldest first; long ones keep the first and the last
	HeaderDeadFirst    = "deadletterfirst"    // RFC 3339 time of the first failure
	HeaderDeadLast     = "deadletterlast"     // RFC 3339 time of the last
	HeaderDeadHost     = "deadletterhost"     // host name of the process
	HeaderDeadStack    = "deadletterstack"    // stack of the last panic, if there was one, cut to 4 KiB
)

// Failure is one failed attempt in HeaderDeadErrors.
type Failure struct {
	Attempt int       `json:"attempt"`
	Time    time.Time `json:"time"`
	Error   string    `json:"error"` // cut to 512 bytes
}

const (
	keptFailures = 10
	keptError    = 512
	keptStack    = 4 << 10
	deadSuffix   = ".dlq"
)

// DeadLetterTopic returns the topic where the messages go that a group could not handle: "<topic>.<group>.dlq".
// It is a topic like others, and keeps everything until somebody subscribes.
func DeadLetterTopic(topic, group string) string { return topic + "." + group + deadSuffix }

// IsDeadLetterTopic reports whether topic holds dead letters. Drivers keep the messages of such topics also when no
// group exists yet.
func IsDeadLetterTopic(topic string) bool { return strings.HasSuffix(topic, deadSuffix) }

// Failures decodes HeaderDeadErrors.
func (m *Message) Failures() ([]Failure, error) {
	var fs []Failure
	if err := json.Unmarshal([]byte(m.Header[HeaderDeadErrors]), &fs); err != nil {
		return nil, errors.Join(errors.New("messaging: message is no dead letter"), err)
	}
	return fs, nil
}

func deadLetter(m *Message, topic, group string, attempts int, fs []Failure, stack string) *Message {
	m = m.Clone()
	if m.Header == nil {
		m.Header = Header{}
	}
	stripDead(m.Header)
	list, _ := json.Marshal(fs) //nolint:errchkjson // strings, ints and times of this clock always encode
	host, _ := os.Hostname()
	h := m.Header
	h[HeaderDeadTopic] = topic
	h[HeaderDeadGroup] = group
	h[HeaderDeadAttempts] = strconv.Itoa(attempts)
	h[HeaderDeadErrors] = string(list)
	h[HeaderDeadHost] = host
	if len(fs) > 0 {
		h[HeaderDeadFirst] = fs[0].Time.Format(time.RFC3339Nano)
		h[HeaderDeadLast] = fs[len(fs)-1].Time.Format(time.RFC3339Nano)
	}
	if stack != "" {
		h[HeaderDeadStack] = cut(stack, keptStack)
	}
	return m
}

func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}
