package audit

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// FileName is the name of the configuration in the data folder of a shop.
const FileName = "shop.json"

// Services whose databases the audit reads.
var services = []string{"order", "payment", "inventory", "shipping", "notification"}

// DefaultStill is the default of Config.Still.
const DefaultStill = 10 * time.Second

// Config says where the books of a shop are. The launcher writes it to FileName.
type Config struct {
	// Databases are the URLs of the services' databases by service name: order, payment, inventory, shipping and
	// notification at least. The outbox of any other that has one is checked too.
	Databases map[string]string `json:"databases"`
	// Ledgers is the folder of the simulators' ledgers.
	Ledgers string `json:"ledgers"`

	// Settle is how long Run waits for the shop to come to rest; 0 looks once.
	Settle time.Duration `json:"-"`
	// Still is how long a shop that is wrong and does nothing about it is given: an event may be on its way through the
	// broker, where nobody sees it, and comes again when the lease of a consumer that died has lapsed. 0 is DefaultStill.
	Still time.Duration `json:"-"`
}

func (c Config) validate() error {
	for _, service := range services {
		if c.Databases[service] == "" {
			return fmt.Errorf("audit: Databases[%q] is empty: name the URL of its database", service)
		}
	}
	if c.Ledgers == "" {
		return errors.New("audit: Ledgers is empty: name the folder of the simulators' ledgers")
	}
	if c.Settle < 0 {
		return fmt.Errorf("audit: Settle is %s: must not be negative", c.Settle)
	}
	return nil
}

// ReadConfig reads what WriteConfig wrote.
func ReadConfig(path string) (Config, error) {
	data, err := os.ReadFile(filepath.Clean(path))
	if err != nil {
		return Config{}, fmt.Errorf("audit: read config: %w", err)
	}
	var c Config
	if err := json.Unmarshal(data, &c); err != nil {
		return Config{}, fmt.Errorf("audit: read config %s: %w", path, err)
	}
	return c, c.validate()
}

// WriteConfig writes c for ReadConfig, readable by its owner only: the URLs may hold passwords. A reader never sees half
// of it.
func WriteConfig(path string, c Config) error {
	if err := c.validate(); err != nil {
		return err
	}
	data, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return fmt.Errorf("audit: write config: %w", err)
	}
	temp, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*") // mode 0600
	if err != nil {
		return fmt.Errorf("audit: write config: %w", err)
	}
	defer func() { _ = os.Remove(temp.Name()) }()
	_, err = temp.Write(append(data, '\n'))
	if err = errors.Join(err, temp.Close()); err != nil {
		return fmt.Errorf("audit: write config: %w", err)
	}
	if err := os.Rename(temp.Name(), path); err != nil {
		return fmt.Errorf("audit: write config: %w", err)
	}
	return nil
}
