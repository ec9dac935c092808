package dev.millrace.tests;

import static com.tngtech.archunit.core.domain.JavaClass.Predicates.resideInAPackage;
import static com.tngtech.archunit.core.domain.JavaClass.Predicates.resideInAnyPackage;
import static com.tngtech.archunit.lang.syntax.ArchRuleDefinition.classes;
import static com.tngtech.archunit.lang.syntax.ArchRuleDefinition.noClasses;
import static com.tngtech.archunit.library.dependencies.SlicesRuleDefinition.slices;

import com.tngtech.archunit.base.DescribedPredicate;
import com.tngtech.archunit.core.domain.AccessTarget;
import com.tngtech.archunit.core.domain.JavaAccess;
import com.tngtech.archunit.core.domain.JavaClass;
import com.tngtech.archunit.lang.ArchCondition;
import com.tngtech.archunit.lang.ArchRule;
import com.tngtech.archunit.lang.ConditionEvents;
import com.tngtech.archunit.lang.SimpleConditionEvent;
import java.util.Set;
import org.jspecify.annotations.NullMarked;

/** What may depend on what; docs/design.md gives the reasons. */
final class Arrows {
  static final String OURS = "dev.millrace..";
  static final String ENVIRONMENT = "dev.millrace.topology.Environment";

  private static final String[] KAFKA_AND_AVRO = {
    "org.apache.kafka..", "org.apache.avro..", "io.confluent..", "kafka.."
  };

  static final ArchRule KAFKA_AND_AVRO_ONLY_IN_SCHEMAS_AND_TOPOLOGY =
      noClasses()
          .that()
          .resideOutsideOfPackages("dev.millrace.schemas..", "dev.millrace.topology..")
          .should()
          .dependOnClassesThat()
          .resideInAnyPackage(KAFKA_AND_AVRO)
          .because("the engine must run without Kafka");

  static final ArchRule JCUDA_ONLY_IN_KERNELS_AND_THE_CUDA_BACKEND =
      noClasses()
          .that()
          .resideOutsideOfPackages(
              "dev.millrace.kernels..", "dev.millrace.inference.backend.cuda..")
          .should()
          .dependOnClassesThat()
          .resideInAPackage("jcuda..");

  static final ArchRule VECTOR_API_ONLY_IN_THE_CPU_BACKEND =
      noClasses()
          .that()
          .resideOutsideOfPackage("dev.millrace.inference.backend.cpu..")
          .should()
          .dependOnClassesThat()
          .resideInAPackage("jdk.incubator.vector..");

  static final ArchRule TOKENIZER_LIBRARY_ONLY_IN_ITS_WRAPPER =
      noClasses()
          .that(
              DescribedPredicate.describe(
                  "are not HfTokenizer",
                  c -> !c.getName().startsWith("dev.millrace.inference.token.HfTokenizer")))
          .should()
          .dependOnClassesThat()
          .resideInAPackage("ai.djl..")
          .because("it truncates, downloads and turns text into control tokens unless disarmed");

  static final ArchRule INFERENCE_SEES_ONLY_KERNELS =
      noClasses()
          .that()
          .resideInAPackage("dev.millrace.inference..")
          .should()
          .dependOnClassesThat()
          .resideInAnyPackage("dev.millrace.topology..", "dev.millrace.schemas..");

  static final ArchRule SCHEMAS_AND_KERNELS_SEE_NO_OTHER_MODULE =
      noClasses()
          .that()
          .resideInAnyPackage("dev.millrace.schemas..", "dev.millrace.kernels..")
          .should()
          .dependOnClassesThat(
              resideInAPackage(OURS)
                  .and(
                      DescribedPredicate.not(
                          resideInAnyPackage("dev.millrace.schemas..", "dev.millrace.kernels.."))));

  static final ArchRule ENGINE_SEES_NO_MODEL_AND_NO_BACKEND =
      noClasses()
          .that()
          .resideInAPackage("dev.millrace.inference.engine..")
          .should()
          .dependOnClassesThat()
          .resideInAnyPackage(
              "dev.millrace.inference.model..",
              "dev.millrace.inference.backend..",
              "dev.millrace.inference.checkpoint..",
              "dev.millrace.inference.token..",
              "dev.millrace.inference.chat..")
          .because("bookkeeping is tested with no device, and Batch alone crosses to arithmetic");

  static final ArchRule API_SEES_NOTHING_ELSE_OF_OURS =
      noClasses()
          .that()
          .resideInAPackage("dev.millrace.inference.api..")
          .should()
          .dependOnClassesThat(
              resideInAPackage(OURS)
                  .and(DescribedPredicate.not(resideInAPackage("dev.millrace.inference.api.."))));

  static final ArchRule NO_PACKAGE_CYCLES =
      slices()
          .matching("dev.millrace.(**)")
          .should()
          .beFreeOfCycles()
          // The program's entry puts all parts together.
          .ignoreDependency(
              DescribedPredicate.describe(
                  "Main", c -> c.getName().equals("dev.millrace.topology.Main")),
              DescribedPredicate.alwaysTrue());

  static final ArchRule EVERY_PACKAGE_IS_NULL_MARKED =
      classes()
          .should(
              new ArchCondition<JavaClass>("be in a package whose package-info says @NullMarked") {
                @Override
                public void check(JavaClass type, ConditionEvents events) {
                  boolean marked = type.getPackage().isAnnotatedWith(NullMarked.class);
                  events.add(
                      new SimpleConditionEvent(
                          type,
                          marked,
                          type.getPackageName() + " has no package-info.java with @NullMarked"));
                }
              })
          .because("NullAway checks nothing else");

  static final ArchRule ENVIRONMENT_IS_READ_IN_ONE_PLACE =
      classes()
          .that()
          .doNotHaveFullyQualifiedName(ENVIRONMENT)
          .should(readNoEnvironment())
          .because("settings come from one place");

  private static final Set<String> READS =
      Set.of(
          "java.lang.System.getenv",
          "java.lang.System.getProperty",
          "java.lang.System.getProperties",
          "java.lang.Boolean.getBoolean",
          "java.lang.Integer.getInteger",
          "java.lang.Long.getLong");

  private Arrows() {}

  private static ArchCondition<JavaClass> readNoEnvironment() {
    return new ArchCondition<>("read no environment variable and no system property") {
      @Override
      public void check(JavaClass type, ConditionEvents events) {
        for (JavaAccess<?> access : type.getAccessesFromSelf()) {
          AccessTarget target = access.getTarget();
          if (READS.contains(target.getOwner().getName() + "." + target.getName())) {
            events.add(SimpleConditionEvent.violated(access, access.getDescription()));
          }
        }
      }
    };
  }
}
