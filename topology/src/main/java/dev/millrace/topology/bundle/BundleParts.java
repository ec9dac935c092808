package dev.millrace.topology.bundle;

import java.util.List;
import java.util.Set;
import java.util.regex.Pattern;

/** What goes into a bundle and what stays out. */
final class BundleParts {
  /** The one platform that natives are kept of. */
  static final String PLATFORM = "linux-x86_64";

  /** Modules of the runtime: what the classes on the class path were seen to use. */
  static final List<String> RUNTIME_MODULES =
      List.of(
          "java.base",
          "java.logging",
          "java.management",
          "java.naming",
          "java.net.http",
          "java.security.jgss",
          "java.security.sasl",
          "java.sql",
          "java.xml",
          "jdk.httpserver",
          "jdk.incubator.vector",
          "jdk.jfr",
          "jdk.management",
          "jdk.unsupported");

  /**
   * Libraries that others ask for and that nothing here comes to: RocksDB (our stores are in
   * memory), Kafka's command-line tools, OAuth, codecs of Avro's files and of DJL, Prometheus'
   * protobuf format (the text formats stay), and Log4j's own logging, which the broker can do
   * without and which needs a larger runtime.
   */
  private static final Set<String> LEFT_OUT =
      Set.of(
          "argparse4j",
          "caffeine",
          "commons-beanutils",
          "commons-codec",
          "commons-collections",
          "commons-compress",
          "commons-digester",
          "commons-io",
          "commons-lang3",
          "commons-logging",
          "error_prone_annotations",
          "gson",
          "j2objc-annotations",
          "jackson-dataformat-csv",
          "jackson-dataformat-yaml",
          "jose4j",
          "listenablefuture",
          "log4j-core",
          "prometheus-metrics-exposition-formats",
          "rocksdbjni",
          "scala-reflect",
          "snakeyaml");

  private static final Pattern VERSION = Pattern.compile("-\\d.*\\.jar$");

  /** Native libraries, whatever the folder. */
  private static final Pattern NATIVE =
      Pattern.compile(".*\\.(?:so|dll|dylib|jnilib|a|so\\.\\d+)$");

  /** Those of the platform, in each library's way of naming it. */
  private static final Pattern OF_PLATFORM =
      Pattern.compile(
          "native/lib/linux-x86_64/cpu/.*" // DJL's tokenizers
              + "|lib/libJCuda(?:Driver|Runtime)-.*-linux-x86_64\\.so"
              + "|linux/amd64/libzstd-jni.*\\.so"
              + "|org/xerial/snappy/native/Linux/x86_64/.*"
              + "|net/jpountz/util/linux/amd64/.*"
              + "|com/sun/jna/linux-x86-64/.*");

  /** What only builds, or only other tools, read. */
  private static final Pattern UNUSED =
      Pattern.compile(
          "META-INF/maven/.*|META-INF/[^/]+\\.(?:SF|RSA|DSA|EC)|META-INF/proguard/.*"
              // Requests as JSON, for the broker's request log, which is off.
              + "|org/apache/kafka/common/message/.*JsonConverter(?:\\$.*)?\\.class"
              + "|META-INF/versions/\\d+/module-info\\.class|module-info\\.class"
              // Lists of models that DJL can fetch; this project fetches none.
              + "|(?:cv|nlp)/.*\\.json");

  private BundleParts() {}

  /** Whether a library of that file name goes into the bundle. */
  static boolean keepsJar(String fileName) {
    return !LEFT_OUT.contains(VERSION.matcher(fileName).replaceFirst(""));
  }

  /** Whether an entry of a library goes into the bundle. */
  static boolean keepsEntry(String name) {
    return NATIVE.matcher(name).matches()
        ? OF_PLATFORM.matcher(name).matches()
        : !UNUSED.matcher(name).matches();
  }
}
