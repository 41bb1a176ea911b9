// Package domain holds what a customer is, free of databases and networks.
//
//	u, err := domain.New("cust-13", "Mia Holm", "mia@example.org", time.Now())
//	if err != nil {
//		return err // names the field and the rule
//	}
package domain

import (
	"errors"
	"fmt"
	"net/mail"
	"regexp"
	"strings"
	"time"
	"unicode/utf8"
)

var (
	// ErrInvalid says that a field breaks its rule.
	ErrInvalid = errors.New("user: invalid")

	idRule = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,63}$`)
)

// User is a customer.
type User struct {
	ID, Name, Email string
	CreatedAt       time.Time
}

// New is a customer whose fields keep their rules: an id of at most 64 small letters, digits and dashes, a name of at
// most 200 characters, a plain mail address.
func New(id, name, email string, at time.Time) (User, error) {
	name = strings.TrimSpace(name)
	switch addr, err := mail.ParseAddress(email); {
	case !idRule.MatchString(id):
		return User{}, fmt.Errorf("%w: id must be 1 to 64 small letters, digits and dashes", ErrInvalid)
	case name == "" || utf8.RuneCountInString(name) > 200:
		return User{}, fmt.Errorf("%w: name must have 1 to 200 characters", ErrInvalid)
	case err != nil || addr.Address != email || len(email) > 254:
		return User{}, fmt.Errorf("%w: email must be a plain mail address", ErrInvalid)
	}
	return User{ID: id, Name: name, Email: email, CreatedAt: at}, nil
}

// Seed is the customers of a new shop.
func Seed() []User {
	names := []string{
		"Ada Brandt", "Bruno Costa", "Clara Dubois", "Dario Esposito", "Elin Forsberg", "Farid Ghazi",
		"Greta Hansen", "Hugo Ibarra", "Ines Jansen", "Jonas Keller", "Karla Lund", "Luca Moretti",
	}
	users := make([]User, len(names))
	for i, name := range names {
		first, _, _ := strings.Cut(name, " ")
		users[i] = User{ID: fmt.Sprintf("cust-%02d", i+1), Name: name, Email: strings.ToLower(first) + "@example.org"}
	}
	return users
}
