package flow

import _ "github.com/oklog/run"
