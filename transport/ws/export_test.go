package ws

// Decode is how a message is read.
func Decode(data []byte, in any, strict bool) *CloseError { return decode(data, in, strict) }
