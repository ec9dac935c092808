package dev.millrace.topology.bundle;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.millrace.topology.Environment;
import java.io.File;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Set;
import java.util.TreeSet;
import java.util.stream.Stream;
import java.util.zip.ZipEntry;
import java.util.zip.ZipFile;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/** What of the project's own class path a bundle holds. */
final class BundlePartsTest {
  @TempDir Path temp;

  /** Entries of all libraries and folders that a bundle takes. */
  private static Set<String> entries() throws Exception {
    Set<String> entries = new TreeSet<>();
    for (String part : Environment.classPath().split(File.pathSeparator)) {
      Path path = Path.of(part);
      List<String> names = new ArrayList<>();
      if (Files.isDirectory(path)) {
        try (Stream<Path> walk = Files.walk(path)) {
          walk.map(f -> path.relativize(f).toString()).forEach(names::add);
        }
      } else if (Files.exists(path) && BundleParts.keepsJar(path.getFileName().toString())) {
        try (ZipFile jar = new ZipFile(path.toFile())) {
          jar.stream().map(ZipEntry::getName).forEach(names::add);
        }
      }
      names.stream().filter(BundleParts::keepsEntry).forEach(entries::add);
    }
    return entries;
  }

  @Test
  void shouldHoldWhatTheProgramStartsFrom() throws Exception {
    assertThat(entries())
        .contains(
            "dev/millrace/topology/Main.class",
            "kafka/Kafka.class",
            "kafka/server/KafkaRaftServer.class",
            // The broker writes its election's state as JSON.
            "org/apache/kafka/raft/generated/QuorumStateDataJsonConverter.class",
            "joptsimple/OptionParser.class",
            "org/apache/kafka/streams/KafkaStreams.class",
            "org/apache/kafka/coordinator/group/GroupCoordinatorService.class",
            "com/yammer/metrics/core/MetricsRegistry.class",
            "scala/Predef.class",
            "io/confluent/kafka/schemaregistry/testutil/MockSchemaRegistry.class",
            "org/apache/avro/Schema.class",
            "ai/djl/huggingface/tokenizers/jni/TokenizersLibrary.class",
            "jcuda/driver/JCudaDriver.class",
            "ch/qos/logback/classic/LoggerContext.class",
            "META-INF/services/org.slf4j.spi.SLF4JServiceProvider");
  }

  @Test
  void shouldHoldTheNativesOfOnePlatformAlone() throws Exception {
    Set<String> natives = new TreeSet<>(entries());
    natives.removeIf(n -> !n.matches(".*\\.(so|dll|dylib|jnilib)"));
    assertThat(natives)
        .anyMatch(n -> n.equals("native/lib/linux-x86_64/cpu/libtokenizers.so"))
        .anyMatch(n -> n.matches("lib/libJCudaDriver-.*-linux-x86_64\\.so"))
        .anyMatch(n -> n.matches("linux/amd64/libzstd-jni.*\\.so"))
        .allMatch(n -> n.matches(".*(linux-x86.64|linux/amd64|Linux/x86_64).*"));
  }

  @ParameterizedTest
  @CsvSource({
    "rocksdbjni-10.1.3.jar,false",
    "scala-reflect-2.13.18.jar,false",
    "scala-library-2.13.18.jar,true",
    "kafka_2.13-4.3.1.jar,true",
    "commons-validator-1.10.1.jar,true",
    "log4j-api-2.25.4.jar,true",
    "prometheus-metrics-exposition-formats-1.7.0.jar,false",
    "prometheus-metrics-exposition-textformats-1.7.0.jar,true",
    "log4j-core-2.25.4.jar,false"
  })
  void shouldLeaveOutWhatNothingComesTo(String jar, boolean kept) {
    assertThat(BundleParts.keepsJar(jar)).isEqualTo(kept);
  }

  @ParameterizedTest
  @CsvSource({
    "META-INF/MANIFEST.MF,true",
    "META-INF/services/a.B,true",
    "META-INF/A.SF,false",
    "META-INF/maven/a/pom.xml,false",
    "META-INF/versions/9/a/B.class,true",
    "module-info.class,false",
    "org/apache/kafka/common/message/FetchRequestData.class,true",
    "org/apache/kafka/common/message/FetchRequestDataJsonConverter.class,false",
    "org/apache/kafka/raft/generated/QuorumStateDataJsonConverter.class,true",
    "dev/millrace/kernels/norm.fatbin,true",
    "lib/libJNvPTXCompiler-12.6.0-linux-x86_64.so,false",
    "native/lib/linux-aarch64/cpu/libtokenizers.so,false"
  })
  void shouldLeaveOutWhatNobodyReads(String entry, boolean kept) {
    assertThat(BundleParts.keepsEntry(entry)).isEqualTo(kept);
  }

  @Test
  void shouldStoreTheEntriesOfAJarInTheirOrder() throws Exception {
    Path classes = temp.resolve("classes");
    Path folder = Files.createDirectories(classes.resolve("b"));
    Files.writeString(folder.resolve("X.class"), "x");
    Files.writeString(classes.resolve("module-info.class"), "m");
    Files.writeString(classes.resolve("a.txt"), "text");
    Path packed = temp.resolve("packed.jar");
    BundleJar.pack(classes, packed);
    Path copied = temp.resolve("copied.jar");
    BundleJar.copy(packed, copied, new SymbolStripper(temp));
    try (ZipFile jar = new ZipFile(copied.toFile())) {
      List<? extends ZipEntry> entries = jar.stream().toList();
      assertThat(entries).extracting(ZipEntry::getName).containsExactly("a.txt", "b/X.class");
      assertThat(entries).allMatch(e -> e.getMethod() == ZipEntry.STORED);
      assertThat(jar.getInputStream(entries.getFirst()).readAllBytes())
          .asString()
          .isEqualTo("text");
    }
    assertThat(Files.readAllBytes(copied)).isEqualTo(Files.readAllBytes(packed));
  }

  @Test
  void shouldRefuseAnArchiveOfAnUnknownKind() {
    Bundle bundle = new Bundle(temp, "", temp, "model");
    assertThatThrownBy(() -> bundle.write(temp.resolve("m.zip"), null))
        .isInstanceOf(IllegalStateException.class)
        .hasMessageContaining("must end in .tar.xz, .tar.zst or .tar.gz");
  }
}
