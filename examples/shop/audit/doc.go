// Package audit checks a shop against the ledgers of the companies outside it and against each service's own tables,
// never against what the shop says of itself.
//
//	cfg, err := audit.ReadConfig("data/shop.json")
//	report, err := audit.Run(ctx, cfg)
//	report.Print(os.Stdout)      // one line a check, then "audit: green" or "audit: red"
//	if !report.Green() { ... }
//
// It only reads, beside the running shop, and takes no lock that a service would wait for. Since a shop at work is never
// at one with itself, Run looks again until everything holds twice in a row, until nothing moves any more though
// something does not hold, or until Config.Settle is over. An error means that something could not be read; what was
// read and is wrong is a red line of the report.
package audit
