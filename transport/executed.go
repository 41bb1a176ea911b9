package transport

// Executed clears the claim of err that the operation had no effect. Servers
// put it around every handler: an error that a handler returns may be the one of
// a call it made itself, and what that call did not do says nothing of what the
// handler had done before. Admission policies stand outside the handler, and
// their rejections keep the claim. Executed(nil) is nil.
func Executed(err error) error {
	if err == nil {
		return nil
	}
	e := AsError(err)
	if !e.Details.NotExecuted {
		return err
	}
	c := e.clone()
	c.Details.NotExecuted = false
	return c
}
