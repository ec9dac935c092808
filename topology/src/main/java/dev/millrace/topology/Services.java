package dev.millrace.topology;

import dev.millrace.inference.api.Generator;
import java.util.function.Consumer;

/**
 * What all tasks of a worker share. Every part is safe for several threads.
 *
 * @param engineFailed hears why the engine can answer nothing any more
 */
record Services(
    WorkerConfig config,
    Generator generator,
    EventMapper mapper,
    Gate gate,
    WorkerMetrics metrics,
    OutputLimits limits,
    EventCodecs codecs,
    ReplyOutbox replies,
    CloudEvents cloudEvents,
    Tracing tracing,
    Quarantine quarantine,
    SaveBudget saves,
    Consumer<String> engineFailed) {}
