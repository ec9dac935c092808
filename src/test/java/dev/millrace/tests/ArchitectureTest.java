package dev.millrace.tests;

import static org.assertj.core.api.Assertions.assertThat;

import com.tngtech.archunit.core.domain.JavaClasses;
import com.tngtech.archunit.core.importer.ClassFileImporter;
import com.tngtech.archunit.core.importer.ImportOption;
import com.tngtech.archunit.lang.ArchRule;
import dev.millrace.inference.engine.planted.SeesBackend;
import dev.millrace.inference.planted.ReadsEnvironment;
import dev.millrace.inference.planted.SeesEverything;
import dev.millrace.kernels.planted.SeesInference;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.Arguments;
import org.junit.jupiter.params.provider.MethodSource;

/** Holds {@link Arrows}, each of which is also shown a class that breaks it. */
class ArchitectureTest {
  private static final JavaClasses OURS =
      new ClassFileImporter()
          .withImportOption(new ImportOption.DoNotIncludeTests())
          .importPackages("dev.millrace");

  static Stream<Arguments> rules() {
    return Stream.of(
        rule(
            "Kafka and Avro",
            Arrows.KAFKA_AND_AVRO_ONLY_IN_SCHEMAS_AND_TOPOLOGY,
            SeesEverything.class),
        rule("JCuda", Arrows.JCUDA_ONLY_IN_KERNELS_AND_THE_CUDA_BACKEND, SeesEverything.class),
        rule("Vector API", Arrows.VECTOR_API_ONLY_IN_THE_CPU_BACKEND, SeesEverything.class),
        rule(
            "tokenizer library",
            Arrows.TOKENIZER_LIBRARY_ONLY_IN_ITS_WRAPPER,
            SeesEverything.class),
        rule("inference", Arrows.INFERENCE_SEES_ONLY_KERNELS, SeesEverything.class),
        rule(
            "schemas, kernels",
            Arrows.SCHEMAS_AND_KERNELS_SEE_NO_OTHER_MODULE,
            SeesInference.class),
        rule("engine", Arrows.ENGINE_SEES_NO_MODEL_AND_NO_BACKEND, SeesBackend.class),
        rule("environment", Arrows.ENVIRONMENT_IS_READ_IN_ONE_PLACE, ReadsEnvironment.class),
        rule("null-marked", Arrows.EVERY_PACKAGE_IS_NULL_MARKED, SeesEverything.class));
  }

  private static Arguments rule(String name, ArchRule rule, Class<?> breaksIt) {
    return Arguments.of(name, rule, breaksIt);
  }

  @ParameterizedTest(name = "{0}")
  @MethodSource("rules")
  void shouldHold(String name, ArchRule rule, Class<?> breaksIt) {
    rule.check(OURS);
  }

  @ParameterizedTest(name = "{0}")
  @MethodSource("rules")
  void shouldSeeAClassThatBreaksIt(String name, ArchRule rule, Class<?> breaksIt) {
    JavaClasses planted = new ClassFileImporter().importClasses(breaksIt);
    assertThat(rule.evaluate(planted).hasViolation()).isTrue();
  }

  @Test
  void shouldKeepTheApiApart() {
    Arrows.API_SEES_NOTHING_ELSE_OF_OURS.check(OURS);
  }

  @Test
  void shouldHaveNoPackageCycles() {
    Arrows.NO_PACKAGE_CYCLES.check(OURS);
  }

  @Test
  void shouldSeeAPackageCycle() {
    JavaClasses planted =
        new ClassFileImporter()
            .importClasses(
                SeesEverything.class, dev.millrace.inference.engine.planted.SeesBackend.class);
    assertThat(Arrows.NO_PACKAGE_CYCLES.evaluate(planted).hasViolation()).isTrue();
  }

  /** An importer that finds nothing would make every rule hold. */
  @Test
  void shouldHaveFoundTheClassesOfEveryModule() {
    for (Class<?> type :
        new Class<?>[] {
          dev.millrace.schemas.AvroSerde.class,
          dev.millrace.inference.engine.Batch.class,
          dev.millrace.topology.Environment.class
        }) {
      assertThat(OURS.contain(type)).as(type.getName()).isTrue();
    }
    assertThat(OURS.get("dev.millrace.schemas.AvroSerde").getDirectDependenciesFromSelf())
        .anyMatch(d -> d.getTargetClass().getPackageName().startsWith("org.apache.kafka"));
  }
}
