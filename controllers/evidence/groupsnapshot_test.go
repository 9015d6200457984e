package evidence

import "context"

func (l *lab) controlGroups(context.Context) {}
