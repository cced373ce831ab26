// Package vectors keeps the requirement above in go.mod: the tests read the library's own tables.
package vectors

import _ "github.com/distribution/reference"
