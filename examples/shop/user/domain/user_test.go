package domain_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/armature-go/armature/examples/shop/user/domain"
)

func ExampleNew() {
	u, err := domain.New("cust-13", " Mia Holm ", "mia@example.org", time.Unix(0, 0))
	fmt.Printf("%q %v\n", u.Name, err)
	_, err = domain.New("cust-13", "Mia Holm", "mia at home", time.Unix(0, 0))
	fmt.Println(err)
	// Output:
	// "Mia Holm" <nil>
	// user: invalid: email must be a plain mail address
}

func TestNewRefuses(t *testing.T) {
	t.Parallel()
	for name, c := range map[string][3]string{
		"no id":            {"", "Mia", "mia@example.org"},
		"a path as id":     {"../mia", "Mia", "mia@example.org"},
		"a long id":        {strings.Repeat("x", 65), "Mia", "mia@example.org"},
		"no name":          {"mia", " ", "mia@example.org"},
		"a long name":      {"mia", strings.Repeat("ö", 201), "mia@example.org"},
		"no address":       {"mia", "Mia", ""},
		"a named address":  {"mia", "Mia", "Mia <mia@example.org>"},
		"a header in mail": {"mia", "Mia", "mia@example.org\r\nBcc: x@example.org"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if u, err := domain.New(c[0], c[1], c[2], time.Now()); !errors.Is(err, domain.ErrInvalid) {
				t.Fatalf("got %+v, %v", u, err)
			}
		})
	}
}

func TestSeedKeepsTheRules(t *testing.T) {
	t.Parallel()
	users := domain.Seed()
	if len(users) != 12 {
		t.Fatalf("%d customers", len(users))
	}
	seen := map[string]bool{}
	for _, u := range users {
		if _, err := domain.New(u.ID, u.Name, u.Email, u.CreatedAt); err != nil || seen[u.ID] {
			t.Errorf("%+v: %v, twice: %v", u, err, seen[u.ID])
		}
		seen[u.ID] = true
	}
}
