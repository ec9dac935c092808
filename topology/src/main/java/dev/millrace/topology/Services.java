package dev.millrace.topology;

import dev.millrace.inference.api.Generator;
import java.util.function.Consumer;
import java.util.function.Supplier;
import org.apache.avro.specific.SpecificRecord;
import org.apache.kafka.common.serialization.Serde;

/**
 * What all tasks of a worker share. Every part is safe for several threads.
 *
 * @param serdes makes a configured serde for each task, which closes it
 * @param engineFailed hears why the engine can answer nothing any more
 */
record Services(
    WorkerConfig config,
    Generator generator,
    EventMapper mapper,
    Gate gate,
    WorkerMetrics metrics,
    OutputLimits limits,
    Supplier<Serde<SpecificRecord>> serdes,
    Consumer<String> engineFailed) {}
