package dev.millrace.topology.chaos;

import dev.millrace.inference.api.GenerateEvent;
import dev.millrace.inference.api.GenerateEvent.Delta;
import dev.millrace.inference.api.GenerateRequest;
import dev.millrace.inference.api.Generator;
import java.util.function.Consumer;

/** Notes in a {@link TokenLog} what another generator generates. Closes that generator. */
final class LoggedGenerator implements Generator {
  private final Generator generator;
  private final TokenLog log;

  LoggedGenerator(Generator generator, TokenLog log) {
    this.generator = generator;
    this.log = log;
  }

  @Override
  public String model() {
    return generator.model();
  }

  @Override
  public Generation submit(GenerateRequest request, Consumer<GenerateEvent> listener) {
    int resumed = request.resume().length;
    int entry = log.begin(Planned.number(request.id()), resumed);
    int[] reached = {resumed};
    return generator.submit(
        request,
        event -> {
          if (event instanceof Delta delta) {
            reached[0] += delta.tokens().length;
            log.reached(entry, reached[0]);
          }
          listener.accept(event);
        });
  }

  @Override
  public Status status() {
    return generator.status();
  }

  @Override
  public void close() {
    generator.close();
  }
}
