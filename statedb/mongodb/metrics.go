package mongodb

import (
	"context"
	"errors"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
	"go.mongodb.org/mongo-driver/v2/event"
	"go.mongodb.org/mongo-driver/v2/mongo"
)

// metrics count the commands to the server.
type metrics struct {
	commands *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
}

func newMetrics(registry prometheus.Registerer) *metrics {
	m := &metrics{
		commands: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: "couchledger", Subsystem: "mongodb", Name: "commands_total",
			Help: "Commands to MongoDB by name and the code of their error, 0 for none, -1 where no answer came.",
		}, []string{"command", "code"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Namespace: "couchledger", Subsystem: "mongodb", Name: "command_seconds",
			Help:    "Time until MongoDB answered, by the command's name; getMore waits for changes.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30},
		}, []string{"command"}),
	}
	if registry != nil {
		registry.MustRegister(m.commands, m.seconds)
	}
	return m
}

// monitor makes the driver count every command.
func (m *metrics) monitor() *event.CommandMonitor {
	count := func(e event.CommandFinishedEvent, code int32) {
		m.commands.WithLabelValues(e.CommandName, strconv.Itoa(int(code))).Inc()
		m.seconds.WithLabelValues(e.CommandName).Observe(e.Duration.Seconds())
	}
	return &event.CommandMonitor{
		Succeeded: func(_ context.Context, e *event.CommandSucceededEvent) { count(e.CommandFinishedEvent, 0) },
		Failed: func(_ context.Context, e *event.CommandFailedEvent) {
			code := int32(-1)
			var answer mongo.CommandError
			if errors.As(e.Failure, &answer) && answer.Code != 0 {
				code = answer.Code
			}
			count(e.CommandFinishedEvent, code)
		},
	}
}
